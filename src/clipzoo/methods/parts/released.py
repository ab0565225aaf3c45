"""Checkpoints as the authors of BIKE and ActionCLIP release them: a whole CLIP and a head."""

from typing import Any

from torch import Tensor

from clipzoo.models import archives
from clipzoo.tensors import WeightsError


def clip_and_head(
    content: dict[str, Any], where: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of a video model's checkpoint, by name without `module.`, those of floating point
    as float32.

    Args:
        content: {epoch, model_state_dict: a whole CLIP in OpenAI's names, fusion_model_state_dict:
            the head's tensors, perhaps none, optimizer_state_dict}; others are not read.
        where: the file, for messages.

    Raises:
        WeightsError: there is no whole CLIP, or no head for videos.
    """
    clip, head = archives.named_tensors(content, where), content.get("fusion_model_state_dict")
    if not isinstance(head, dict):
        single = any(name.startswith("fusion_model.") for name in clip)
        kind = "one dict, as Text4Vis saves it (model.method text4vis)" if single else "no head"
        raise WeightsError(
            f"{where}: found {kind}, with the tensors {', '.join(list(clip)[:3])}, ...; "
            "allowed: model_state_dict (a whole CLIP) and fusion_model_state_dict (the head)"
        )
    if missing := {"visual.conv1.weight", "text_projection", "logit_scale"} - clip.keys():
        raise WeightsError(
            f"{where}: model_state_dict: missing {', '.join(sorted(missing))}; allowed: a whole "
            "CLIP in OpenAI's names, vision and text tower"
        )
    heads = archives.named_tensors(head, where) if head else {}
    if any(name.startswith(("query_fc.", "sentence_fc.")) for name in heads):
        raise WeightsError(
            f"{where}: fusion_model_state_dict: found query_fc.* and sentence_fc.*, of BIKE's "
            "attributes branch (model.method bike_attributes); allowed: the head of a video model"
        )
    return clip, heads

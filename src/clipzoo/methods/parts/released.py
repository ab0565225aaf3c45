"""Checkpoints of which the authors save CLIP and the head apart: BIKE, ActionCLIP and MoTE."""

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
    if any(".mlp.fc_up." in str(name) for name in head):
        raise WeightsError(
            f"{where}: fusion_model_state_dict: found mlp.fc_up.*, the experts of MoTE "
            "(model.method mote); allowed: the head of a video model without experts"
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


def vision_and_head(
    content: dict[str, Any], where: str, *, parts: tuple[str, ...], otherwise: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The vision tower with logit_scale, and the head, of a checkpoint without a text tower; by
    name without `module.`, those of floating point as float32.

    Args:
        content: {epoch, model_state_dict: visual.* and logit_scale, fusion_model_state_dict: the
            head's tensors, optimizer_state_dict}; others are not read.
        where: the file, for messages.
        parts: what names of the head must contain.
        otherwise: what a file may be that has no such head, for messages.

    Raises:
        WeightsError: there is no vision tower, or no head with these parts.
    """
    clip, head = archives.named_tensors(content, where), content.get("fusion_model_state_dict")
    heads = archives.named_tensors(head, where) if isinstance(head, dict) and head else {}
    if missing := [part for part in parts if not any(part in name for name in heads)]:
        found = ", ".join(list(heads)[:3]) or "no such dict"
        raise WeightsError(
            f"{where}: fusion_model_state_dict: missing {', '.join(missing)}; found {found}; "
            f"{otherwise}"
        )
    if missing := {"visual.conv1.weight", "logit_scale"} - clip.keys():
        raise WeightsError(
            f"{where}: model_state_dict: missing {', '.join(sorted(missing))}; allowed: a vision "
            "tower in OpenAI's names (visual.*) and logit_scale"
        )
    vision = {k: v for k, v in clip.items() if k.startswith("visual.") or k == "logit_scale"}
    return vision, heads

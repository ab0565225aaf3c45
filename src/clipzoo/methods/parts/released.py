"""Released files: whose one is, and those with CLIP and the head apart (BIKE, ActionCLIP, MoTE)."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from clipzoo.models import archives
from clipzoo.tensors import WeightsError

HEAD = "fusion_model_state_dict"
FORMS = {
    "text4vis": ("Text4Vis", "visual.*, logit_scale and fusion_model.* in one dict"),
    "bike": ("BIKE", f"model_state_dict (a whole CLIP) and {HEAD} (the head)"),
    "bike_attributes": (
        "BIKE's attributes branch",
        f"model_state_dict (a whole CLIP) and {HEAD} (query_fc.*, sentence_fc.*)",
    ),
    "actionclip": ("ActionCLIP", f"model_state_dict (a whole CLIP) and {HEAD} (the head)"),
    "mote": ("MoTE", f"model_state_dict and {HEAD} (mlp.fc_up.*, mlp.fc_dn.*, spe_cls_feature)"),
    "vificlip": ("ViFi-CLIP", "image_encoder.*, text_encoder.* and logit_scale"),
    "openvclip": ("Open-VCLIP", "a whole CLIP, all names after `model.`"),
}
"""`model.method` -> whose the files are, and what they hold."""


def refuse_others(content: dict[str, Any], where: str, method: str) -> None:
    """Raise WeightsError if the content of a file shows that it is of another method.

    Args:
        content: what `archives.read_file` returns.
        where: the file, for messages.
        method: the `model.method` that is to read it.
    """
    found, owners = _owners(content)
    if owners and method not in owners:
        names = " or ".join(f"{FORMS[owner][0]} (model.method {owner})" for owner in owners)
        raise WeightsError(
            f"{where}: found {found}, as in files of {names}; allowed with model.method {method}: "
            f"{FORMS[method][1]}; take a recipe of the file's method, or another file"
        )


def _owners(content: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """What shows whose file it is, and the methods that it may be of; () = it is not known."""
    places = (content[key] for key in archives.CONTAINERS if isinstance(content.get(key), dict))
    names = _plain_names(next(places, content))
    if isinstance(content.get(HEAD), dict):
        heads = _plain_names(content[HEAD])
        if any(".mlp.fc_up." in name or name == "spe_cls_feature" for name in heads):
            return f"{HEAD} with mlp.fc_up.* or spe_cls_feature", ("mote",)
        if any(name.startswith(("query_fc.", "sentence_fc.")) for name in heads):
            return f"{HEAD} with query_fc.* and sentence_fc.*", ("bike_attributes",)
        return f"{HEAD}, a separate head without experts", ("bike", "actionclip")
    for prefix, owner in (
        ("image_encoder.", "vificlip"),
        ("fusion_model.", "text4vis"),
        ("model.visual.", "openvclip"),
    ):
        if any(name.startswith(prefix) for name in names):
            return f"{prefix}*", (owner,)
    return "", ()


def _plain_names(tensors: Iterable[object]) -> list[str]:
    """Names without the `module.` that DistributedDataParallel adds."""
    return [".".join(part for part in str(name).split(".") if part != "module") for name in tensors]


def clip_and_head(
    content: dict[str, Any], where: str, method: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of a video model's checkpoint, by name without `module.`, those of floating point
    as float32.

    Args:
        content: {epoch, model_state_dict: a whole CLIP in OpenAI's names, fusion_model_state_dict:
            the head's tensors, perhaps none, optimizer_state_dict}; others are not read.
        where: the file, for messages.
        method: the `model.method` that reads it.

    Raises:
        WeightsError: there is no whole CLIP, or no head for videos, or it is of another method.
    """
    refuse_others(content, where, method)
    clip, head = archives.named_tensors(content, where), content.get("fusion_model_state_dict")
    if not isinstance(head, dict):
        raise WeightsError(
            f"{where}: found no head, with the tensors {', '.join(list(clip)[:3])}, ...; "
            "allowed: model_state_dict (a whole CLIP) and fusion_model_state_dict (the head)"
        )
    if missing := {"visual.conv1.weight", "text_projection", "logit_scale"} - clip.keys():
        raise WeightsError(
            f"{where}: model_state_dict: missing {', '.join(sorted(missing))}; allowed: a whole "
            "CLIP in OpenAI's names, vision and text tower"
        )
    return clip, archives.named_tensors(head, where) if head else {}


def vision_and_head(
    content: dict[str, Any], where: str, method: str, *, parts: tuple[str, ...]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The vision tower with logit_scale, and the head, of a checkpoint without a text tower; by
    name without `module.`, those of floating point as float32.

    Args:
        content: {epoch, model_state_dict: visual.* and logit_scale, fusion_model_state_dict: the
            head's tensors, optimizer_state_dict}; others are not read.
        where: the file, for messages.
        method: the `model.method` that reads it.
        parts: what names of the head must contain.

    Raises:
        WeightsError: there is no vision tower, or no head with these parts, or it is of another
            method.
    """
    refuse_others(content, where, method)
    clip, head = archives.named_tensors(content, where), content.get("fusion_model_state_dict")
    heads = archives.named_tensors(head, where) if isinstance(head, dict) and head else {}
    if missing := [part for part in parts if not any(part in name for name in heads)]:
        found = ", ".join(list(heads)[:3]) or "no such dict"
        raise WeightsError(
            f"{where}: fusion_model_state_dict: missing {', '.join(missing)}; found {found}; "
            f"allowed: {FORMS[method][1]}"
        )
    if missing := {"visual.conv1.weight", "logit_scale"} - clip.keys():
        raise WeightsError(
            f"{where}: model_state_dict: missing {', '.join(sorted(missing))}; allowed: a vision "
            "tower in OpenAI's names (visual.*) and logit_scale"
        )
    vision = {k: v for k, v in clip.items() if k.startswith("visual.") or k == "logit_scale"}
    return vision, heads

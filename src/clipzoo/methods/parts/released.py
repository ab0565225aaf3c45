"""Released files: whose one is, and those with CLIP and the head apart (BIKE, ActionCLIP, MoTE)."""

from typing import Any

import torch
from torch import Tensor

from clipzoo.models import archives
from clipzoo.paths import CLIP_FILE
from clipzoo.tensors import WeightsError

HEAD = "fusion_model_state_dict"
WHOLE_CLIP = {"visual.conv1.weight", "text_projection", "logit_scale"}
"""Tensors that only a file with both towers of CLIP, in OpenAI's names, has together."""
TEXT_TOWER = "text.tower."
"""What the names of a trained text tower's tensors begin with."""
TEXT_TOLERANCE = 1e-3
"""Largest relative difference of equal text towers; float16 rounds by half of it."""
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
    names = [archives.plain_name(name) for name in next(places, content)]
    if isinstance(content.get(HEAD), dict):
        heads = [archives.plain_name(name) for name in content[HEAD]]
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
    clip, head = archives.named_tensors(content, where), content.get(HEAD)
    if not isinstance(head, dict):
        raise WeightsError(
            f"{where}: found no head, with the tensors {', '.join(list(clip)[:3])}, ...; "
            "allowed: model_state_dict (a whole CLIP) and fusion_model_state_dict (the head)"
        )
    if missing := WHOLE_CLIP - clip.keys():
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
    clip, head = archives.named_tensors(content, where), content.get(HEAD)
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
    return vision_tensors(clip), heads


def vision_tensors(clip: dict[str, Tensor]) -> dict[str, Tensor]:
    """The vision tower and logit_scale among the tensors of a CLIP."""
    return {k: v for k, v in clip.items() if k.startswith("visual.") or k == "logit_scale"}


def text_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The text tower's tensors among those of a method, by the names that CLIP gives them."""
    of_text = {n: v for n, v in tensors.items() if n.startswith(TEXT_TOWER)}
    return {n.removeprefix(TEXT_TOWER): v for n, v in of_text.items()}


def check_text_tower(
    content: dict[str, Any], text_tower: dict[str, Tensor], where: str, *, trained_by: str = ""
) -> None:
    """Compare the frozen text tower of a released file, if it has one, with that of the CLIP
    weights, which gives the class texts of a run.

    Args:
        content: of the file.
        text_tower: of the CLIP weights.
        where: the file, for messages.
        trained_by: the key and value in params.yaml that train the text tower too; "" = none does.

    Raises:
        WeightsError: a tensor is missing, or differs by more than float16 would round it.
    """
    tensors = archives.named_tensors(content, where)
    if "text_projection" not in tensors:
        return
    for name, expected in text_tower.items():
        value = tensors.get(name)
        if value is None:
            found = "missing"
        elif value.shape != expected.shape:
            found = f"found the shape {list(value.shape)}, not {list(expected.shape)}"
        elif not torch.allclose(value, expected, rtol=TEXT_TOLERANCE, atol=1e-6):
            found = f"differs by up to {float((value - expected).abs().max()):.2g}"
        else:
            continue
        otherwise = f", or set {trained_by} if the file's text tower is trained"
        raise WeightsError(
            f"{where}: its text tower is not that of {CLIP_FILE}: {name}: {found}; the class texts "
            "would be others, so set model.weights to the CLIP that the file was trained from "
            f"(openai for released files){otherwise if trained_by else ''}"
        )

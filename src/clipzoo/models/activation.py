"""The activation of a weights file's towers, QuickGELU or GELU, which the tensors do not show.

Evidence that counts, the surest first:

1. a file of `save_clip` records it, and OpenAI's TorchScript archives differ from all others;
2. the sha256 of the file is one that open_clip's registry has for the architecture;
3. `model.activation`, or an architecture with `-quickgelu` in its name;
4. for OpenAI's architectures, the tensors were once stored as OpenAI's code stores them
   (`openai.has_mixed_storage`);
5. open_clip has the architecture with one activation only.

An architecture that open_clip has with both activations is refused without such evidence.
"""

from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import nn

from clipzoo.config import Params
from clipzoo.models import openai
from clipzoo.models.architectures import model_config, open_clip_name
from clipzoo.models.archives import stored_tensors
from clipzoo.models.clip import build_clip, read_clip_metadata
from clipzoo.models.weights_folder import tag_of_file
from clipzoo.tensors import WeightsError, read_metadata


def activation_name(quick_gelu: bool) -> str:
    """The name of the activation: QuickGELU or GELU."""
    return "QuickGELU" if quick_gelu else "GELU"


def file_activation(
    name: str, path: Path, content: dict[str, Any], activation: str | None
) -> tuple[bool, str]:
    """Whether the towers of a weights file have QuickGELU, and how that is known.

    Args:
        content: what `archives.read_file` returns for the file.
        activation: `model.activation`; None = there is no such key, as for `attributes.weights`.

    Raises:
        WeightsError: it is not known, or what is set contradicts the file.
    """
    setting, known = _setting(name, activation), None
    if path.suffix == ".safetensors" and "clip" in read_metadata(path):
        known = bool(read_clip_metadata(path)["quick_gelu"]), "prepare_clip noted it in the file"
    elif openai.is_archive(content):
        known = True, "it is an archive of OpenAI"
    elif setting is None and has_both(name):
        known = _by_digest(name, path)
    if known and setting and known[0] != setting[0]:
        raise WeightsError(
            f"{path}: has {activation_name(known[0])} towers, because {known[1]}; but "
            f"{setting[1]}; set model.activation to auto, and model.arch to the name "
            f"{'with' if known[0] else 'without'} -quickgelu"
        )
    if evidence := known or setting:
        return evidence
    if is_openais(name, path, content):
        return True, "its tensors were stored as OpenAI's are, weights in float16 and the rest not"
    if has_both(name):
        remedy = f"set model.activation to quickgelu or gelu (or model.arch to {name}-quickgelu)"
        if activation is None:
            remedy = f"if QuickGELU, set the arch to {name}-quickgelu; if GELU, give a tag instead"
        raise WeightsError(
            f"{path}: its content does not show whether its towers have QuickGELU, as OpenAI's, "
            f"or GELU, as LAION's, and {name} may have either; {remedy}"
        )
    return False, f"{name} has no other activation"


def has_both(name: str) -> bool:
    """Whether open_clip has an architecture with either activation."""
    return f"{name}-quickgelu" in open_clip.list_models()


def may_have_quick_gelu(arch: str, weights: str, activation: str) -> bool:
    """Whether a run's towers have QuickGELU, as far as its parameters tell.

    Where only the content of a file does, True: autograd saves more for QuickGELU than for GELU, so
    an estimate of memory is not too small.

    Args:
        arch: `model.arch`.
        weights: `model.weights`.
        activation: `model.activation`.
    """
    name = open_clip_name(arch)
    if setting := _setting(name, activation):
        return setting[0]
    if weights in open_clip.list_pretrained_tags_by_model(name):
        config: dict[str, Any] = open_clip.get_pretrained_cfg(name, weights)
        return bool(config.get("quick_gelu"))
    return weights not in ("demo", "random") and has_both(name)


def random_towers(params: Params, device: torch.device) -> nn.Module:
    """The CLIP of a run with random weights, and the activation of the run's (as far as known).

    Raises:
        ConfigError: an unknown architecture.
    """
    about = params.model
    quick_gelu = may_have_quick_gelu(about.arch, about.weights, about.activation)
    with device:
        return build_clip(
            about.arch, about.input_px, quick_gelu=quick_gelu or None, device=str(device)
        )


def is_openais(name: str, path: Path, content: dict[str, Any]) -> bool:
    """Whether the content of a file shows that it holds weights of OpenAI.

    OpenAI may have released some for the architecture: open_clip has theirs, or none at all.
    """
    if openai.is_archive(content):
        return True
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tags and "openai" not in tags:
        return False
    return openai.has_mixed_storage(stored_tensors(content, str(path)))


def _setting(name: str, activation: str | None) -> tuple[bool, str] | None:
    """Whether the parameters set QuickGELU, and which one does; None = they leave it open."""
    if model_config(name).get("quick_gelu"):
        if activation == "gelu":
            raise WeightsError(
                f"model.activation: found 'gelu'; allowed with model.arch {name}, which has "
                "QuickGELU: auto or quickgelu; or set model.arch to the name without -quickgelu"
            )
        return True, f"model.arch {name} has QuickGELU"
    if activation in (None, "auto"):
        return None
    return activation == "quickgelu", f"model.activation is {activation}"


def _by_digest(name: str, path: Path) -> tuple[bool, str] | None:
    """The activation according to open_clip's registry, if it has the file's sha256."""
    if (model_and_tag := tag_of_file(name, path)) is None:
        return None
    config: dict[str, Any] = open_clip.get_pretrained_cfg(*model_and_tag)
    reason = f"its sha256 is that of open_clip's {model_and_tag[1]}"
    return bool(config.get("quick_gelu")), reason

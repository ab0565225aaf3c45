"""How frames become the input of a CLIP: mean, std and resize, which belong to its weights.

A pretrained tag of open_clip says what its weights were trained with, and two tags of one
architecture may differ. With other pixels nothing fails, but every score is wrong.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import open_clip
import torch
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from pydantic import BeforeValidator
from torch import Tensor, nn

from clipzoo.sections import Section, build
from clipzoo.tensors import WeightsError

Channels = Annotated[
    tuple[float, float, float],
    BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
]
"""A number for red, green and blue; JSON has a list."""


class Pixels(Section):
    """What weights expect of their input."""

    mean: Channels
    """Subtracted from values in 0 .. 1."""
    std: Channels
    """What the difference is divided by; above 0."""
    interpolation: Literal["bicubic", "bilinear"]
    """How whole frames are resized, antialiased."""
    resize: Literal["shortest", "squash"]
    """shortest: the short side gets the asked size, and a crop cuts the rest off; squash: both
    sides get it, whatever their ratio."""

    def __str__(self) -> str:
        mean, std = (" ".join(f"{value:.4g}" for value in part) for part in (self.mean, self.std))
        return f"mean {mean}, std {std}, {self.interpolation}, {self.resize}"


_CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
_UNIT = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _pixels(statistics: tuple[Channels, Channels], interpolation: str, resize: str) -> Pixels:
    mean, std = statistics
    values = {"mean": mean, "std": std, "interpolation": interpolation, "resize": resize}
    return Pixels.model_validate(values)


PIXELS = {
    "openai": _pixels(_CLIP, "bicubic", "shortest"),
    "openai-squash": _pixels(_CLIP, "bicubic", "squash"),  # DFN5B, MetaCLIP 2
    "half": _pixels(_HALF, "bicubic", "shortest"),  # LAION's ViT-L/14 (laion2b_s32b_b82k)
    "siglip": _pixels(_HALF, "bicubic", "squash"),
    "clipa": _pixels(_IMAGENET, "bilinear", "squash"),
    "mobileclip": _pixels(_UNIT, "bilinear", "shortest"),
    "mobileclip2": _pixels(_CLIP, "bilinear", "shortest"),  # MobileCLIP2-S3 and -S4
    "pe": _pixels(_HALF, "bilinear", "squash"),
    "imagenet": _pixels(_IMAGENET, "bicubic", "shortest"),  # no tag; ViFi-CLIP trains with it
}
"""The values of `model.pixels`; every tag of the locked open_clip has one of them."""
OPENAI = PIXELS["openai"]


def pixels_of(towers: nn.Module) -> Pixels:
    """The pixels of an open_clip model, whose factory notes them on its vision tower.

    A tower that the factory did not make has open_clip's default, OpenAI's pixels.
    """
    config = getattr(towers.get_submodule("visual"), "preprocess_cfg", None)
    return OPENAI if config is None else _of_config(config, "preprocess_cfg")


def pixels_of_tag(name: str, tag: str) -> Pixels:
    """The pixels of a pretrained tag of an architecture (`open_clip_name`).

    Raises:
        WeightsError: this project does not have its kind of resize or interpolation.
    """
    config: dict[str, Any] = open_clip.get_pretrained_cfg(name, tag)
    return _of_config(merge_preprocess_dict(PreprocessCfg(), config), f"{name}, {tag}")


def pixels_of_arch(name: str) -> dict[str, list[str]]:
    """The keys of PIXELS that the tags of an architecture have, each with these tags."""
    names = {pixels: key for key, pixels in PIXELS.items()}
    found: dict[str, list[str]] = {}
    for tag in open_clip.list_pretrained_tags_by_model(name):
        found.setdefault(names[pixels_of_tag(name, tag)], []).append(tag)
    return found


def pixels_of_file(name: str, path: str, setting: str | None) -> Pixels:
    """The pixels of a weights file whose content does not show them.

    Args:
        setting: `model.pixels`; None = there is no such key, as for `attributes.weights`.

    Raises:
        WeightsError: nothing is set, and the tags of the architecture differ.
    """
    if setting not in (None, "auto"):
        return PIXELS[setting]
    found = pixels_of_arch(name) or {"openai": []}  # open_clip's default
    if len(found) == 1:
        return PIXELS[next(iter(found))]
    choices = "; ".join(f"{key} ({PIXELS[key]}), as {', '.join(t)}" for key, t in found.items())
    remedy = "give a tag instead" if setting is None else "set model.pixels"
    raise WeightsError(
        f"{path}: its content does not show which pixels it was trained with, and the weights of "
        f"{name} differ: {choices}; {remedy}"
    )


def pixels_of_stand_in(name: str, setting: str) -> Pixels:
    """The pixels of weights that nobody trained elsewhere: those that are set, or those that all
    tags of the architecture have, or else OpenAI's."""
    found = list(pixels_of_arch(name)) if setting == "auto" else [setting]
    return PIXELS[found[0]] if len(found) == 1 else OPENAI


def preprocess_config(pixels: Pixels) -> dict[str, Any]:
    """The pixels as open_clip's `force_preprocess_cfg`."""
    values = pixels.model_dump()
    values["resize_mode"] = values.pop("resize")
    return values


def normalization(pixels: Pixels) -> tuple[Tensor, Tensor]:
    """-mean / std and 1 / (255 std), float32 [3, 1, 1]: (x / 255 - mean) / std in one pass."""
    mean, std = (torch.tensor(part).view(3, 1, 1) for part in (pixels.mean, pixels.std))
    return -mean / std, 1 / (255 * std)


def normalize(frames: Tensor, pixels: Pixels) -> Tensor:
    """uint8 [..., 3, H, W] in 0 .. 255, on the CPU, -> float32 as the weights expect it."""
    shift, scale = normalization(pixels)
    return torch.addcmul(shift, frames.float(), scale)


def _of_config(config: Mapping[str, Any], where: str) -> Pixels:
    """The pixels of a preprocess_cfg of open_clip."""
    values = {key: config[key] for key in ("mean", "std", "interpolation")}
    values["resize"] = config["resize_mode"]
    try:
        return build(Pixels, values, where)
    except ValueError as error:
        raise WeightsError(str(error)) from error

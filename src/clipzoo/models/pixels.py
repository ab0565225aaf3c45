"""How frames become the input of a CLIP: mean, std and resize, which belong to its weights.

A pretrained tag of open_clip says what its weights were trained with, and two tags of one
architecture may differ. With other pixels nothing fails, but every score is wrong.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, BeforeValidator
from torch import Tensor, nn

from clipzoo.sections import Section, build
from clipzoo.tensors import WeightsError

Channels = Annotated[
    tuple[float, float, float],
    BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
]
"""A number for red, green and blue; JSON has a list."""


def _above_0(values: Channels) -> Channels:
    if min(values) <= 0:
        raise ValueError("numbers above 0")
    return values


class Pixels(Section):
    """What weights expect of their input."""

    mean: Channels
    """Subtracted from values in 0 .. 1."""
    std: Annotated[Channels, AfterValidator(_above_0)]
    """What the difference is divided by; above 0."""
    interpolation: Literal["bicubic", "bilinear", "linear"]
    """How whole frames are resized, antialiased; linear: bilinear without antialiasing, as OpenCV
    does it."""
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
    "imagenet": _pixels(_IMAGENET, "bicubic", "shortest"),  # no tag
    "imagenet-bilinear": _pixels(_IMAGENET, "bilinear", "shortest"),  # no tag; ViFi-CLIP
    "openai-linear": _pixels(_CLIP, "linear", "shortest"),  # no tag; Open-VCLIP
}
"""The values of `model.pixels`; every tag of the locked open_clip has one of them."""
OPENAI = PIXELS["openai"]


def pixels_of(towers: nn.Module) -> Pixels:
    """The pixels of an open_clip model, whose factory notes them on its vision tower.

    A tower that the factory did not make has open_clip's default, OpenAI's pixels.
    """
    config = getattr(towers.get_submodule("visual"), "preprocess_cfg", None)
    return OPENAI if config is None else read_pixels(config, "preprocess_cfg")


def read_pixels(config: Mapping[str, Any], where: str) -> Pixels:
    """The pixels of a complete preprocess_cfg of open_clip.

    Raises:
        WeightsError: names `where` and what this project does not have, such as another resize.
    """
    values = {key: config[key] for key in ("mean", "std", "interpolation")}
    values["resize"] = config["resize_mode"]
    try:
        return build(Pixels, values, where)
    except ValueError as error:
        raise WeightsError(str(error)) from error


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

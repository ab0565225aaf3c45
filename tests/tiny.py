"""Small models for tests."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP
from torch import nn

from clipzoo.methods import METHODS, bike_attributes
from clipzoo.methods.parts.method import Method
from clipzoo.methods.text4vis import Options
from clipzoo.models import pixels
from clipzoo.models.clip import build_clip
from clipzoo.yaml_files import read_yaml
from parity.inputs import class_text

normalize = partial(pixels.normalize, pixels=pixels.OPENAI)

PARAMS = Path(__file__).parents[1] / "params.yaml"
DIM, INPUT_PX, CONTEXT, WORDS = 32, 16, 8, 100
"""Sizes of `clip`: of its embedding, frames (twice as large for a ResNet), texts and vocabulary."""


class Towers(nn.Module):
    """In the place of a CLIP: any vision tower, with the pixels that open_clip notes on it."""

    def __init__(self, visual: nn.Module, taken: pixels.Pixels = pixels.OPENAI) -> None:
        super().__init__()
        self.visual = visual
        noted: Any = visual
        noted.preprocess_cfg = pixels.preprocess_config(taken)


def demo_towers(seed: int) -> nn.Module:
    """The demo's CLIP for 32 px, initialized at random."""
    torch.manual_seed(seed)
    return build_clip("ViT-demo-16", 32)


def clip(tower: str = "vit") -> CLIP:
    """A CLIP of one layer: the smallest with all parts.

    Args:
        tower: `vit`, `resnet` (four blocks), or `stem`, a ViT without blocks.
    """
    torch.manual_seed(0)
    vision: dict[str, Any] = {"image_size": INPUT_PX, "width": 32, "patch_size": 8}
    vision |= {"head_width": 16, "layers": 0 if tower == "stem" else 1}
    if tower == "resnet":
        vision = {"image_size": 2 * INPUT_PX, "width": 8, "layers": (1, 1, 1, 1)}
    text = {"context_length": CONTEXT, "vocab_size": WORDS, "width": 32, "heads": 2, "layers": 1}
    return CLIP(DIM, vision, text, quick_gelu=True)  # pyright: ignore[reportArgumentType]


def options(name: str, **changes: Any) -> Any:
    """The options of a method: those of params.yaml with heads of one layer, and `changes`."""
    sections: Any = read_yaml(PARAMS)
    layers = {"head_layers": 1} if "head_layers" in sections[name] else {}
    return METHODS[name].options.model_validate({**sections[name], **layers, **changes})


def method(name: str, num_segments: int, tower: str = "vit", **changes: Any) -> Method:
    """A method of `METHODS` on `clip(tower)`, with `options`, that knows six classes; in evaluation
    mode."""
    model = METHODS[name].build(clip(tower), options(name, **changes), num_segments)
    model.start_training(class_text(torch.randn(1, 6, DIM)))
    return model.eval()


def text4vis_options(**changes: Any) -> Options:
    """Options of Text4Vis, as in params.yaml but for `changes`."""
    values = {"head": "Transf", "head_layers": 6, "temporal_module": "none", "joint": False}
    values |= {"loss": "ce", "text_tower": "frozen"}
    return Options.model_validate({**values, **changes})


def attributes_options(**changes: Any) -> bike_attributes.Options:
    """Options of BIKE's attributes branch, as in params.yaml but for `changes`."""
    values = {"prefix": "", "num_attributes": 5, "val_min_frames": 8, "score_training": False}
    return bike_attributes.Options.model_validate({**values, **changes})

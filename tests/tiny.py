"""Small models for tests."""

from functools import partial
from typing import Any

from torch import nn

from clipzoo.methods import bike_attributes
from clipzoo.methods.text4vis import Options
from clipzoo.models import pixels

normalize = partial(pixels.normalize, pixels=pixels.OPENAI)


class Towers(nn.Module):
    """In the place of a CLIP: any vision tower, with the pixels that open_clip notes on it."""

    def __init__(self, visual: nn.Module, taken: pixels.Pixels = pixels.OPENAI) -> None:
        super().__init__()
        self.visual = visual
        noted: Any = visual
        noted.preprocess_cfg = pixels.preprocess_config(taken)


def text4vis_options(**changes: Any) -> Options:
    """Options of Text4Vis, as in params.yaml but for `changes`."""
    values = {"head": "Transf", "head_layers": 6, "temporal_module": "none", "joint": False}
    values |= {"loss": "ce", "text_tower": "frozen"}
    return Options.model_validate({**values, **changes})


def attributes_options(**changes: Any) -> bike_attributes.Options:
    """Options of BIKE's attributes branch, as in params.yaml but for `changes`."""
    values = {"prefix": "", "num_attributes": 5, "val_min_frames": 8, "score_training": False}
    return bike_attributes.Options.model_validate({**values, **changes})

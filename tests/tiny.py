"""Small models for tests."""

from typing import Any

from clipzoo.methods import bike_attributes
from clipzoo.methods.text4vis import Options


def text4vis_options(**changes: Any) -> Options:
    """Options of Text4Vis, as in params.yaml but for `changes`."""
    values = {"head": "Transf", "head_layers": 6, "temporal_module": "none", "joint": False}
    values |= {"loss": "ce", "text_tower": "frozen"}
    return Options.model_validate({**values, **changes})


def attributes_options(**changes: Any) -> bike_attributes.Options:
    """Options of BIKE's attributes branch, as in params.yaml but for `changes`."""
    values = {"prefix": "", "num_attributes": 5, "val_min_frames": 8, "score_training": False}
    return bike_attributes.Options.model_validate({**values, **changes})

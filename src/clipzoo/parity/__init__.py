"""Golden numbers: this project's results against those of the reference implementations.

    python -m clipzoo.parity FILE...

prints one line for each case of each JSON file, `ok` or the largest difference, and exits with 1 if
any case differs or is of an unknown kind. There is one plain function for each topic: its keyword
arguments are a case's inputs, and it returns a dict of the outputs; both have the names that the
files use. Parameters and inputs are functions of a name or a seed (`inputs.py`), so files hold only
numbers.

Tolerances: models 1e-4 of the quantity's largest value; indices and shapes exact; schedules 1e-6 of
the base rate; probabilities 1e-6; accuracies 1e-6 of 100%; pixels 2 of 255 grey levels (another
resize implementation).
"""

from clipzoo.parity.check import TOPICS, check, check_file
from clipzoo.parity.data import (
    inclusive_ranges,
    learning_rates,
    preprocess,
    sample_dense_indices,
    sample_indices,
)
from clipzoo.parity.measures import (
    actionclip_template_fusion,
    bike_attribute_fusion,
    bike_view_fusion,
    bike_zero_shot_frames,
    half_class,
    mean_average_precision,
    text4vis_view_fusion,
)
from clipzoo.parity.model import actionclip_head, actionclip_loss, bike, text4vis

__all__ = [
    "TOPICS",
    "actionclip_head",
    "actionclip_loss",
    "actionclip_template_fusion",
    "bike",
    "bike_attribute_fusion",
    "bike_view_fusion",
    "bike_zero_shot_frames",
    "check",
    "check_file",
    "half_class",
    "inclusive_ranges",
    "learning_rates",
    "mean_average_precision",
    "preprocess",
    "sample_dense_indices",
    "sample_indices",
    "text4vis",
    "text4vis_view_fusion",
]

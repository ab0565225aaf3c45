"""Which settings a trained model depends on.

`Params.settings` has all values that can change a number. A model file records those of its
training, so that the results of another run are never taken for those of this model.
"""

from collections.abc import Mapping
from typing import Any

# What dvc.yaml lists as parameters of the stage `train` (a test compares them), so that whenever
# these settings differ, `dvc repro` trains again. `recipe` only names the run.
TRAINING_KEYS = (
    "seed",
    "data.dataset",
    "data.shots",
    "data.classes",
    "data.min_frames",
    "demo.arch",
    "demo.other_archs.train_steps",
    "demo.other_archs.eval_videos",
    "text.classifier",
    "test.short_side_px",
    "test.precision",
)
TRAINING_SECTIONS = ("model", "augment", "train")


def training_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, from `Params.settings`, that a model was trained with: `TRAINING_KEYS`,
    `TRAINING_SECTIONS` and the section of its method."""
    sections = (*TRAINING_SECTIONS, settings.get("model.method"))
    return {
        key: value
        for key, value in settings.items()
        if key in TRAINING_KEYS or key.partition(".")[0] in sections
    }


def describe_difference(before: Mapping[str, Any], now: Mapping[str, Any], most: int = 3) -> str:
    """The settings that differ, of which `most` are named: `train.lr: 0.1 -> 0.2`; '' = none do."""
    keys = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    named = [f"{key}: {before.get(key)!r} -> {now.get(key)!r}" for key in keys[:most]]
    more = [f"{len(keys) - most} more"] if len(keys) > most else []
    return ", ".join([*named, *more])

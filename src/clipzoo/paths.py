"""Where the pipeline's files lie, relative to the root of the repository.

dvc.yaml names the same paths. Nothing is imported here but pathlib, so that every module may ask.
"""

from pathlib import Path

LISTS_DIR = Path("lists")
METRICS_DIR = Path("metrics")
PLOTS_DIR = Path("plots")
PREDICTIONS_DIR = Path("predictions")
STATE_DIR = Path(".state")
"""Unfinished work, which is not an output of DVC: a killed stage continues from it."""

CLIP_FILE = Path("models/clip.safetensors")
MODEL_FILE = Path("models/model.safetensors")
CLASSIFIER_FILE = Path("models/classifier.safetensors")

PICTURES = "pictures"
"""The folder of png files in a `plots_dir`, which has files of numbers beside it: dvc.yaml shows it
whole, as not every run has every picture."""

KEPT_MODELS_DIR = Path("models/zoo")
"""Models of recipes that are parents of others; not tracked, since a rerun creates them again."""
KEPT_PREDICTIONS_DIR = PREDICTIONS_DIR / "zoo"
"""Predictions of recipes that others are fused with; not tracked either."""


def list_file(dataset: str, name: str) -> Path:
    """lists/<dataset>/<name>.csv; `name` is `train`, `val`, `labels`, `splits` or `missing`."""
    return LISTS_DIR / dataset / f"{name}.csv"


def metrics_file(recipe: str, stem: str) -> Path:
    """metrics/<recipe>/<stem>.json; `stem` is `train`, `test`, `fused` or `zero_shot_<dataset>`."""
    return METRICS_DIR / recipe / f"{stem}.json"


def plots_dir(recipe: str, stem: str) -> Path:
    """plots/<recipe>/<stem>, the folder of the curves that belong to a metrics file."""
    return PLOTS_DIR / recipe / stem


def settings_file(recipe: str, stem: str) -> Path:
    """The parameters that a metrics file was computed with, beside its curves."""
    return plots_dir(recipe, stem) / "settings.json"


def predictions_file(stem: str) -> Path:
    """predictions/<stem>.safetensors; the ids of its videos are in the .parquet file beside it."""
    return PREDICTIONS_DIR / f"{stem}.safetensors"

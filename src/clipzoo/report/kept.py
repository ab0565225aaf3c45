"""Files that recipes start from or are fused with: kept by runs, or given by a user.

A released file gets a link in models/zoo/ whose name has the digest of its content. So the settings
of a run say by themselves what it started from, and other content under the same name runs again.
"""

import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from clipzoo.config import ConfigError
from clipzoo.files import (
    ListError,
    file_sha256,
    json_sha256,
    read_json,
    replacing,
    replacing_folder,
    write_json,
)
from clipzoo.paths import (
    KEPT_MODELS_DIR,
    KEPT_PREDICTIONS_DIR,
    METRICS_DIR,
    MODEL_FILE,
    PREDICTIONS_DIR,
    metrics_file,
    settings_file,
)
from clipzoo.recorded import TrainedBy
from clipzoo.report import verdicts
from clipzoo.report.recipes import RECIPES_DIR, fused_recipes, load_recipes
from clipzoo.report.released import released_file, released_run
from clipzoo.settings import training_settings

PREDICTION_FILES = ("test.safetensors", "test.parquet", "test.json")
"""Files in a recipe's folder there: two of `predictions/`, and the metrics."""
MISSING = " is missing"
"""How the fault of a kept file ends that is not there."""
SETTINGS_FILE = "settings.json"
"""The settings of the run, beside them; a user's predictions have none."""


def kept_model(name: str) -> Path:
    """Where the model of a recipe is kept for its children."""
    return KEPT_MODELS_DIR / f"{name}.safetensors"


def kept_predictions(name: str) -> list[Path]:
    """Where the predictions of a recipe, and their metrics, are kept to be fused with others."""
    return [KEPT_PREDICTIONS_DIR / name / file for file in PREDICTION_FILES]


def fault_of_model(name: str, settings: Mapping[str, Any]) -> str:
    """Why the kept model of a recipe, with the settings that it has now, cannot be used; '' = it
    can."""
    from clipzoo.tensors import WeightsError, read_metadata  # slow: it imports torch

    path = kept_model(name)
    if not path.is_file():
        return f"{path}{MISSING}"
    try:
        trained = TrainedBy.model_validate_json(read_metadata(path)["model"])
    except (WeightsError, KeyError, ValueError):
        return f"{path} is not a model file of this project"
    if trained.recipe != name:
        return f"{path} is the model of {trained.recipe or 'an earlier version'}"
    changed = verdicts.modified(trained.settings, training_settings(settings), "test")
    return f"{path} was trained with another {', '.join(changed)}" if changed else ""


def fault_of_predictions(name: str, settings: Mapping[str, Any]) -> str:
    """Why the kept predictions of a recipe cannot be used; '' = they can, or a user gave them."""
    for path in kept_predictions(name):
        if not path.is_file():
            return f"{path}{MISSING}"
    about = path.with_name(SETTINGS_FILE)
    metrics, used = read_mapping(path), read_mapping(about)
    if "source" in metrics:
        return ""
    if used.get("recipe") != name or json_sha256(used) != metrics.get("settings_sha256"):
        return f"{about} is not that of {name} and of {path.name}"
    changed = verdicts.modified(used, settings, "test")
    return f"{path.parent} was computed with another {', '.join(changed)}" if changed else ""


def keeps_model_of(run: str) -> bool:
    """Whether the kept model of a recipe is that of its last results."""
    path, metrics = kept_model(run), read_mapping(metrics_file(run, "test"))
    return path.is_file() and digest_of(path) == metrics.get("model_sha256")


def keeps_predictions_of(run: str) -> bool:
    """Whether the kept predictions of a run are those of its last results."""
    *tensors, about = kept_predictions(run)
    metrics = metrics_file(run, "test")
    found = all(path.is_file() for path in (*tensors, about))
    return found and read_mapping(about) == read_mapping(metrics)


def is_parent(name: str) -> bool:
    """Whether another recipe starts from the model of this one."""
    return name in _needed_by_others(_recipe_files())[0]


def is_fused(name: str) -> bool:
    """Whether another recipe is fused with the predictions of this one."""
    return name in _needed_by_others(_recipe_files())[1]


def _recipe_files() -> tuple[tuple[str, int], ...]:
    """The recipes' files, with the times of their last changes."""
    return tuple((str(p), p.stat().st_mtime_ns) for p in sorted(RECIPES_DIR.rglob("*.yaml")))


@cache
def _needed_by_others(_: tuple[tuple[str, int], ...]) -> tuple[set[str], set[str]]:
    """The recipes that others start from, and those that others are fused with."""
    loaded = load_recipes().values()
    fused = {name for _, settings in loaded for name in fused_recipes(settings)}
    return {recipe.parent for recipe, _ in loaded}, fused


def keep_outputs(name: str, *, released: bool = False) -> None:
    """Keep what other recipes need of the active run: its model (`kept_model`) if one starts from
    it, its predictions (`kept_predictions`) if one is fused with them.

    Args:
        released: the run evaluated released weights. Its predictions are kept under its own name,
            and its model is not.
    """
    run = released_run(name) if released else name
    kept = []
    if is_parent(name) and not released:
        kept.append(kept_model(name))
        with replacing(kept[-1]) as part:
            shutil.copyfile(MODEL_FILE, part)
    if is_fused(name):
        folders = (PREDICTIONS_DIR, PREDICTIONS_DIR, METRICS_DIR / run)
        sources = [folder / file for folder, file in zip(folders, PREDICTION_FILES, strict=True)]
        sources.append(settings_file(run, "test"))
        kept.append(KEPT_PREDICTIONS_DIR / run)
        with replacing_folder(kept[-1]) as folder:
            for source in sources:
                shutil.copyfile(source, folder / source.name)
    if kept:
        print(f"kept for other recipes: {', '.join(map(str, kept))}")


def digest_of(path: Path) -> str:
    """The SHA-256 of a file of maybe gigabytes, which is read again only after a change."""
    about = path.stat()
    return _digest(path, about.st_mtime_ns, about.st_size)


@cache
def _digest(path: Path, _time_ns: int, _size: int) -> str:
    return file_sha256(path)


def require_file(path: Path, option: str) -> None:
    """Raise ConfigError unless `path` is a file; `option` is that of the command line."""
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no such file"
        raise ConfigError(f"{option}: found {path}, {kind}; allowed: a model file, such as k400.pt")


def released_link(name: str, path: Path) -> Path:
    """Where a released file of a recipe's model is linked to; reads the file for its digest."""
    return KEPT_MODELS_DIR / released_file(name, digest_of(path), path.suffix)


def link_released(name: str, path: Path) -> None:
    """Make the link of `released_link`."""
    link = released_link(name, path)
    with replacing(link, durable=False) as part:
        part.symlink_to(path.resolve())


def given_predictions(path: Path, option: str) -> list[Path]:
    """The files that a user's predictions consist of: test.safetensors and test.parquet beside it.

    Raises:
        ConfigError: one is missing, or it is a file of scores alone.
    """
    if path.suffix != ".safetensors":
        raise ConfigError(
            f"{option}: found {path}; allowed: the .safetensors file that `test` writes to "
            "predictions/, with the .parquet file beside it; scores without ids of videos (.pt) "
            "are compared with each other: `clipzoo fuse VIDEO ATTRIBUTES --labels FILE "
            "--released RECIPE`"
        )
    files = [path, path.with_suffix(".parquet")]
    for file in files:
        require_file(file, option)
    return files


def take_predictions(name: str, path: Path) -> bool:
    """Put a user's predictions where those of a recipe are kept; returns whether they are new.

    The test.json beside them says which file they are and, if the user's file has a .json file
    beside it, in which environment they were computed.
    """
    tensors, table = given_predictions(path, f"--parent {name}")
    kept_tensors, kept_table, about = kept_predictions(name)
    environment = read_mapping(path.with_suffix(".json")).get("environment", "not recorded")
    digest = digest_of(tensors)
    if "source" in read_mapping(about) and digest == digest_of(kept_tensors):
        return False
    with replacing_folder(about.parent) as folder:
        shutil.copyfile(tensors, folder / kept_tensors.name)
        shutil.copyfile(table, folder / kept_table.name)
        source = {"environment": environment, "source": f"{path}, sha256 {digest}"}
        write_json(source, folder / about.name)
    return True


def read_mapping(path: Path) -> dict[str, Any]:
    """The content of a JSON file; {} if there is none, or it is damaged: then it is of no run."""
    try:
        values = read_json(path)
    except ListError:
        return {}
    return values if isinstance(values, dict) else {}

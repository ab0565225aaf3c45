"""Recipes: one overlay on the parameters for each row of the zoo (recipes/<name>.yaml).

A recipe starts from `recipes/demo.yaml`, which holds every value except `runtime`. On top come
`base.yaml` of its folder, if there is one, and the `params` of the recipe. So it does not depend on
the recipe used before.
"""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from clipzoo.config import ConfigError, Params, Section, build, refuse_old_keys
from clipzoo.files import near
from clipzoo.yaml_files import read_yaml

RECIPES_DIR = Path("recipes")
DEMO = "demo"
"""The recipe that every other one starts from."""
SHARED_FILE = "base.yaml"

# Recipes do not set `runtime`, but checking them needs some values.
NO_RUNTIME = {
    "processes": 1,
    "workers": 1,
    "micro_batch": 1,
    "device": "auto",
    "max_restarts": 0,
    "extract_workers": 0,
    "executor": "processes",
    "scheduler": "",
    "launcher": "",
}


class Published(Section):
    """One published number: a row of reference/published.csv."""

    metric: str
    """A key of that table: top1, top5, map, half_top1_mean, full_top1, splits_top1_mean, ..."""
    dataset: str
    clips: int | None
    """Temporal clips; None = not stated."""
    crops: int | None
    """Spatial crops; None = not stated."""
    value: float | None
    """Percent; None = the row has a config but no number."""
    std: float | None = None
    """Percent, ddof 0."""
    tolerance: float = Field(default=0.0, ge=0)
    """Largest difference, in percentage points, that counts as reproduced."""
    source: str
    notes: str = ""


class Expected(Section):
    """What a run of a demo recipe gives, measured over seeds and kinds of processors."""

    metric: str
    """A key of the metrics file."""
    dataset: str
    value: float
    """Percent: the mean of the measured runs."""
    tolerance: float = Field(ge=0)
    """Largest difference, in percentage points, that counts as reproduced."""


class Authors(Section):
    """How the authors ran it; the values are in `reference/configs.csv` and `training_logs.csv`."""

    config: str = ""
    """Their config file; '' = none is published."""
    config_gpus: int = Field(default=0, ge=0)
    """GPUs with which the config gives `train.batch_size`; 0 = no training, or not known."""
    memory_gb: float = Field(default=0.0, ge=0)
    """Memory of each of these GPUs in training, as the authors state it; 0 = not stated."""
    log: str = ""
    """Their training log; '' = none is published."""
    log_gpus: int = Field(default=0, ge=0)
    """GPUs of the logged run: training videos / (iterations of an epoch * batch a GPU)."""
    log_batch: int = Field(default=0, ge=0)
    """Clips in one optimizer step of the logged run."""


class Recipe(Section):
    """The content of a recipe file."""

    about: str
    paper: str = ""
    verdict: bool = True
    """Whether a run gets a verdict; False if something it needs is not published."""
    parent: str = ""
    """Name of another recipe: this one starts from its model, or evaluates it."""
    checkpoint: Literal["last", "best"] = "last"
    """Which epoch's model the authors published; `train.select` is the same."""
    fusion: str = "video embeddings are averaged over views, then normalized"
    video_sets: dict[str, str] = Field(default_factory=dict)
    """Stem of a metrics file -> list of reference/video_sets.csv that the authors measured on;
    empty if they publish none, which leaves the recipe without a verdict."""
    gpu_hours: float = Field(default=0.0, ge=0)
    """GPU hours of training: from the authors' log, else scaled from a similar log; 0 = none or not
    known."""
    authors: Authors = Authors()
    notes: list[str] = Field(default_factory=list)
    published: list[Published] = Field(default_factory=list)
    expected: list[Expected] = Field(default_factory=list)
    """The expected numbers of a recipe without a published row; source: docs/reliability.md."""
    params: dict[str, Any] = Field(default_factory=dict)
    """The overlay: keys of params.yaml, without `recipe` and `runtime`."""


def recipe_names(root: str | Path = ".") -> list[str]:
    """Names of all recipes, sorted: paths under recipes/ without the suffix."""
    folder = Path(root) / RECIPES_DIR
    files = (p for p in folder.rglob("*.yaml") if p.name != SHARED_FILE)
    return sorted(p.relative_to(folder).with_suffix("").as_posix() for p in files)


def fused_recipes(settings: Mapping[str, Any]) -> list[str]:
    """The recipes whose predictions a run with these settings is fused with."""
    return settings["fusion.with"]


Loaded = tuple[Recipe, dict[str, Any]]
"""A recipe and its settings (`Params.settings`)."""


def load_recipes(root: str | Path = ".") -> dict[str, Loaded]:
    """Every recipe by name, sorted; each file is read once.

    Raises:
        ConfigError: as for `load_recipe`.
    """
    read = cache(_read)
    loaded = {}
    for name in recipe_names(root):
        recipe, params = _load(name, root, NO_RUNTIME, read)
        loaded[name] = (recipe, params.settings())
    return loaded


def load_recipe(
    name: str, root: str | Path = ".", runtime: Mapping[str, Any] | None = None
) -> tuple[Recipe, Params]:
    """Read recipes/<name>.yaml and the files that it starts from.

    Args:
        root: the repository.
        runtime: section of params.yaml that no recipe sets; None = one process.

    Raises:
        ConfigError: there is no such recipe (the message names near ones), or the file has an
            unknown, missing or invalid key, in its fields or in `params`.
    """
    return _load(name, root, runtime or NO_RUNTIME, cache(_read))  # each file once


def recipe_settings(name: str, root: str | Path = ".") -> dict[str, Any]:
    """The parameters of a recipe by dotted key, as in settings.json (so without `runtime`)."""
    return load_recipe(name, root)[1].settings()


Reader = Callable[[Path], dict[str, Any]]


def _load(
    name: str, root: str | Path, runtime: Mapping[str, Any], read: Reader
) -> tuple[Recipe, Params]:
    known = recipe_names(root)
    if name not in known:
        raise ConfigError(
            f"unknown recipe {name!r}{near(name, known)}; `ls {RECIPES_DIR}` shows the folders, "
            f"{RECIPES_DIR}/<name>.yaml is the file"
        )
    folder = Path(root) / RECIPES_DIR
    path = folder / f"{name}.yaml"
    recipe = build(Recipe, read(path), path)
    if recipe.parent and recipe.parent not in known:
        raise ConfigError(
            f"{path}: parent: unknown recipe {recipe.parent!r}{near(recipe.parent, known)}"
        )
    values: dict[str, Any] = {}
    for file in _overlays(path, folder):
        overlay = read(file).get("params", {})
        refuse_old_keys(overlay, f"{file}: params")
        for key in ("recipe", "runtime"):
            if key in overlay:
                raise ConfigError(
                    f"{file}: params.{key} may not be set: the recipe's name is its path, and "
                    "runtime belongs to the machine"
                )
        values = _merged(values, overlay)
    values |= {"recipe": name, "runtime": dict(runtime)}
    params = build(Params, values, f"{path}: params")
    _refuse_cycles(name, folder, read, [])
    for other in params.fusion.with_:
        if other not in known:
            raise ConfigError(
                f"{path}: params.fusion.with: found {other!r}; allowed: "
                f"another recipe{near(other, known)}"
            )
    return recipe, params


def _refuse_cycles(name: str, folder: Path, read: Reader, before: list[str]) -> None:
    """Raise ConfigError if a recipe, which may not exist, needs itself, as a parent or to be fused
    with; each recipe of `before` needs the one after it, and the last one needs this one."""
    path = folder / f"{name}.yaml"
    if name in before:
        cycle = " -> ".join([*before[before.index(name) :], name])
        raise ConfigError(
            f"{path}: it needs itself: {cycle}; allowed: recipes that start from each other "
            "(parent) or are fused with each other (fusion.with) in one direction"
        )
    if not path.is_file():
        return
    content = read(path)
    fusion = content.get("params", {}).get("fusion", {})
    needed = [content.get("parent"), *fusion.get("with", [])]
    for other in filter(None, needed):
        _refuse_cycles(str(other), folder, read, [*before, name])


def _overlays(path: Path, folder: Path) -> list[Path]:
    """The files with the `params` of a recipe; each overrides the one before."""
    shared = path.parent / SHARED_FILE
    files = [folder / f"{DEMO}.yaml", *([shared] if shared.is_file() else []), path]
    return list(dict.fromkeys(files))


def _read(path: Path) -> dict[str, Any]:
    values = read_yaml(path)
    if not isinstance(values, dict) or not isinstance(values.get("params", {}), dict):
        raise ConfigError(f"{path}: found no mapping; allowed: the keys of a recipe, e.g. `params`")
    return values


def _merged(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `overlay`, section by section; lists are replaced."""
    result = dict(base)
    for key, value in overlay.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = _merged(old, value)
        result[key] = value
    return result

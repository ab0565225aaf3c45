"""Use recipes: put one into params.yaml, run several one after the other, or queue them in DVC."""

import argparse
import fnmatch
import io
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import CommentMark

from clipzoo.config import ConfigError, Params, load_params
from clipzoo.files import near, replacing
from clipzoo.report import verdicts
from clipzoo.report.recipes import (
    RECIPES_DIR,
    fused_recipes,
    load_recipe,
    load_recipes,
    recipe_names,
    recipe_settings,
)
from clipzoo.runtime.lock import only_one
from clipzoo.sections import flatten

PARAMS_FILE = Path("params.yaml")
MODEL_FILE = Path("models/model.safetensors")
KEPT_DIR = Path("models/zoo")
"""Models of recipes that are parents of others; not tracked, since a rerun creates them again."""
PREDICTIONS_DIR = Path("predictions")
KEPT_PREDICTIONS_DIR = PREDICTIONS_DIR / "zoo"
"""Predictions of recipes that others are fused with; not tracked either."""
PREDICTION_FILES = ("test.safetensors", "test.parquet", "test.json")
"""In a recipe's folder there: of `predictions/`, and its metrics."""

LOCK = "use or zoo"
"""What changes params.yaml runs once at a time."""


def usable_params(name: str) -> Params:
    """The parameters of a recipe; the method's options are checked as well.

    Raises:
        ConfigError: an unknown or invalid recipe.
    """
    from clipzoo.methods import read_options  # slow: it imports torch

    _, params = load_recipe(name)
    read_options(params, f"{RECIPES_DIR}/{name}.yaml: params")
    return params


def use(name: str, path: Path = PARAMS_FILE) -> list[tuple[str, Any, Any]]:
    """Put a recipe's values into params.yaml; comments, format and `runtime` do not change.

    Values that the recipe does not set are those of the recipe `demo`, so the result does not
    depend on what was in the file before.

    Args:
        name: of the recipe.
        path: the parameter file.

    Returns:
        (dotted key, old value, new value) of every value that changed.

    Raises:
        ConfigError: an unknown or invalid recipe, or an invalid parameter file.
    """
    # Also the sections of other methods: a list like `bike_attributes.datasets` adds stages to the
    # pipeline, whatever the active method is.
    values = flatten(usable_params(name).model_dump(exclude={"runtime"}))
    load_params(path)
    editor = YAML()  # as DVC writes the file, so that `-S` changes one line later
    editor.default_flow_style = False
    document = editor.load(path.read_text(encoding="utf-8"))
    changes = []
    for key, value in values.items():
        *sections, last = key.split(".")
        section = document
        for part in sections:
            section = section.setdefault(part, CommentedMap())  # a method's may be missing
        if section.get(last) != value:
            changes.append((key, _plain(section.get(last)), value))
            section[last] = value
        if last in section.ca.items and (comment := section.ca.items[last][2]):
            comment.start_mark = CommentMark(0)  # one space before it, however long the value
    text = io.StringIO()
    editor.dump(document, text)
    _write_checked(path, text.getvalue(), name)
    return changes


def _plain(value: Any) -> Any:
    """A ruamel value as a plain one, for printing."""
    return list(value) if isinstance(value, list) else value


def _write_checked(path: Path, text: str, recipe: str) -> None:
    """Write `text` if it can be read back: a comment on the line of a list's key can break it."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
        try:
            written = load_params(part)
        except ConfigError as error:
            raise ConfigError(
                f"{path} would become unreadable ({error}); remove comments from the lines of lists"
            ) from None
        assert written.recipe == recipe


def describe_changes(changes: Sequence[tuple[str, Any, Any]]) -> str:
    """One line for each value: `train.lr: 0.002 -> 5e-05`."""
    return "".join(f"{key}: {old!r} -> {new!r}\n" for key, old, new in changes)


def matching(patterns: Sequence[str]) -> list[str]:
    """Recipes that match shell patterns, in the order of the patterns.

    Raises:
        ConfigError: a pattern that matches nothing.
    """
    known = recipe_names()
    chosen: dict[str, None] = {}
    for pattern in patterns:
        matches = fnmatch.filter(known, pattern)
        if not matches:
            raise ConfigError(
                f"no recipe matches {pattern!r}{near(pattern, known)}; `python -m clipzoo recipes` "
                "lists all"
            )
        chosen |= dict.fromkeys(matches)
    return list(chosen)


def select(patterns: Sequence[str]) -> list[str]:
    """Recipes that match shell patterns, parents before children.

    The parents of a recipe are the one whose model it starts from and those that it is fused with.
    One is included if no earlier run kept its model, or its predictions.

    Raises:
        ConfigError: a pattern that matches nothing.
    """
    chosen = matching(patterns)
    order: dict[str, None] = {}
    for name in chosen:
        recipe, params = load_recipe(name)
        kept = {parent: has_kept_predictions(parent) for parent in params.fused_with}
        if recipe.parent:
            is_kept = kept.get(recipe.parent, True)
            kept[recipe.parent] = is_kept and kept_model(recipe.parent).is_file()
        order |= dict.fromkeys(p for p, is_kept in kept.items() if p in chosen or not is_kept)
        order[name] = None
    return list(order)


def kept_model(name: str) -> Path:
    """Where the model of a recipe is kept for its children."""
    return KEPT_DIR / f"{name}.safetensors"


def kept_predictions(name: str) -> list[Path]:
    """Where the predictions of a recipe, and their metrics, are kept to be fused with others."""
    return [KEPT_PREDICTIONS_DIR / name / file for file in PREDICTION_FILES]


def has_kept_predictions(name: str) -> bool:
    """Whether an earlier run kept them."""
    return all(path.is_file() for path in kept_predictions(name))


def _is_parent(name: str) -> bool:
    return any(recipe.parent == name for recipe, _ in load_recipes().values())


def _is_fused(name: str) -> bool:
    return any(name in fused_recipes(settings) for _, settings in load_recipes().values())


def keep_outputs(name: str) -> None:
    """Keep what other recipes need of the active run: its model (`kept_model`) if one starts from
    it, its predictions (`kept_predictions`) if one is fused with them."""
    copies = []
    if _is_parent(name):
        copies.append((MODEL_FILE, kept_model(name)))
    if _is_fused(name):
        folders = (PREDICTIONS_DIR, PREDICTIONS_DIR, Path("metrics") / name)
        sources = [folder / file for folder, file in zip(folders, PREDICTION_FILES, strict=True)]
        copies += zip(sources, kept_predictions(name), strict=True)
    for source, path in copies:
        with replacing(path) as part:
            shutil.copyfile(source, part)
    if copies:
        print(f"kept for other recipes: {', '.join(str(path) for _, path in copies)}")


def is_done(name: str) -> bool:
    """Whether a recipe has all its results, by its settings, and what others need of it."""
    settings = recipe_settings(name)
    stems = ["test", *(f"zero_shot_{dataset}" for dataset in settings["data.zero_shot"])]
    stems += ["fused"] if fused_recipes(settings) else []
    for stem in stems:
        used = verdicts.read_settings(Path(), name, stem)
        if used is None or verdicts.modified(used, settings, stem):
            return False
    has_model = not _is_parent(name) or kept_model(name).is_file()
    return has_model and (not _is_fused(name) or has_kept_predictions(name))


def run_zoo(
    patterns: Sequence[str], *, stop: bool = False, again: bool = False, locks: Sequence[int] = ()
) -> list[str]:
    """Use and reproduce recipes one after the other; returns the names of those that failed.

    Each recipe's metrics are in a folder of its name. A recipe that `is_done` is skipped, so a
    killed or failed run continues where it stopped; later changes of code or data go unnoticed.

    Args:
        patterns: shell patterns of recipe names.
        stop: stop at the first failure. Otherwise only the children of a failed recipe are
            skipped, and counted as failed.
        again: also run recipes that are finished.
        locks: file descriptors that DVC inherits, so that it holds these locks too.

    Raises:
        ConfigError: a pattern matches nothing, or a recipe is invalid; none is run.
    """
    names = select(patterns)
    for name in names:
        usable_params(name)
    print(f"zoo: {len(names)} recipes: {', '.join(names)}", flush=True)
    failed: list[str] = []
    for number, name in enumerate(names, 1):
        print(f"\n[{number}/{len(names)}] {name}", flush=True)
        recipe, params = load_recipe(name)
        lost = [parent for parent in (recipe.parent, *params.fused_with) if parent in failed]
        if lost:
            print(f"skipped: its parent {lost[0]} failed", flush=True)
            failed.append(name)
            continue
        if not again and is_done(name):
            print("skipped: already done with these settings (--again runs it again)", flush=True)
            continue
        print(describe_changes(use(name)), end="", flush=True)
        command = [sys.executable, "-m", "clipzoo", "repro"]
        process = subprocess.run(command, check=False, pass_fds=locks)
        if process.returncode == 0:
            keep_outputs(name)
            continue
        failed.append(name)
        if stop:
            break
    return failed


def queue(name: str) -> None:
    """Queue a recipe as a DVC experiment; params.yaml does not change.

    Raises:
        ConfigError: DVC failed, or the recipe needs a kept model or kept predictions, which are
            not tracked and so not in the experiment's copy of the repository.
    """
    params = usable_params(name)
    checkpoint = params.model.checkpoint
    needed = [checkpoint] if checkpoint.startswith(f"{KEPT_DIR}/") else []
    needed += [str(KEPT_PREDICTIONS_DIR / parent) for parent in params.fused_with]
    if needed:
        raise ConfigError(
            f"{name} needs {' and '.join(needed)}, which queued experiments cannot see; "
            f"run it with `make zoo RECIPES={shlex.quote(name)}`"
        )
    before = PARAMS_FILE.read_bytes()
    try:
        use(name)
        command = ["dvc", "exp", "run", "--queue", "--name", name.replace("/", "-")]
        process = subprocess.run([sys.executable, "-m", *command], check=False)
    finally:
        with replacing(PARAMS_FILE) as part:
            part.write_bytes(before)
    if process.returncode:
        raise ConfigError(f"`{' '.join(command)}` failed; see its message above")


def use_command(arguments: argparse.Namespace) -> None:
    """`python -m clipzoo use RECIPE [--queue]`."""
    if arguments.queue:
        with only_one(LOCK):
            queue(arguments.recipe)
        print(f"queued {arguments.recipe}; params.yaml is unchanged; next: dvc queue start")
        return
    with only_one(LOCK):
        changes = use(arguments.recipe)
    print(describe_changes(changes), end="")
    print(f"use: {arguments.recipe}, {len(changes)} values of {PARAMS_FILE} changed")
    print(f"next: python -m clipzoo check {shlex.quote(arguments.recipe)}; dvc repro")


def zoo_command(arguments: argparse.Namespace) -> None:
    """`python -m clipzoo zoo PATTERN... [--stop] [--again]`."""
    with only_one(LOCK) as lock:
        failed = run_zoo(
            arguments.recipes, stop=arguments.stop, again=arguments.again, locks=[lock]
        )
    if failed:
        raise ConfigError(
            f"{len(failed)} recipes failed: {', '.join(failed)}; fix the errors and run the same "
            "command again: finished recipes are skipped"
        )
    print(f"\nzoo: all done; {PARAMS_FILE} holds the last recipe; results are in RESULTS.md")

"""A run as a folder for others: the model folder, its card and results, and a page for a Space.

OUT/config.json, model.safetensors      what predict, embed, serve and export read
OUT/README.md                           the model card
OUT/.eval_results/<dataset>.yaml        the results, as the hub reads them
OUT/space/                              with `--space`: app.py, README.md, requirements.txt and
                                        the source of clipzoo
"""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from clipzoo.config import ConfigError, Params
from clipzoo.files import file_sha256, near, replacing
from clipzoo.methods import read_model_metadata
from clipzoo.paths import MODEL_FILE
from clipzoo.report.recipes import recipe_names
from clipzoo.serve.card import model_card, read_run, result_files
from clipzoo.serve.folder import CONFIG_NAME, WEIGHTS_NAME, model_of_run, write_folder
from clipzoo.serve.space import write_space

CARD_NAME = "README.md"
RESULTS_DIR = ".eval_results"
SPACE_DIR = "space"
WRITTEN = {CONFIG_NAME, WEIGHTS_NAME, CARD_NAME, RESULTS_DIR, SPACE_DIR}
"""All that a published folder has."""


def check_recipe(recipe: str, params: Params) -> None:
    """Raise ConfigError unless the model of the last run is that of a recipe, and params.yaml has
    the recipe too.

    Raises:
        WeightsError: there is no model, or it was not written by train.
    """
    trained = read_model_metadata().recipe
    if recipe == trained == params.recipe:
        return
    names = recipe_names()
    if recipe not in (trained, params.recipe, *names):
        raise ConfigError(
            f"publish: found the recipe {recipe!r}{near(recipe, [trained, *names])}; allowed: "
            f"{trained}, whose model this is, or another one after a run of it (`clipzoo recipes` "
            "lists them)"
        )
    first = "" if recipe == params.recipe else f"clipzoo use {recipe}; "
    raise ConfigError(
        f"publish: {MODEL_FILE} is the model of {trained}, not of {recipe}; run `{first}dvc repro` "
        f"first{'' if trained != params.recipe else f', or publish {trained}'}"
    )


def check_folder(folder: Path) -> None:
    """Raise ConfigError unless a folder can be written: it is missing or empty, or was published
    before and has nothing else in it."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"{folder}: is a file; allowed: a folder, which may be missing")
    found = {path.name for path in folder.iterdir()}
    others = sorted(found - WRITTEN)
    if others or (found and CONFIG_NAME not in found):
        named = others[0] if others else sorted(found)[0]
        raise ConfigError(
            f"{folder}: has files that publish did not write ({named}); allowed: a new or empty "
            "folder, or one that was published before"
        )


def publish(
    recipe: str,
    folder: Path,
    params: Params,
    kind: Literal["closed", "open"],
    repository: str | None = None,
    space: bool = False,
) -> list[str]:
    """Write the model of the last run, its card and its results; equal bytes on every call.

    Args:
        recipe: the recipe whose model it has to be.
        kind: closed leaves out the text tower.
        repository: OWNER/NAME on the hub, from which the page of a Space loads the model; None =
            from the folder above.
        space: also write space/.

    Returns:
        the paths of the written files, relative to `folder`, sorted.

    Raises:
        ConfigError: `check_recipe` or `check_folder` refuse.
        WeightsError, ListError, ReportError: the model or the metrics are missing, or are those of
            another run.
        DiskError: the disk is full.
    """
    check_recipe(recipe, params)
    check_folder(folder)
    run = read_run(recipe, file_sha256(MODEL_FILE))
    model = model_of_run(params)
    for name in (RESULTS_DIR, SPACE_DIR):  # of an earlier run, or of an interrupted one
        shutil.rmtree(folder / name, ignore_errors=True)
    write_folder(model, folder, kind)
    about = model.config.model_copy(update={"kind": kind})
    texts = {CARD_NAME: model_card(about, params, run)}
    texts |= {f"{RESULTS_DIR}/{name}": text for name, text in result_files(run).items()}
    for name, text in texts.items():
        with replacing(folder / name) as part:
            part.write_text(text, encoding="utf-8")
    if space:
        write_space(folder / SPACE_DIR, about, repository)
    return sorted(_files(folder))


def _files(folder: Path) -> Iterable[str]:
    return (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())

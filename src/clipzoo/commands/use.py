"""`clipzoo use RECIPE`: put a recipe into params.yaml, or queue it in DVC."""

import argparse
import io
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import CommentMark

from clipzoo.runtime.ending import run_command
from clipzoo.commands.arguments import Commands, add_command
from clipzoo.commands.planned import (
    UNCHANGED,
    Options,
    add_options,
    option_words,
    place_files,
    plan,
    read_arguments,
)
from clipzoo.config import ConfigError, Params, load_params
from clipzoo.data.spec import ANNOTATION_DIR, SPEC_DIR
from clipzoo.files import few, replacing
from clipzoo.frames.manifest import manifest_path
from clipzoo.given_files import remove_links
from clipzoo.paths import KEPT_MODELS_DIR, KEPT_PREDICTIONS_DIR
from clipzoo.report import verdicts
from clipzoo.report.recipes import load_recipe, recipe_names
from clipzoo.report.released import expected_settings, recipe_of
from clipzoo.runtime.lock import only_one, require_idle
from clipzoo.sections import flatten

PARAMS_FILE = Path("params.yaml")
MOST_SHOWN = 5
"""Settings that the line on differences names."""
LOCK = "use or zoo"
"""What changes params.yaml runs once at a time."""


def use(name: str, options: Options = UNCHANGED) -> list[tuple[str, Any, Any]]:
    """Put a recipe's values into params.yaml (`write_params`), and given files in their places.

    Values that the recipe does not set are those of the recipe `demo`, so the result does not
    depend on what was in the file before.

    Raises:
        ConfigError: as `plan` and `write_params`.
    """
    run = plan(name, options)
    place_files(run)
    remove_links(broken=True)
    return write_params(run.params)


def write_params(params: Params, path: Path = PARAMS_FILE) -> list[tuple[str, Any, Any]]:
    """Put the values of a run into params.yaml; comments, format and `runtime` do not change.

    Returns:
        (dotted key, old value, new value) of every value that changed.

    Raises:
        ConfigError: an invalid parameter file.
    """
    values = flatten(params.model_dump(exclude={"runtime"}))
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
            old = section.get(last)
            changes.append((key, list(old) if isinstance(old, list) else old, value))
            section[last] = value
        if last in section.ca.items and (comment := section.ca.items[last][2]):
            comment.start_mark = CommentMark(0)  # one space before it, however long the value
    text = io.StringIO()
    editor.dump(document, text)
    _write_checked(path, text.getvalue(), params.recipe)
    return changes


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


def queue(name: str, options: Options = UNCHANGED) -> None:
    """Queue a recipe as a DVC experiment; params.yaml does not change.

    Raises:
        ConfigError: DVC failed, or the recipe needs a kept or given model or predictions, which are
            not tracked and so not in the experiment's copy of the repository.
    """
    params = plan(name, options).params
    checkpoint = params.model.checkpoint
    needed = [checkpoint] if checkpoint.startswith(f"{KEPT_MODELS_DIR}/") else []
    needed += [str(KEPT_PREDICTIONS_DIR / parent) for parent in params.fusion.with_]
    if needed:
        raise ConfigError(
            f"{name} needs {' and '.join(needed)}, which queued experiments cannot see; "
            f"run it with `make zoo RECIPES={shlex.quote(name)}`"
        )
    _check_tracked(params)
    before = PARAMS_FILE.read_bytes()
    try:
        write_params(params)
        command = ["dvc", "exp", "run", "--queue", "--name", name.replace("/", "-")]
        code = run_command([sys.executable, "-m", *command])
    finally:
        with replacing(PARAMS_FILE) as part:
            part.write_bytes(before)
    if code:
        raise ConfigError(f"`{' '.join(command)}` failed; see its message above")


def _check_tracked(params: Params) -> None:
    """Raise ConfigError if git does not track a file that the experiment's copy needs."""
    paths = [
        str(path)
        for name in params.data.datasets
        if name not in params.data.demo
        for path in (ANNOTATION_DIR / name, manifest_path(name), SPEC_DIR / f"{name}.yaml")
    ]
    if not paths:
        return
    command = ["git", "ls-files", "-z", "--others", "--", *paths]
    listed = subprocess.run(command, check=False, capture_output=True, text=True)
    untracked = listed.stdout.split("\0")[:-1]
    if untracked:
        raise ConfigError(
            f"--queue: git does not track {len(untracked)} files ({few(untracked)}), so the "
            "experiment's copy of the repository would not have them: "
            f"`{shlex.join(['git', 'add', *paths])}` and commit, or run the recipe here "
            "(`make zoo`)"
        )


def leftovers(path: Path = PARAMS_FILE) -> str:
    """A line on the settings of params.yaml that differ from the recipe that it names; '' = none
    do, or there is no such recipe.

    An experiment (`dvc exp run -S`) that is interrupted leaves its settings there.
    """
    params = load_params(path)
    name = params.recipe
    released = "" if name in recipe_names() else recipe_of(name)
    name = released or name
    if name not in recipe_names():
        return ""
    used, expected = params.settings(), load_recipe(name)[1].settings()
    if released:
        expected = expected_settings(used, expected, "test")
    keys = verdicts.modified_anywhere(used, expected)
    if not keys:
        return ""
    shown = keys[:MOST_SHOWN]
    parts = [f"{key} ({used.get(key)!r} instead of {expected.get(key)!r})" for key in shown]
    more = f" and {len(keys) - len(shown)} more" if len(keys) > len(shown) else ""
    return (
        f"note: {path} differs from the recipe {name} in {', '.join(parts)}{more}; if an "
        "interrupted `dvc exp run -S` left this, `clipzoo use "
        f"{shlex.quote(name)}` takes it back\n"
    )


def _run(arguments: argparse.Namespace) -> None:
    name = arguments.recipe
    options = read_arguments(arguments, [name])
    if arguments.queue:
        with only_one(LOCK):
            require_idle(LOCK, "and --queue changes its params.yaml for a moment")
            queue(name, options)
        print(f"queued {name}; {PARAMS_FILE} is unchanged; next: dvc queue start")
        return
    with only_one(LOCK):
        require_idle(LOCK, "and `use` would change its params.yaml")
        changes = use(name, options)
    print(describe_changes(changes), end="")
    print(f"use: {load_params(PARAMS_FILE).recipe}, {len(changes)} values of {PARAMS_FILE} changed")
    check = shlex.join(["clipzoo", "check", name, *option_words(arguments)])
    print(f"next: {check}; dvc repro")


def register(commands: Commands) -> None:
    command = add_command(
        commands,
        "use",
        "put a recipe's values into params.yaml",
        ("use demo/head-none", "use text4vis/k400-vitb16-f8 --queue"),
    )
    command.add_argument("recipe", help="name of the recipe, e.g. text4vis/k400-vitb32-f8")
    add_options(command)
    command.add_argument("--queue", action="store_true", help="add it to DVC's queue instead")
    command.set_defaults(run=_run)

"""What a command line asks of recipes, and the runs that follow from it.

`use`, `zoo` and `check` take the same options: `--released FILE` evaluates released weights,
`--parent [RECIPE=]FILE` replaces a run that others start from or are fused with, and `-S KEY=VALUE`
changes a setting.
"""

import argparse
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipzoo.config import ConfigError, Params, refuse_old_keys, replace
from clipzoo.files import few, near
from clipzoo.report import kept, verdicts
from clipzoo.report.recipes import RECIPES_DIR, Recipe, load_recipe, recipe_names
from clipzoo.report.released import released_run
from clipzoo.sections import flatten
from clipzoo.yaml_files import parse_yaml


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line changes of recipes."""

    released: Path | None = None
    """Weights to evaluate instead of training."""
    parents: Mapping[str, Path] = field(default_factory=dict)
    """Recipe -> the file that replaces its run: a model, or predictions."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Dotted key -> value."""


UNCHANGED = Options()


@dataclass(frozen=True, kw_only=True)
class Run:
    """One recipe as it is to be run."""

    name: str
    """Name of the recipe."""
    recipe: Recipe
    params: Params
    """Its parameters, with those that the command line changes."""
    options: Options
    """The options that concern this recipe."""

    @property
    def given_model(self) -> Path | None:
        """The user's file whose link is `model.checkpoint`."""
        return self.options.released or self.options.parents.get(self.recipe.parent)

    @property
    def changed(self) -> list[str]:
        """Settings of the command line that can change a result, as a verdict names them."""
        settings, expected = self.params.settings(), load_recipe(self.name)[1].settings()
        differing = verdicts.modified_anywhere(settings, expected)
        return [key for key in differing if key in self.options.settings]


def plan(name: str, options: Options = UNCHANGED, runtime: Mapping[str, Any] | None = None) -> Run:
    """The run of a recipe, with the options that concern it; nothing is written.

    Args:
        runtime: section of params.yaml; None = one process.

    Raises:
        ConfigError: an unknown or invalid recipe, setting or file; or released weights cannot be
            judged by this recipe.
    """
    from clipzoo.methods import read_options  # slow: it imports torch

    recipe, params = load_recipe(name, runtime=runtime)
    where = f"{RECIPES_DIR}/{name}.yaml: params"
    parents = {p: options.parents[p] for p in parents_of(name) if p in options.parents}
    values = dict(options.settings)
    _check_keys(values, params)
    for parent, path in parents.items():
        if parent in params.fusion.with_:
            kept.given_predictions(path, f"--parent {parent}")
        elif options.released is None:
            kept.require_file(path, f"--parent {parent}")
            values["model.checkpoint"] = str(kept.released_link(parent, path))
    if options.released is not None:
        _check_released(name, options, recipe, params)
        link = kept.released_link(released_run(name), options.released)
        values |= {"recipe": released_run(name), "train.epochs": 0, "model.checkpoint": str(link)}
    if values:
        params = replace(params, values)
        where += ", changed by options"
    read_options(params, where)
    concerning = Options(released=options.released, parents=parents, settings=options.settings)
    return Run(name=name, recipe=recipe, params=params, options=concerning)


def place_files(run: Run) -> bool:
    """Put the files that a user gives for a run where its stages look for them; returns whether
    predictions that it is fused with are others than before."""
    if run.options.released is not None:
        kept.link_released(run.params.recipe, run.options.released)
    changed = False
    for parent, path in run.options.parents.items():
        if parent in run.params.fusion.with_:
            if kept.take_predictions(parent, path):
                print(f"{path}: taken for the predictions of {parent}", flush=True)
                changed = True
        else:
            kept.link_released(parent, path)
    return changed


def parents_of(name: str) -> list[str]:
    """The recipe whose model a recipe starts from, and those that it is fused with."""
    recipe, params = load_recipe(name)
    return list(dict.fromkeys([*filter(None, [recipe.parent]), *params.fusion.with_]))


def _check_keys(values: Mapping[str, Any], params: Params) -> None:
    """Raise ConfigError unless these settings can be changed."""
    refuse_old_keys(values, "-S")
    known = list(flatten(params.model_dump(exclude={"runtime", "recipe"})))
    for key in values:
        if key in known:
            continue
        if key == "recipe" or key.partition(".")[0] == "runtime":
            raise ConfigError(
                f"-S {key}: a recipe's name is its path, and runtime belongs to the machine, in "
                "params.yaml"
            )
        raise ConfigError(
            f"-S {key}: unknown key; allowed: a key of params.yaml, such as train.lr"
            f"{near(key, known)}"
        )


def _check_released(name: str, options: Options, recipe: Recipe, params: Params) -> None:
    """Raise ConfigError unless released weights of a recipe can be evaluated and judged."""
    assert options.released is not None
    kept.require_file(options.released, "--released")
    for key in ("train.epochs", "model.checkpoint"):
        if key in options.settings:
            raise ConfigError(f"-S {key}: --released sets it")
    if released_run(name) in recipe_names():
        raise ConfigError(f"--released: its run would be {released_run(name)}, another recipe")
    if params.text.classifier != "text":
        raise ConfigError(
            f"--released: {name} is trained against a classifier that is not text (text.classifier "
            f"{params.text.classifier}), which model files do not hold"
        )
    if all(row.value is None for row in recipe.published) and not recipe.expected:
        raise ConfigError(
            f"--released: {name} has no published number to compare with; evaluate the file "
            f"without a verdict: `clipzoo zoo {shlex.quote(name)} -S train.epochs=0 "
            "-S model.checkpoint=FILE`"
        )
    for parent in params.fusion.with_:
        if parent not in options.parents:
            raise ConfigError(
                f"--released: {name} is fused with {parent}; give that one's predictions too: "
                f"--parent {parent}=FILE, e.g. {kept.kept_predictions(released_run(parent))[0]} "
                f"after `clipzoo zoo {shlex.quote(parent)} --released FILE`"
            )


def parse_settings(texts: Sequence[str]) -> dict[str, Any]:
    """The settings of `-S KEY=VALUE`, whose values are YAML; `KEY=` is an empty text.

    Raises:
        ConfigError: a text of another form.
    """
    values = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise ConfigError(f"-S {text}: allowed: KEY=VALUE, such as train.lr=0.001")
        values[key] = parse_yaml(value, f"-S {key}") if value else ""
    return values


def parse_parents(texts: Sequence[str], names: Sequence[str]) -> dict[str, Path]:
    """The files of `--parent [RECIPE=]FILE`, for the recipes that a command line names.

    Raises:
        ConfigError: no chosen recipe has such a parent, or several have and none is named.
    """
    parents = list(dict.fromkeys(parent for name in names for parent in parents_of(name)))
    if texts and not parents:
        raise ConfigError(
            f"--parent: {', '.join(names)}: starts from no other recipe and is fused with none"
        )
    files: dict[str, Path] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or (name not in parents and Path(text).exists()):
            if len(parents) > 1:
                raise ConfigError(
                    f"--parent {text}: allowed: RECIPE=FILE, where RECIPE is {', '.join(parents)}"
                )
            name, path = parents[0], text
        if name not in parents:
            raise ConfigError(
                f"--parent {text}: found {name!r}; allowed: {', '.join(parents)}"
                f"{near(name, parents)}"
            )
        files[name] = Path(path)
    return files


def add_options(command: argparse.ArgumentParser) -> None:
    """The options of a command that runs recipes, or puts them into params.yaml."""
    command.add_argument(
        "--released",
        type=Path,
        metavar="FILE",
        help="evaluate these weights instead of training, as the run RECIPE-released",
    )
    command.add_argument(
        "--parent",
        action="append",
        default=[],
        metavar="[RECIPE=]FILE",
        help="a model that the recipe starts from, or predictions that it is fused with, in place "
        "of a run of RECIPE; may be repeated",
    )
    command.add_argument(
        "-S",
        "--set-param",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting, which the verdict names; may be repeated",
    )


def read_arguments(arguments: argparse.Namespace, names: Sequence[str]) -> Options:
    """The options of a command line with `add_options`, for the recipes that it names.

    Raises:
        ConfigError: as `parse_settings` and `parse_parents`; or several recipes and one file of
            released weights.
    """
    if arguments.released is not None and len(names) != 1:
        raise ConfigError(
            f"--released: found {len(names)} recipes ({few(names)}); allowed: one, "
            "since the file holds the weights of one"
        )
    return Options(
        released=arguments.released,
        parents=parse_parents(arguments.parent, names),
        settings=parse_settings(arguments.set_param),
    )


def option_words(arguments: argparse.Namespace) -> list[str]:
    """The options of a command line as words, for the next command."""
    words = [] if arguments.released is None else ["--released", str(arguments.released)]
    words += [word for text in arguments.parent for word in ("--parent", text)]
    return words + [word for text in arguments.set_param for word in ("-S", text)]

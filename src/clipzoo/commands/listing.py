"""`clipzoo recipes [PATTERN ...]`: every recipe, its published value, what is missing."""

import argparse
from collections.abc import Sequence

from clipzoo.commands.arguments import Commands, add_command, aligned
from clipzoo.commands.check import weights_findings
from clipzoo.commands.dataset_findings import dataset_findings, try_survey
from clipzoo.commands.zoo import matching
from clipzoo.config import Params
from clipzoo.report.metric_names import NAMES
from clipzoo.report.recipes import Recipe, load_recipe, load_recipes

HEADER = ("Recipe", "Dataset", "Published", "Weights", "Missing here")


def recipe_rows(patterns: Sequence[str]) -> list[tuple[str, ...]]:
    """One row of `HEADER` for each recipe that matches; no model is built.

    Raises:
        ConfigError: a pattern that matches nothing, or an invalid recipe.
    """
    rows = []
    seen: dict[tuple[object, ...], list[str]] = {}
    for name in matching(patterns):
        recipe, params = load_recipe(name)
        dataset, published = _published(recipe)
        dataset = dataset or params.data.dataset
        missing = _missing(params, recipe, seen)
        rows.append((name, dataset, published, params.model.weights, "; ".join(missing) or "-"))
    return rows


def recipes_of(dataset: str) -> list[str]:
    """Recipes whose runs need a dataset; first those that are tested on it.

    Raises:
        ConfigError: an invalid recipe.
    """
    settings = {name: values for name, (_, values) in load_recipes().items()}
    using = [name for name, values in settings.items() if dataset in values["data.datasets"]]
    return sorted(using, key=lambda name: settings[name]["data.dataset"] != dataset)


def _published(recipe: Recipe) -> tuple[str, str]:
    """The dataset and the words of a recipe's first published number."""
    for row in recipe.published:
        if row.value is not None:
            return row.dataset, f"{row.value:g} {NAMES[row.metric]}"
    return (recipe.published[0].dataset, "no number") if recipe.published else ("", "-")


def _missing(
    params: Params, recipe: Recipe, seen: dict[tuple[object, ...], list[str]]
) -> list[str]:
    """What a run needs and this machine does not have, in a few words.

    Args:
        seen: results for datasets that recipes share: a manifest may have 200,000 lines.
    """
    kinds: dict[tuple[str, ...], list[str]] = {}
    for dataset in params.data.datasets:
        trained_on, in_demo = dataset == params.data.dataset, dataset in params.data.demo
        key = (dataset, params.data.split, params.data.class_names, trained_on, in_demo)
        if key not in seen:
            findings = dataset_findings(params, dataset, try_survey(params, dataset))
            faults = [f.topic for f in findings if f.ok is False]
            seen[key] = list(dict.fromkeys(t.removesuffix(f" of {dataset}") for t in faults))
        if seen[key]:
            kinds.setdefault(tuple(seen[key]), []).append(dataset)
    parts = [f"{', '.join(kind)} of {', '.join(datasets)}" for kind, datasets in kinds.items()]
    for finding in weights_findings(params, recipe):
        if finding.ok is False:
            parts.append(f"{finding.topic} {finding.text}")
        elif finding.topic == "parent's model":
            parts.append(f"model of {recipe.parent}")
    return parts


def _run(arguments: argparse.Namespace) -> None:
    rows = recipe_rows(arguments.patterns or ["*"])
    print(aligned(HEADER, rows), end="")
    ready = sum(row[-1] == "-" for row in rows)
    print(f"{len(rows)} recipes, {ready} with nothing missing; next: clipzoo check RECIPE")


def register(commands: Commands) -> None:
    command = add_command(
        commands,
        "recipes",
        "list recipes with their published value and what is missing here",
        ("recipes", "recipes 'text4vis/k400-*'"),
    )
    command.add_argument("patterns", nargs="*", help="names or patterns; all if none is given")
    command.set_defaults(run=_run)

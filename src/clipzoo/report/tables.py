"""The `report` stage: RESULTS.md to read and zoo.csv to compute with.

Nothing here depends on the clock or the machine: the same metrics, settings and recipes give the
same bytes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import pandas as pd

from clipzoo.files import replacing
from clipzoo.report.recipes import Loaded, load_recipes
from clipzoo.report.results import NOT_RUN, Metrics, Row, make_rows, read_metrics

RESULTS_FILE = "RESULTS.md"
ZOO_FILE = "zoo.csv"

INTRODUCTION = """# Results

Written by the `report` stage from `metrics/`, `plots/*/settings.json` and `recipes/`; the same rows
in full precision are in `zoo.csv`. Values are percentages. Brackets hold the 95% interval of a
bootstrap over videos; ± is the standard deviation (ddof 0) over 10 seeded halves of the classes, or
over the splits. `Videos` is the number measured, with the first 8 digits of their fingerprint. mAP
is torchnet's, where a class without positives counts as 0; the mean class accuracy leaves classes
without videos out.

A verdict is given only on a run with the settings of its recipe, on the published set of videos;
`modified:` names the settings that differ. "{not_run}" means what it says: the published value is
the authors', nothing was measured here.
"""

PUBLISHED_INTRODUCTION = """
## Published rows

Every row that the authors of the methods published, with ours beside it. `{not_run}`: the command
of the row runs it (with the recipe it starts from, if any), given the dataset and the GPUs;
`python -m clipzoo check RECIPE` tells beforehand what is lacking.

"""


def results_markdown(metrics: Metrics, rows: Sequence[Row], recipes: Mapping[str, Loaded]) -> str:
    """The text of RESULTS.md."""
    parts = [INTRODUCTION.format(not_run=NOT_RUN), "\n## Runs\n\n", summary_table(rows)]
    for recipe, files in metrics.items():
        own = [row for row in rows if row.recipe == recipe and row.value is not None]
        parts.append(f"\n## {recipe}\n\n{results_table(own)}")
        sets = dict.fromkeys((row.dataset, row.videos) for row in own if row.videos)
        parts += [f"\nVideos of {dataset}: {videos}.\n" for dataset, videos in sets]
        for settings in dict.fromkeys(row.modified for row in own if row.modified):
            listed = "`, `".join(settings.split())
            parts.append(f"\nSettings that differ from the recipe's: `{listed}`.\n")
        for stem, title in (("clip", "CLIP weights"), ("train", "Training")):
            if stem in files:
                facts = ", ".join(f"{k} {_fact(v)}" for k, v in files[stem].items())
                parts.append(f"\n{title}: {facts}.\n")
    parts.append(PUBLISHED_INTRODUCTION.format(not_run=NOT_RUN))
    parts.append(published_table(rows))
    parts.append(_other_recipes(metrics, rows, recipes))
    return "".join(parts)


def summary_table(rows: Iterable[Row]) -> str:
    """One line a run: its top-1, and zero-shot beside the raw CLIP's."""
    header = ("Run", "Dataset", "Top-1", "Zero-shot top-1", "Gain over the raw CLIP")
    runs: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        if row.value is not None:
            runs.setdefault(row.recipe, {}).setdefault(row.metric, []).append(row)
    cells = []
    for recipe, found in runs.items():
        values = [
            "; ".join(_value(row) for row in found.get(metric, []))
            for metric in ("top1", "full_top1", "gain")
        ]
        datasets = [row.dataset for rows in found.values() for row in rows]
        cells.append((recipe, ", ".join(dict.fromkeys(datasets)), *values))
    return _table(header, cells)


def results_table(rows: Sequence[Row]) -> str:
    """Measured rows as a markdown table."""
    header = ("Dataset", "Result", "Value", "Videos", "Protocol", "Published", "Delta", "Verdict")
    cells = [
        (
            row.dataset,
            row.result,
            _value(row),
            _videos(row),
            row.protocol,
            _number(row.published),
            _delta(row),
            row.verdict,
        )
        for row in rows
    ]
    return _table(header, cells)


def published_table(rows: Sequence[Row]) -> str:
    """Rows of published numbers as a markdown table, sorted by recipe."""
    header = ("Dataset", "Model", "Result", "Views", "Published", "Ours", "Delta", "Verdict", "Run")
    cells = [
        (
            row.dataset,
            f"{row.arch}, {row.num_frames} frames",
            row.result,
            row.protocol,
            "no number" if row.published is None else f"{row.published:g}",
            _value(row) if row.value is not None else "",
            _delta(row),
            row.verdict,
            f"`make zoo RECIPES={row.recipe}`",
        )
        for row in sorted(rows, key=lambda row: row.recipe)
        if row.source
    ]
    return _table(header, cells)


def _other_recipes(metrics: Metrics, rows: Iterable[Row], recipes: Mapping[str, Loaded]) -> str:
    """The recipes without a published row, and whether they were run."""
    published = {row.recipe for row in rows if row.source}
    lines = [
        f"- `{name}`: {recipe.about}" + ("" if name in metrics else f" ({NOT_RUN})") + "\n"
        for name, (recipe, _) in recipes.items()
        if name not in published
    ]
    title = "\n## Recipes without a published row\n\nEach runs by `make zoo RECIPES=<name>`.\n\n"
    return title + "".join(lines) if lines else ""


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table, each column as wide as its widest cell."""
    cells = [header, *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines) + "\n"


def _value(row: Row) -> str:
    value = _number(row.value)
    if row.std is not None:
        value += f" ± {row.std:.1f}"
    if row.ci95_low is not None:
        value += f" ({row.ci95_low:.1f} to {row.ci95_high:.1f})"
    return value


def _videos(row: Row) -> str:
    videos = str(row.num_videos)
    if row.num_expected != row.num_videos:
        videos += f" of {row.num_expected}"
    return f"{videos} ({row.videos_sha256[:8]})" if row.videos_sha256 else videos


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _delta(row: Row) -> str:
    return "" if row.delta is None else f"{row.delta:+.1f}"


def _fact(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return text[:8] if len(text) == 64 else text  # a sha256


def zoo_csv(rows: Sequence[Row]) -> str:
    """The text of zoo.csv: full precision, empty where a value is unknown."""
    # As objects, since columns of numbers would turn 16 into 16.0 where a value is unknown.
    table = pd.DataFrame(rows, columns=[field.name for field in fields(Row)], dtype=object)
    return table.to_csv(index=False, lineterminator="\n")


def write_report(root: str | Path = ".") -> list[Row]:
    """Read metrics/, plots/ and recipes/ under `root`, write RESULTS.md and zoo.csv there.

    Returns:
        the rows, those that were not run here among them.

    Raises:
        ReportError: as `read_metrics` and `make_rows`.
        ConfigError: a recipe is wrong.
    """
    root = Path(root)
    metrics = read_metrics(root / "metrics")
    recipes = load_recipes(root)
    rows = make_rows(metrics, recipes, root)
    texts = {RESULTS_FILE: results_markdown(metrics, rows, recipes), ZOO_FILE: zoo_csv(rows)}
    for name, text in texts.items():
        with replacing(root / name) as part:
            part.write_text(text, encoding="utf-8")
    return rows

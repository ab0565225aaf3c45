"""RESULTS.md for readers and zoo.csv for programs, and one run in full (`clipzoo results RUN`).

Nothing here depends on the clock or the machine: the same metrics, settings and recipes give the
same bytes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from clipzoo.files import few, near, replacing, shown
from clipzoo.paths import METRICS_DIR
from clipzoo.report.recipes import Loaded, load_recipes
from clipzoo.report.released import recipe_of
from clipzoo.report.results import (
    NO_RECIPE,
    NOT_RUN,
    Metrics,
    ReportError,
    Row,
    make_rows,
    read_metrics,
)
from clipzoo.report.training_sets import describe_training
from clipzoo.report.verdicts import OWN_RUN, REPRODUCED, is_reproduced

RESULTS_FILE = "RESULTS.md"
ZOO_FILE = "zoo.csv"
FEW_VIDEOS = 30
"""Below this number of videos, an interval is marked: one video more or less moves it by points."""

Columns = Mapping[str, Callable[[Row], str]]
"""The title of each column, and its cell in a row."""

INTRODUCTION = f"""# Results

Written by the `report` stage from `metrics/`, `plots/*/settings.json` and `recipes/`; `zoo.csv` has
every result with all digits. Values are percentages. The 95% interval is in brackets: Wilson's
for an accuracy, Tango's for a gain; "few videos" marks fewer than {FEW_VIDEOS}.
± is the standard deviation (ddof 0) over 10 seeded halves of the classes, or over the splits.
`Videos` is the number measured, with the first 8 digits of their fingerprint. mAP is computed by
torchnet, where a class without positives counts as 0; the mean class accuracy excludes classes
without videos. Values that are the same in every row of a table are given above it.

Only a run with the settings of its recipe, on the published set of videos, gets a verdict; where
videos of that set are missing, the verdict is on the lowest and highest value that the complete set
can have. Released weights are judged in the rows of `<recipe>-released`.
`modified:` names the settings that differ. "{NOT_RUN}" marks a published value without a
measurement, "{OWN_RUN}" a run that follows no recipe. The demo's recipes state the values that
other seeds and processors gave. `Environment` is the software and the processor that computed a
result: of pre-training, training and evaluation, where they differ. `clipzoo results <run>` prints
all results of one run, with its training and the settings that differ.

## Published rows

Every row that the authors of the methods published, next to our result. `make zoo
RECIPES=<recipe>` runs a row (after the recipe it starts from, if any); it needs the dataset and
GPUs. `clipzoo check <recipe>` shows what is missing.

"""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was measured, and what it is compared with."""

    metrics: Metrics
    recipes: Mapping[str, Loaded]
    rows: Sequence[Row]
    """All rows, also those not run here."""

    def markdown(self) -> str:
        """The text of RESULTS.md: published rows, other recipes, and one line per run."""
        parts = [INTRODUCTION, published_table(self.rows)]
        parts += [self._other_recipes(), "\n## Runs\n\n", summary_table(self.rows)]
        if "clip" in self.metrics.get(NO_RECIPE, {}):
            facts = _facts(self.metrics[NO_RECIPE]["clip"])
            parts.append(f"\nCLIP weights of the last run: {facts}.\n")
        return "".join(parts)

    def run_markdown(self, name: str) -> str:
        """One run in full: its results, its videos, its settings and its training.

        Raises:
            ReportError: there is no such run.
        """
        runs = [run for run in self.metrics if run]
        if name not in runs:
            raise ReportError(
                f"results: found {name!r}{near(name, runs)}; allowed: a run with metrics, "
                f"{few(runs)}; `clipzoo zoo RECIPE` runs a recipe"
            )
        results = [row for row in self.rows if row.recipe == name and row.value is not None]
        parts = [f"## {name}\n\n{results_table(results)}"]
        sets = dict.fromkeys((row.dataset, row.videos) for row in results if row.videos)
        parts += [f"\nVideos of {dataset}: {videos}.\n" for dataset, videos in sets]
        for settings in dict.fromkeys(row.modified for row in results if row.modified):
            listed = "`, `".join(settings.split())
            parts.append(f"\nSettings that differ from the recipe's: `{listed}`.\n")
        if training := self.metrics[name].get("train"):
            words = describe_training(training, name, self.recipes.get(name, (None,))[0])
            parts.append(f"\nTraining: {_facts(training)}.\n")
            parts += [f"\nVideos of the training: {words}.\n"] if words else []
        return "".join(parts)

    def _other_recipes(self) -> str:
        """The recipes without a published row, and whether they were run."""
        published = {row.recipe for row in self.rows if row.source}
        lines = [
            f"- `{name}`: {recipe.about}{'' if name in self.metrics else f' ({NOT_RUN})'}\n"
            for name, (recipe, _) in self.recipes.items()
            if name not in published
        ]
        title = "\n## Recipes without a published row\n\n`make zoo RECIPES=<name>` runs one.\n\n"
        return title + "".join(lines) if lines else ""

    def csv(self) -> str:
        """The text of zoo.csv: full precision, empty for unknown values."""
        # As objects: a column of numbers with an unknown value would turn 16 into 16.0.
        names = [field.name for field in fields(Row)]
        table = pd.DataFrame(self.rows, columns=names, dtype=object)
        return table.to_csv(index=False, lineterminator="\n")


def read_report(root: str | Path = ".") -> Report:
    """Read metrics/, plots/ and recipes/ under `root`.

    Raises:
        ReportError, ListError, ConfigError: as for `read_metrics` and `make_rows`, or a recipe is
            invalid.
    """
    root = Path(root)
    metrics = read_metrics(root / METRICS_DIR)
    recipes = load_recipes(root)
    return Report(metrics=metrics, recipes=recipes, rows=make_rows(metrics, recipes, root))


def write_report(root: str | Path = ".") -> Report:
    """Write RESULTS.md and zoo.csv under `root`; raises as `read_report`."""
    report = read_report(root)
    for name, text in ((RESULTS_FILE, report.markdown()), (ZOO_FILE, report.csv())):
        with replacing(Path(root) / name) as part:
            part.write_text(text, encoding="utf-8")
    return report


def summary_table(rows: Iterable[Row]) -> str:
    """One line per run: top-1, zero-shot top-1, the gain over the raw CLIP and the verdict."""
    metrics = {"top1": "Top-1", "full_top1": "Zero-shot top-1", "gain": "Gain over the raw CLIP"}
    header = ("Run", "Datasets", *metrics.values(), "Environment", "Verdict")
    runs: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        if row.value is not None:
            runs.setdefault(row.recipe, {}).setdefault(row.metric, []).append(row)
    cells = []
    for recipe, results in runs.items():
        values = [
            "; ".join(value_text(row) for row in results.get(metric, [])) for metric in metrics
        ]
        run = [row for found in results.values() for row in found]
        datasets = ", ".join(dict.fromkeys(row.dataset for row in run))
        environments = " / ".join(dict.fromkeys(row.environment for row in run))
        cells.append((recipe, datasets, *values, environments, run_verdict(run)))
    return _table(header, cells)


def run_verdict(rows: Sequence[Row]) -> str:
    """The verdicts of a run on the values that have a published or expected one, in short."""
    compared = [row for row in rows if row.delta is not None]
    verdicts = list(dict.fromkeys(row.verdict for row in compared))
    if len(verdicts) == 1:
        return verdicts[0]
    missed = [row for row in compared if not is_reproduced(row.verdict)]
    words = [f"{row.result} {row.verdict}" for row in missed]
    return "; ".join(words) or (REPRODUCED if compared else "")


def results_table(rows: Iterable[Row]) -> str:
    """The results of one run, as a markdown table for each dataset and protocol."""
    columns: Columns = {
        "Result": lambda row: row.result,
        "Value": value_text,
        "Dataset": lambda row: row.dataset,
        "Videos": videos_text,
        "Protocol": lambda row: row.protocol,
        "Environment": lambda row: row.environment,
        "Published": lambda row: _number(row.published),
        "Expected": lambda row: _number(row.expected),
        "Delta": delta_text,
        "Verdict": lambda row: row.verdict,
    }
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.dataset, row.protocol), []).append(row)
    return "\n".join(_table_of(columns, group) for group in groups.values())


def published_table(rows: Sequence[Row]) -> str:
    """Rows of published numbers as a markdown table, sorted by recipe."""
    columns: Columns = {
        "Recipe": lambda row: f"`{row.recipe}`",
        "Dataset": lambda row: row.dataset,
        "Model": lambda row: f"{row.arch}, {row.num_frames} frames",
        "Result": lambda row: row.result,
        "Views": lambda row: row.protocol,
        "Published": lambda row: "no number" if row.published is None else f"{row.published:g}",
        "Ours": value_text,
        "Videos": videos_text,
        "Delta": delta_text,
        "Environment": lambda row: row.environment,
        "Verdict": lambda row: row.verdict,
    }
    published = [row for row in rows if row.source]
    published.sort(key=lambda row: (recipe_of(row.recipe) or row.recipe, row.recipe))
    return _table_of(columns, published)


def _table_of(columns: Columns, rows: Sequence[Row]) -> str:
    return _table(tuple(columns), [[cell(row) for cell in columns.values()] for row in rows])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table, each column as wide as its widest cell, without its constant columns."""
    constants, header, rows = _drop_constants(header, rows)
    return constants + markdown_table(header, rows)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table, each column as wide as its widest cell."""
    cells = [[shown(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines) + "\n"


def _drop_constants(
    header: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[str, list[str], list[list[str]]]:
    """Remove the columns with the same value in every row from a table of two or more rows.

    The first column names the rows and stays. Empty columns are not mentioned.

    Returns:
        the constants as a line of markdown (`Dataset: ucf101. Verdict: ...`) and an empty line, or
        '' if there are none; the header and the rows without them.
    """
    columns = list(zip(*rows, strict=True))
    constant = [i for i, cells in enumerate(columns) if i and len(rows) > 1 and len({*cells}) == 1]
    facts = [f"{header[i]}: {columns[i][0]}." for i in constant if columns[i][0]]
    varying = [i for i in range(len(header)) if i not in constant]
    line = shown(" ".join(facts)) + "\n\n" if facts else ""
    return line, [header[i] for i in varying], [[row[i] for i in varying] for row in rows]


def value_text(row: Row) -> str:
    """The value with its deviation and its interval; '' = not run here."""
    value = _number(row.value)
    if row.std is not None:
        value += f" ± {row.std:.1f}"
    if row.ci95_low is not None:
        few = ", few videos" if row.num_videos is not None and row.num_videos < FEW_VIDEOS else ""
        value += f" ({row.ci95_low:.1f} to {row.ci95_high:.1f}{few})"
    return value


def videos_text(row: Row) -> str:
    """The number of videos, of how many, and their fingerprint; '' = not run here."""
    if row.value is None:
        return ""
    videos = str(row.num_videos)
    if row.num_expected != row.num_videos:
        videos += f" of {row.num_expected}"
    if row.videos_sha256:
        missing = f"; missing.csv {row.missing_sha256[:8]}" if row.missing_sha256 else ""
        videos += f" ({row.videos_sha256[:8]}{missing})"
    return videos


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def delta_text(row: Row) -> str:
    """The difference to the published or expected value; '' = there is none."""
    if row.delta is None:
        return ""
    return f"{round(row.delta, 1) + 0.0:+.1f}"  # -0.04 is +0.0, not -0.0


def _facts(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_fact(value)}" for key, value in values.items())


def _fact(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return text[:8] if len(text) == 64 else text  # a sha256

"""Every metrics file as one table: RESULTS.md to read and zoo.csv to compute with.

Nothing here depends on the clock or the machine: the same metrics give the same bytes.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

NO_PUBLISHED = "no published value"
RESULTS_FILE = "RESULTS.md"
ZOO_FILE = "zoo.csv"

# result's name: (key of the value, of its standard deviation, of its interval's two ends)
TEST_RESULTS = {
    "top-1": ("top1", "", "ci95"),
    "top-5": ("top5", "", ""),
    "mean class accuracy": ("mean_class_accuracy", "", ""),
    "mAP": ("map", "", ""),
    "single view, top-1": ("single_view_top1", "", "single_view_ci95"),
    "single view, top-5": ("single_view_top5", "", ""),
    "single view, mean class accuracy": ("single_view_mean_class_accuracy", "", ""),
    "single view, mAP": ("single_view_map", "", ""),
}
ZERO_SHOT_RESULTS = {
    "zero-shot top-1": ("full_top1", "", "ci95"),
    "zero-shot top-5": ("full_top5", "", ""),
    "zero-shot top-1, half of the classes": ("half_top1_mean", "half_top1_std", ""),
    "raw CLIP, zero-shot top-1": ("raw_full_top1", "", "raw_ci95"),
    "raw CLIP, zero-shot top-5": ("raw_full_top5", "", ""),
    "raw CLIP, zero-shot top-1, half of the classes": (
        "raw_half_top1_mean",
        "raw_half_top1_std",
        "",
    ),
    "gain in zero-shot top-1 over the raw CLIP": ("gain", "", "gain_ci95"),
}

INTRODUCTION = """# Results

Written by the `report` stage from `metrics/`; the same rows in full precision are in `zoo.csv`.
Values are percentages. Brackets hold the 95% interval of a bootstrap over videos; ± is the standard
deviation (ddof 0) over 10 seeded halves of the classes. `Videos` is the number measured, with the
first 8 digits of the sha256 of their sorted ids. mAP is torchnet's, where a class without positives
counts as 0; the mean class accuracy leaves classes without videos out.
"""


class ReportError(ValueError):
    """There are no metrics, or a metrics file cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One result of one recipe, as a line of zoo.csv; values in percent, None where unknown."""

    recipe: str
    dataset: str
    result: str
    value: float
    std: float | None
    ci95_low: float | None
    ci95_high: float | None
    num_videos: int
    num_expected: int
    videos_sha256: str
    protocol: str
    published: float | None
    delta: float | None
    verdict: str


def read_metrics(root: str | Path = "metrics") -> dict[str, dict[str, dict[str, Any]]]:
    """Every metrics file: {recipe: {stem of the file: its values}}, both sorted by name.

    Raises:
        ReportError: there is none, or one is not a JSON mapping.
    """
    root = Path(root)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for path in sorted(root.rglob("*.json")):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ReportError(f"{path}: not a JSON file ({error}); `dvc repro` makes it") from error
        if not isinstance(values, dict):
            raise ReportError(f"{path}: found a {type(values).__name__}; allowed: a flat mapping")
        recipe = path.parent.relative_to(root).as_posix()
        found.setdefault(recipe, {})[path.stem] = values
    if not found:
        raise ReportError(f"{root}/: no metrics file in it; `dvc repro` makes them")
    return dict(sorted(found.items()))


def make_rows(metrics: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[Row]:
    """One row for each result of test and zero-shot, in the order of reading.

    Raises:
        ReportError: a file with a result lacks what identifies it (its number of videos, ...).
    """
    rows = []
    for recipe, files in metrics.items():
        for stem, values in files.items():
            if stem == "test" or stem.startswith("zero_shot_"):
                results = TEST_RESULTS if stem == "test" else ZERO_SHOT_RESULTS
                try:
                    rows += _file_rows(recipe, values, results)
                except KeyError as error:
                    raise ReportError(f"metrics/{recipe}/{stem}.json: missing {error}") from error
    return rows


def _file_rows(
    recipe: str, values: Mapping[str, Any], results: Mapping[str, tuple[str, str, str]]
) -> Iterator[Row]:
    for name, (key, std, interval) in results.items():
        if key not in values:
            continue
        yield Row(
            recipe=recipe,
            dataset=values["dataset"],
            result=name,
            value=values[key],
            std=values[std] if std else None,
            ci95_low=values[f"{interval}_low"] if interval else None,
            ci95_high=values[f"{interval}_high"] if interval else None,
            num_videos=values["num_videos"],
            num_expected=values["num_expected"],
            videos_sha256=values["videos_sha256"],
            protocol=values["protocol"],
            published=None,
            delta=None,
            verdict=NO_PUBLISHED,
        )


def results_markdown(
    metrics: Mapping[str, Mapping[str, Mapping[str, Any]]], rows: Sequence[Row]
) -> str:
    """The text of RESULTS.md."""
    parts = [INTRODUCTION]
    for recipe, files in metrics.items():
        parts.append(f"\n## {recipe}\n\n{results_table([r for r in rows if r.recipe == recipe])}")
        for stem, title in (("clip", "CLIP weights"), ("train", "Training")):
            if stem in files:
                facts = ", ".join(f"{k} {_fact(v)}" for k, v in files[stem].items())
                parts.append(f"\n{title}: {facts}.\n")
    return "".join(parts)


def results_table(rows: Sequence[Row]) -> str:
    """The rows as a markdown table, each column as wide as its widest cell."""
    header = ("Dataset", "Result", "Value", "Videos", "Protocol", "Published", "Delta", "Verdict")
    cells = [header, *map(_cells, rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> tuple[str, ...]:
    value = f"{row.value:.1f}"
    if row.std is not None:
        value += f" ± {row.std:.1f}"
    if row.ci95_low is not None:
        value += f" ({row.ci95_low:.1f} to {row.ci95_high:.1f})"
    videos = str(row.num_videos)
    if row.num_expected != row.num_videos:
        videos += f" of {row.num_expected}"
    return (
        row.dataset,
        row.result,
        value,
        f"{videos} ({row.videos_sha256[:8]})",
        row.protocol,
        "" if row.published is None else f"{row.published:.1f}",
        "" if row.delta is None else f"{row.delta:+.1f}",
        row.verdict,
    )


def _fact(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return text[:8] if len(text) == 64 else text  # a sha256


def zoo_csv(rows: Sequence[Row]) -> str:
    """The text of zoo.csv: full precision, empty where a value is unknown."""
    text = io.StringIO()
    names = [field.name for field in fields(Row)]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()


def write_report(root: str | Path = ".") -> list[Row]:
    """Read metrics/ under `root` and write RESULTS.md and zoo.csv there; returns the rows.

    Raises:
        ReportError: as `read_metrics` and `make_rows`.
    """
    root = Path(root)
    metrics = read_metrics(root / "metrics")
    rows = make_rows(metrics)
    texts = {RESULTS_FILE: results_markdown(metrics, rows), ZOO_FILE: zoo_csv(rows)}
    for name, text in texts.items():
        part = root / f"{name}.part"
        part.write_text(text, encoding="utf-8")
        part.replace(root / name)
    return rows

"""One run, and one line of the table of results, as the templates show them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isclose
from pathlib import Path
from typing import Any
from urllib.parse import quote

from clipzoo.report import verdicts
from clipzoo.report.metric_names import RESULTS, kind_of
from clipzoo.report.recipes import DEMO, Loaded, Recipe
from clipzoo.report.released import expected_settings, recipe_of
from clipzoo.report.results import NOT_RUN, Row
from clipzoo.report.site import charts
from clipzoo.report.site.measured import CURVES, SetPlots, read_curves, read_set
from clipzoo.report.stored import again, load_settings
from clipzoo.report.tables import Report, run_verdict, value_text, videos_text
from clipzoo.report.training_sets import describe_training

SITE_DIR = Path("report/site")
"""All but index.html: pages of runs, pictures, style and script."""
TOP1 = {"test": "top1", "zero_shot": "full_top1"}
"""The accuracy that videos.csv has the predictions of."""
HEADLINES = {"top1", "full_top1", "gain", "fused_top1", "fused_gain_over_video"}
"""Results that the table shows at first, besides those with a published or expected value."""
MOST_CONFUSIONS, MOST_WRONG = 15, 100
"""Lines of the lists of a page."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One result, or one published number without a result, in the table of the zoo."""

    row: Row
    method: str
    page: str
    """The path of its run's page, from index.html; '' = there is no such run."""
    target: str
    """The published or expected value, in words."""
    target_value: float | None
    status: str
    """One of a few words for the filter."""
    headline: bool
    """Whether it is shown before `all results` is chosen."""

    @property
    def value(self) -> str:
        return value_text(self.row)

    @property
    def videos(self) -> str:
        return videos_text(self.row)


@dataclass(frozen=True, kw_only=True)
class Change:
    """A setting with two values; '' = there is no such setting."""

    key: str
    before: str
    now: str


@dataclass(kw_only=True)
class Page:
    """All that the page of a run shows."""

    name: str
    about: str
    paper: str
    notes: list[str]
    method: str
    verdict: str
    command: str
    """What runs it again; '' = it is not a recipe's run."""
    rows: list[Row]
    facts: list[tuple[str, str]]
    """Keys and values of the training."""
    training: str
    """Its videos beside those of the authors, in words."""
    curves: list[tuple[str, charts.Curve]]
    points: dict[str, list[tuple[int, float]]]
    sets: list[SetPlots]
    settings: dict[str, Any] | None
    """None = not recorded."""
    modified: list[Change]
    """The settings that differ from its recipe's."""
    parent: str
    """The recipe that its recipe starts from; '' = none."""
    changed: list[Change]
    """The settings that differ from those of the recipe `parent`."""
    missing: list[str] = field(default_factory=list)

    @property
    def file(self) -> str:
        """Its path in SITE_DIR."""
        return f"runs/{flat(self.name)}.html"

    def picture(self, plots: SetPlots, path: Path) -> str:
        """The path in SITE_DIR of a picture."""
        return f"pictures/{flat(self.name)}/{plots.stem}-{path.stem}.webp"


def address(path: str) -> str:
    """A relative path as the address of a link."""
    return quote(path, safe="/+")


def flat(name: str) -> str:
    """A run's name as that of a file; no name of a run has a plus."""
    return name.replace("/", "+")


def make_lines(report: Report) -> list[Line]:
    """All lines of the table, those of measured runs first."""
    ordered = sorted(report.rows, key=lambda row: row.value is None)
    return [_line(row, report) for row in ordered]


def _line(row: Row, report: Report) -> Line:
    _, settings = report.recipes.get(recipe_of(row.recipe) or row.recipe, (None, {}))
    target = row.expected if row.published is None else row.published
    words = "" if target is None else f"{target:g}"
    if row.published is None and row.expected is not None:
        words += " (expected)"
    return Line(
        row=row,
        method=str(settings.get("model.method", "")),
        page=f"site/runs/{flat(row.recipe)}.html" if row.recipe in report.metrics else "",
        target=words,
        target_value=target,
        status=_status(row),
        headline=target is not None or bool(row.source) or row.metric in HEADLINES,
    )


def _status(row: Row) -> str:
    if row.verdict == NOT_RUN:
        return NOT_RUN
    if verdicts.is_reproduced(row.verdict):
        return "reproduced"
    if row.verdict.startswith("modified"):
        return "modified"
    if "within reach (" in row.verdict:  # of bounds, where videos are missing
        return "within reach"
    return "no verdict" if row.delta is None or "tolerance" not in row.verdict else "not reproduced"


def make_page(name: str, report: Report, root: Path) -> Page:
    """The page of a run that has metrics.

    Raises:
        ListError, ConfigError: its settings are damaged (`load_settings`).
    """
    files = report.metrics[name]
    followed = name if name in report.recipes else recipe_of(name)
    recipe, expected = report.recipes.get(followed, (None, {}))
    rows = [row for row in report.rows if row.recipe == name and row.value is not None]
    stems = [stem for stem in files if kind_of(stem) in RESULTS]
    sets = [read_set(root, name, stem, str(files[stem]["dataset"])) for stem in stems]
    for plots in sets:
        _check_videos(plots, files[plots.stem], name)
    recorded = {stem: load_settings(root, name, stem) for stem in stems}
    settings = next(filter(None, recorded.values()), None)
    curves, missing = read_curves(root, name)
    missing += [
        f"Settings of {stem}: not recorded, or of another run; {again(name)}."
        for stem, values in recorded.items()
        if values is None
    ]
    training = files.get("train", {})
    if not training:
        missing.append("Training: there is no train.json.")
    drawn = [(title, charts.curve(curves.get(key, []))) for key, title in CURVES.items()]
    return Page(
        name=name,
        about=recipe.about if recipe else "Follows no recipe.",
        paper=recipe.paper if recipe else "",
        notes=recipe.notes if recipe else [],
        method=str((settings or expected).get("model.method", "")),
        verdict=run_verdict(rows) or "no value to compare with",
        command=_command(name, followed, report),
        rows=rows,
        facts=[(key, text_of(value)) for key, value in training.items()],
        training=describe_training(training, followed, recipe),
        curves=[(title, line) for title, line in drawn if line],
        points=curves,
        sets=sets,
        settings=settings,
        modified=_modified(settings, recipe, expected, released=followed != name),
        **_against_parent(followed, settings or expected, report.recipes),
        missing=missing,
    )


def _command(name: str, followed: str, report: Report) -> str:
    if followed not in report.recipes:
        return ""
    if name != followed:
        return f"clipzoo zoo {followed} --released FILE"
    return f"clipzoo zoo {name} --again"


def _check_videos(plots: SetPlots, values: Mapping[str, Any], run: str) -> None:
    """Leave out a videos.csv that is not of these metrics, and say so."""
    key = TOP1.get(kind_of(plots.stem), "")
    if not plots.videos or key not in values:
        return
    top1 = 100 * sum(v.label == v.predicted for v in plots.videos) / len(plots.videos)
    if not isclose(top1, values[key], abs_tol=1e-5):
        plots.missing.append(
            f"Classes and wrong videos: videos.csv has a top-1 of {top1:.2f}, the metrics "
            f"{values[key]:.2f}: they are of two runs; {again(run)}."
        )
        plots.videos = []


def _modified(
    used: Mapping[str, Any] | None,
    recipe: Recipe | None,
    expected: Mapping[str, Any],
    *,
    released: bool,
) -> list[Change]:
    if used is None or recipe is None:
        return []
    wanted = {**expected, **verdicts.authors_split(recipe, expected)}
    if released:
        wanted = expected_settings(used, wanted, "test")
    keys = verdicts.modified_anywhere(used, wanted)
    return _changes(wanted, used, keys)


def _against_parent(
    name: str, settings: Mapping[str, Any], recipes: Mapping[str, Loaded]
) -> dict[str, Any]:
    """`parent` and `changed` of a page. Every recipe but the demo's starts from the demo's values,
    if it does not start from the model of another."""
    if name not in recipes or name == DEMO:
        return {"parent": "", "changed": []}
    parent = recipes[name][0].parent or DEMO
    before = recipes[parent][1]
    keys = sorted((before.keys() | settings.keys()) - {"recipe"})
    return {"parent": parent, "changed": _changes(before, settings, keys)}


def _changes(
    before: Mapping[str, Any], now: Mapping[str, Any], keys: Sequence[str]
) -> list[Change]:
    pairs = [(key, _setting(before, key), _setting(now, key)) for key in keys]
    return [Change(key=key, before=a, now=b) for key, a, b in pairs if a != b]


def _setting(settings: Mapping[str, Any], key: str) -> str:
    return text_of(settings[key]) if key in settings else ""


def text_of(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)

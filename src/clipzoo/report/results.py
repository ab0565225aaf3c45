"""Every result of every run, and every published number, as one list of rows.

A row is one number: ours and the published one if both exist, only ours, or only the published
one (`value` None: not run here).
"""

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

from clipzoo.paths import METRICS_DIR
from clipzoo.report import verdicts
from clipzoo.report.bounds import Bounds, bounds_of, mean_bounds
from clipzoo.report.metric_names import (
    FEWER_VIDEOS,
    NAMES,
    RESULTS,
    deviation_of,
    interval_of,
    kind_of,
)
from clipzoo.report.recipes import Expected, Loaded, Published
from clipzoo.report.released import describe_given, expected_settings, recipe_of
from clipzoo.report.stored import load_settings, read_metrics_file

NOT_RUN = "not run here"
NO_RECIPE = ""
"""Key of the metrics that belong to no recipe: those of the CLIP weights."""

# Each split of Kinetics-600 has other classes, so each is a dataset; the published number is their
# mean. metric: key in each split's file
SPLIT_RESULTS = {"splits_top1_mean": "full_top1", "splits_top5_mean": "full_top5"}
SPLIT_DATASETS = ("kinetics600", "kinetics600_val")
NUM_SPLITS = 3


class ReportError(ValueError):
    """There are no metrics, or a metrics file cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number, as a line of zoo.csv; values in percent, None where unknown."""

    recipe: str
    dataset: str
    arch: str
    num_frames: int | None
    result: str
    metric: str
    value: float | None = None
    std: float | None = None
    ci95_low: float | None = None
    ci95_high: float | None = None
    num_videos: int | None = None
    num_expected: int | None = None
    videos_sha256: str = ""
    missing_sha256: str = ""
    """Digest of the dataset's missing.csv, the videos that this copy lacks; '' = no such file."""
    complete_low: float | None = None
    """The lowest value possible on the published set, of which this copy lacks videos."""
    complete_high: float | None = None
    videos: str = ""
    """Which published set of videos it was measured on, or by how many videos it differs."""
    protocol: str
    environment: str = ""
    """`machine.environment` of all that computed it; '' = not recorded."""
    published: float | None = None
    published_std: float | None = None
    expected: float | None = None
    """What runs on other machines gave, if there is no published value."""
    source: str
    """Where the published value, or a published row without a number, comes from."""
    delta: float | None = None
    checkpoint_sha256: str = ""
    """Digest of the file that the run started from, or evaluated; '' = none, or not recorded."""
    modified: str = ""
    """Settings in which the run differs from its recipe and that can change the result."""
    verdict: str


Metrics = Mapping[str, Mapping[str, Mapping[str, Any]]]


def read_metrics(root: str | Path = METRICS_DIR) -> dict[str, dict[str, dict[str, Any]]]:
    """Every metrics file: {recipe: {stem of the file: its values}}, both sorted by name.

    Files directly in `root` are under NO_RECIPE.

    Raises:
        ReportError: there is no file, or one is not JSON.
        ConfigError: values of a file are missing or wrong.
    """
    root = Path(root)
    metrics: dict[str, dict[str, dict[str, Any]]] = {}
    for path in sorted(root.rglob("*.json")):
        recipe = path.parent.relative_to(root).as_posix().removeprefix(".")
        values = read_metrics_file(path, recipe, ReportError)
        metrics.setdefault(recipe, {})[path.stem] = values
    if not metrics:
        raise ReportError(f"{root}/: no metrics file in it; `dvc repro` writes them")
    return dict(sorted(metrics.items()))


def make_rows(metrics: Metrics, recipes: Mapping[str, Loaded], root: str | Path = ".") -> list[Row]:
    """One row for each result, then one for each published number without a result.

    Args:
        root: the repository, whose plots/ has the settings of the runs.

    Raises:
        ListError, ConfigError: as `load_settings`.
    """
    root = Path(root)
    rows: list[Row] = []
    matched: dict[str, list[Published]] = {}
    for name, files in metrics.items():
        run = _Run(name, files, recipes, root)
        rows += run.rows()
        matched[name] = run.matched
    for name, (recipe, settings) in recipes.items():
        unmatched = [row for row in recipe.published if row not in matched.get(name, [])]
        rows += [_not_run(name, row, settings) for row in unmatched]
    return rows


def _not_run(recipe: str, row: Published, settings: Mapping[str, Any]) -> Row:
    """The row of a published number without a result."""
    views = (row.clips, row.crops)
    return Row(
        recipe=recipe,
        dataset=row.dataset,
        arch=settings["model.arch"],
        num_frames=settings["model.num_segments"],
        result=NAMES[row.metric],
        metric=row.metric,
        protocol="" if None in views else f"clips {row.clips}, crops {row.crops}",
        published=row.value,
        published_std=row.std,
        source=row.source,
        verdict=NOT_RUN,
    )


class _Run:
    """The metrics files of one recipe's run, compared with what was published."""

    def __init__(
        self,
        name: str,
        files: Mapping[str, Mapping[str, Any]],
        recipes: Mapping[str, Loaded],
        root: Path,
    ) -> None:
        self.name, self.files = name, files
        self.read_settings = cache(partial(load_settings, root, name))  # once a file
        self.released = name not in recipes and recipe_of(name) in recipes
        recipe = recipe_of(name) if self.released else name
        self.recipe, self.recipe_settings = recipes.get(recipe, (None, {}))
        self.matched: list[Published] = []

    def rows(self) -> list[Row]:
        """The rows of all files with results."""
        rows: list[Row] = []
        for stem in self.files:
            if kind_of(stem) in RESULTS:
                rows += self._file_rows(stem)
        return rows + list(self._split_rows())

    def _file_rows(self, stem: str) -> Iterator[Row]:
        values = self.files[stem]
        for key in RESULTS[kind_of(stem)]:
            if key in values:
                (std,) = [values[k] for k in deviation_of(key)] or [None]
                low, high = [values[k] for k in interval_of(key)] or [None, None]
                yield from self._rows_of([stem], key, values[key], std=std, interval=(low, high))

    def _split_rows(self) -> Iterator[Row]:
        """Means over the splits of Kinetics-600's test or validation set, if all were measured (std
        with ddof 0)."""
        for dataset, (metric, key) in product(SPLIT_DATASETS, SPLIT_RESULTS.items()):
            stems = [f"zero_shot_{dataset}_split{i}" for i in range(1, NUM_SPLITS + 1)]
            values = [self.files[stem][key] for stem in stems if key in self.files.get(stem, {})]
            if len(values) == NUM_SPLITS:
                mean, std = statistics.fmean(values), statistics.pstdev(values)
                yield from self._rows_of(stems, metric, mean, std=std, dataset=dataset)

    def _rows_of(
        self,
        stems: list[str],
        key: str,
        value: float,
        *,
        dataset: str = "",
        std: float | None = None,
        interval: tuple[float | None, float | None] = (None, None),
    ) -> Iterator[Row]:
        """A result of one metrics file, or the mean over several: once for each number that was
        published for it, or once alone."""
        values = self.files[stems[0]]
        dataset = dataset or values["dataset"]
        sets = self.recipe.video_sets if self.recipe else {}
        videos = [verdicts.compare_videos(self.files[s], sets.get(s, ""))[0] for s in stems]
        used = self.read_settings(stems[0])
        changed = self._modified(used, stems[0])
        settings = used or self.recipe_settings
        same = self._same_videos(stems, key, settings)
        environments = dict.fromkeys(self.files[s].get("environment", "") for s in stems)
        # The fingerprint is that of one file's videos, all of them.
        whole_set = len(stems) == 1 and key not in FEWER_VIDEOS
        counted = FEWER_VIDEOS.get(key, "num_videos")
        for row in self._published(dataset, key, stems[0], settings) or [None]:
            expected = None if row else self._expected(dataset, key)
            target = row.value if row else expected and expected.value
            yield Row(
                recipe=self.name,
                dataset=dataset,
                arch=settings.get("model.arch", ""),
                num_frames=settings.get("model.num_segments"),
                result=NAMES[key],
                metric=key,
                value=value,
                std=std,
                ci95_low=interval[0],
                ci95_high=interval[1],
                num_videos=sum(self.files[s][counted] for s in stems),
                num_expected=sum(self.files[s]["num_expected"] for s in stems),
                videos_sha256=values["videos_sha256"] if whole_set else "",
                missing_sha256=values.get("missing_sha256", "") if len(stems) == 1 else "",
                complete_low=same.low if isinstance(same, Bounds) else None,
                complete_high=same.high if isinstance(same, Bounds) else None,
                videos="; ".join(dict.fromkeys(filter(None, videos))),
                protocol=values["protocol"],
                environment="; ".join(environments),
                published=row and row.value,
                published_std=row and row.std,
                expected=expected and expected.value,
                source=row.source if row else "",
                delta=None if target is None else value - target,
                checkpoint_sha256=values.get("checkpoint_sha256", ""),
                modified=" ".join(changed or ()),
                verdict=verdicts.verdict(
                    value, row or expected, self.recipe, changed, same, released=self.released
                )
                + describe_given(used or {}, self.recipe_settings, values),
            )

    def _same_videos(
        self, stems: list[str], key: str, settings: Mapping[str, Any]
    ) -> bool | Bounds | None:
        """Whether a result is over the published videos, as `verdicts.verdict` takes it."""
        sets = self.recipe.video_sets if self.recipe else {}
        parts: list[Bounds | None] = []
        complete = True
        for stem in stems:
            values, published = self.files[stem], sets.get(stem, "")
            if verdicts.is_part(values, published):
                complete = False
            elif not verdicts.compare_videos(values, published)[1]:
                return False
            metric = SPLIT_RESULTS.get(key, key) if len(stems) > 1 else key
            batch = settings.get("actionclip.authors_test_batch", 0)
            parts.append(bounds_of(values, metric, batch))
        return True if complete else mean_bounds(parts)

    def _modified(self, used: dict[str, Any] | None, stem: str) -> list[str] | None:
        """Settings that differ from the recipe's; None = not recorded, or no recipe."""
        if used is None or self.recipe is None:
            return None
        split = verdicts.authors_split(self.recipe, self.recipe_settings)
        expected = {**self.recipe_settings, **split}
        if self.released:
            expected = expected_settings(used, expected, stem)
        return verdicts.modified(used, expected, stem)

    def _expected(self, dataset: str, key: str) -> Expected | None:
        """The expected number for a result."""
        rows = self.recipe.expected if self.recipe else []
        return next((row for row in rows if (row.dataset, row.metric) == (dataset, key)), None)

    def _published(
        self, dataset: str, key: str, stem: str, settings: Mapping[str, Any]
    ) -> list[Published]:
        """The published numbers for a result: same dataset, metric and views."""
        section = "zero_shot" if kind_of(stem) == "zero_shot" else "test"
        views = tuple(settings.get(f"{section}.{views}") for views in ("clips", "crops"))
        if key.startswith("single_view_"):
            key, views = key.removeprefix("single_view_"), (1, 1)
        rows = [
            row
            for row in (self.recipe.published if self.recipe else ())
            if (row.dataset, row.metric) == (dataset, key)
            and ((row.clips, row.crops) == views or None in (row.clips, row.crops))
        ]
        self.matched += rows
        return rows

"""Every result of every run, and every published number, as one list of rows.

A row is one number: ours and the published one if both exist, only ours, or only the published
one (`value` None: not run here).
"""

import json
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from clipzoo.report import verdicts
from clipzoo.report.recipes import Expected, Loaded, Published
from clipzoo.report.released import describe_given

NOT_RUN = "not run here"
NO_RECIPE = ""
"""Key of the metrics that belong to no recipe: those of the CLIP weights."""

# result's name: (key of the value, of its standard deviation, of its interval's two ends)
TEST_RESULTS = {
    "top-1": ("top1", "", "ci95"),
    "top-5": ("top5", "", ""),
    "top-1, authors' protocol": ("authors_top1", "", "authors_ci95"),
    "top-5, authors' protocol": ("authors_top5", "", ""),
    "mean class accuracy": ("mean_class_accuracy", "", ""),
    "mAP": ("map", "", ""),
    "mAP, authors' protocol": ("authors_map", "", ""),
    "base classes, top-1": ("base_top1", "", ""),
    "novel classes, top-1": ("novel_top1", "", ""),
    "base to novel, harmonic mean": ("base_to_novel_hmean", "", ""),
    "single view, top-1": ("single_view_top1", "", "single_view_ci95"),
    "single view, top-5": ("single_view_top5", "", ""),
    "single view, mean class accuracy": ("single_view_mean_class_accuracy", "", ""),
    "single view, mAP": ("single_view_map", "", ""),
}
FUSED_RESULTS = {
    "fused, top-1": ("fused_top1", "", "fused_ci95"),
    "fused, top-5": ("fused_top5", "", ""),
    "fused by the best weight in training, top-1": ("fused_best_top1", "", "fused_best_ci95"),
    "fused by the best weight in training, top-5": ("fused_best_top5", "", ""),
    "video branch, top-1": ("video_top1", "", "video_ci95"),
    "video branch, top-5": ("video_top5", "", ""),
    "attributes branch, top-1": ("attributes_top1", "", "attributes_ci95"),
    "attributes branch, top-5": ("attributes_top5", "", ""),
    "gain of the fusion over the video branch": (
        "fused_gain_over_video",
        "",
        "fused_gain_over_video_ci95",
    ),
    "gain of the fusion over the attributes branch": (
        "fused_gain_over_attributes",
        "",
        "fused_gain_over_attributes_ci95",
    ),
}
ZERO_SHOT_RESULTS = {
    "zero-shot top-1": ("full_top1", "", "ci95"),
    "zero-shot top-5": ("full_top5", "", ""),
    "zero-shot top-1, half of the classes": ("half_top1_mean", "half_top1_std", ""),
    "zero-shot top-1, mean of the splits": ("splits_top1_mean", "splits_top1_std", ""),
    "zero-shot top-5, mean of the splits": ("splits_top5_mean", "splits_top5_std", ""),
    "zero-shot top-1, interpolated weights": ("interpolated_top1", "", "interpolated_ci95"),
    "raw CLIP, zero-shot top-1": ("raw_full_top1", "", "raw_ci95"),
    "raw CLIP, zero-shot top-5": ("raw_full_top5", "", ""),
    "raw CLIP, zero-shot top-1, half of the classes": (
        "raw_half_top1_mean",
        "raw_half_top1_std",
        "",
    ),
    "gain in zero-shot top-1 over the raw CLIP": ("gain", "", "gain_ci95"),
}
FEWER_VIDEOS = {"authors_top1", "authors_top5"}
"""Results over `authors_num_videos`, the first ones of the list: the authors' tests drop the last,
partial batch."""
RESULTS = {"test": TEST_RESULTS, "fused": FUSED_RESULTS, "zero_shot": ZERO_SHOT_RESULTS}
"""By the kind of metrics file."""
# Each split of Kinetics-600 has other classes, so each is a dataset; the published number is their
# mean. metric: key in each split's file
SPLIT_RESULTS = {"splits_top1_mean": "full_top1", "splits_top5_mean": "full_top5"}
SPLIT_DATASET = "kinetics600"
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
    value: float | None
    std: float | None
    ci95_low: float | None
    ci95_high: float | None
    num_videos: int | None
    num_expected: int | None
    videos_sha256: str
    videos: str
    """Which published set of videos it was measured on, or by how many videos it differs."""
    protocol: str
    environment: str
    """`machine.environment` of all that computed it; '' = not recorded."""
    published: float | None
    published_std: float | None
    expected: float | None
    """What runs on other machines gave, if there is no published value."""
    source: str
    """Of the published value or, for a row without a number, of the row."""
    delta: float | None
    modified: str
    """Settings in which the run differs from its recipe and that can change the result."""
    verdict: str


Metrics = Mapping[str, Mapping[str, Mapping[str, Any]]]


def read_metrics(root: str | Path = "metrics") -> dict[str, dict[str, dict[str, Any]]]:
    """Every metrics file: {recipe: {stem of the file: its values}}, both sorted by name.

    Files directly in `root` are under NO_RECIPE.

    Raises:
        ReportError: there is no file, or one is not a JSON mapping.
    """
    root = Path(root)
    metrics: dict[str, dict[str, dict[str, Any]]] = {}
    for path in sorted(root.rglob("*.json")):
        try:
            values = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
        except (OSError, ValueError) as error:
            raise ReportError(
                f"{path}: not a JSON file ({error}); `dvc repro` writes it"
            ) from error
        if not isinstance(values, dict):
            raise ReportError(f"{path}: found a {type(values).__name__}; allowed: a flat mapping")
        recipe = path.parent.relative_to(root).as_posix().removeprefix(".")
        metrics.setdefault(recipe, {})[path.stem] = values
    if not metrics:
        raise ReportError(f"{root}/: no metrics file in it; `dvc repro` writes them")
    return dict(sorted(metrics.items()))


def _refuse(constant: str) -> float:
    """NaN and infinities, which Python's JSON reads and no other."""
    raise ValueError(f"found {constant}; allowed: finite numbers")


def make_rows(metrics: Metrics, recipes: Mapping[str, Loaded], root: str | Path = ".") -> list[Row]:
    """One row for each result, then one for each published number without a result.

    Args:
        metrics: of `read_metrics`.
        recipes: of `load_recipes`.
        root: of the repository; its plots/ has the settings of the runs.

    Raises:
        ReportError: a file with results has a missing key (num_videos, videos_sha256, ...).
    """
    root = Path(root)
    rows: list[Row] = []
    matched: dict[str, list[Published]] = {}
    for name, files in metrics.items():
        run = _Run(name, files, recipes.get(name), root)
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
        result=result_name(row.metric),
        metric=row.metric,
        value=None,
        std=None,
        ci95_low=None,
        ci95_high=None,
        num_videos=None,
        num_expected=None,
        videos_sha256="",
        videos="",
        protocol="" if None in views else f"clips {row.clips}, crops {row.crops}",
        environment="",
        published=row.value,
        published_std=row.std,
        expected=None,
        source=row.source,
        delta=None,
        modified="",
        verdict=NOT_RUN,
    )


def kind_of(stem: str) -> str:
    """`zero_shot` of `zero_shot_<dataset>`; any other stem of a metrics file as it is."""
    return "zero_shot" if stem.startswith("zero_shot_") else stem


def result_name(metric: str) -> str:
    """The words for a published metric's key."""
    names = {keys[0]: name for found in RESULTS.values() for name, keys in found.items()}
    return names[metric]


class _Run:
    """The metrics files of one recipe's run, compared with what was published."""

    def __init__(
        self, name: str, files: Mapping[str, Mapping[str, Any]], loaded: Loaded | None, root: Path
    ) -> None:
        self.name, self.files = name, files
        self.read_settings = cache(partial(verdicts.read_settings, root, name))  # once a file
        self.recipe, self.recipe_settings = loaded or (None, {})
        self.matched: list[Published] = []

    def rows(self) -> list[Row]:
        """The rows of all files with results."""
        rows: list[Row] = []
        for stem in self.files:
            if kind_of(stem) in RESULTS:
                try:
                    rows += self._file_rows(stem)
                except KeyError as error:
                    path = f"metrics/{self.name}/{stem}.json"
                    raise ReportError(f"{path}: missing {error}") from error
        return rows + list(self._split_rows())

    def _file_rows(self, stem: str) -> Iterator[Row]:
        values = self.files[stem]
        for name, (key, std, interval) in RESULTS[kind_of(stem)].items():
            if key in values:
                yield from self._rows_of(
                    [stem],
                    name,
                    key,
                    values[key],
                    std=values.get(std),
                    ci95_low=values[f"{interval}_low"] if interval else None,
                    ci95_high=values[f"{interval}_high"] if interval else None,
                )

    def _split_rows(self) -> Iterator[Row]:
        """Means over Kinetics-600's splits, if all were measured (std with ddof 0)."""
        stems = [f"zero_shot_{SPLIT_DATASET}_split{i}" for i in range(1, NUM_SPLITS + 1)]
        for metric, key in SPLIT_RESULTS.items():
            values = [self.files[stem][key] for stem in stems if key in self.files.get(stem, {})]
            if len(values) == NUM_SPLITS:
                mean, std = statistics.fmean(values), statistics.pstdev(values)
                name = result_name(metric)
                yield from self._rows_of(stems, name, metric, mean, std=std, dataset=SPLIT_DATASET)

    def _rows_of(
        self,
        stems: list[str],
        name: str,
        key: str,
        value: float,
        *,
        dataset: str = "",
        std: float | None = None,
        ci95_low: float | None = None,
        ci95_high: float | None = None,
    ) -> Iterator[Row]:
        """A result of one metrics file, or the mean over several: once for each number that was
        published for it, or once alone."""
        values = self.files[stems[0]]
        dataset = dataset or values["dataset"]
        sets = self.recipe.video_sets if self.recipe else {}
        videos = [verdicts.compare_videos(self.files[s], sets.get(s, "")) for s in stems]
        same_videos = all(same for _, same in videos)
        used = self.read_settings(stems[0])
        changed = self._modified(used, stems[0])
        settings = used or self.recipe_settings
        environments = dict.fromkeys(self.files[s].get("environment", "") for s in stems)
        whole_set = len(stems) == 1 and key not in FEWER_VIDEOS  # the one of the fingerprint
        counted = "authors_num_videos" if key in FEWER_VIDEOS else "num_videos"
        for row in self._published(dataset, key, stems[0], settings) or [None]:
            expected = None if row else self._expected(dataset, key)
            target = row.value if row else expected and expected.value
            yield Row(
                recipe=self.name,
                dataset=dataset,
                arch=settings.get("model.arch", ""),
                num_frames=settings.get("model.num_segments"),
                result=name,
                metric=key,
                value=value,
                std=std,
                ci95_low=ci95_low,
                ci95_high=ci95_high,
                num_videos=sum(self.files[s][counted] for s in stems),
                num_expected=sum(self.files[s]["num_expected"] for s in stems),
                videos_sha256=values["videos_sha256"] if whole_set else "",
                videos="; ".join(dict.fromkeys(words for words, _ in videos if words)),
                protocol=values["protocol"],
                environment="; ".join(environments),
                published=row and row.value,
                published_std=row and row.std,
                expected=expected and expected.value,
                source=row.source if row else "",
                delta=None if target is None else value - target,
                modified=" ".join(changed or ()),
                verdict=verdicts.verdict(value, row or expected, self.recipe, changed, same_videos)
                + describe_given(used or {}, self.recipe_settings, values),
            )

    def _modified(self, used: dict[str, Any] | None, stem: str) -> list[str] | None:
        """Settings that differ from the recipe's; None = not recorded, or no recipe."""
        if used is None or self.recipe is None:
            return None
        split = verdicts.authors_split(self.recipe, self.recipe_settings)
        return verdicts.modified(used, {**self.recipe_settings, **split}, stem)

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

"""Finished runs as they are compared: results, settings and the predictions of single videos.

Everything is read from files in git: metrics/ and plots/<run>/<set>/{settings.json,videos.csv}.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from clipzoo.data.records import videos_sha256
from clipzoo.files import raise_all, read_rows
from clipzoo.paths import metrics_file, plots_dir, settings_file
from clipzoo.recorded import RAW_COLUMN, SINGLE_COLUMN, VIDEOS_COLUMNS, VIDEOS_FILE
from clipzoo.report.stored import again, load_settings, read_metrics_file
from clipzoo.sections import Section, build


class CompareError(ValueError):
    """Runs that cannot be compared; the message says why and what to run."""


class Compared(Section):
    """The settings of a run that the comparison reads."""

    model_config = ConfigDict(extra="ignore")
    zero_shot: list[str] = Field(alias="data.zero_shot")
    method: str = Field(alias="model.method")
    weights: str = Field(alias="model.weights")
    clips: int = Field(alias="test.clips")
    crops: int = Field(alias="test.crops")
    dense: bool = Field(alias="test.dense")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One set of videos of one run."""

    values: Mapping[str, Any]
    """The values of the metrics file."""
    settings: Mapping[str, Any]
    """The settings of the run, by dotted key."""
    videos: list[tuple[str, str]]
    """Video id and label, in the order of the list."""
    correct: list[bool]
    """Whether the predicted class is the label."""
    single: list[bool] | None
    """Whether the class predicted from a single view is the label; None = the test had one view."""

    def of_a_single_view(self) -> "Measured":
        """The same set, as predicted from a single view."""
        return self if self.single is None else replace(self, correct=self.single)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One finished run."""

    name: str
    test: Measured
    zero_shot: dict[str, Measured]
    """The unseen sets, by dataset."""
    training: Mapping[str, Any]
    """The values of metrics/<run>/train.json."""
    options: Compared
    """The settings that decide how runs are compared."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings by dotted key, which are the same for all sets."""
        return self.test.settings


def read_run(name: str) -> Run:
    """Everything that is compared of one run.

    Raises:
        CompareError: a file is missing or not JSON, or the files are not of one run.
        ListError: a videos.csv or settings.json cannot be read.
        ConfigError: values of a file are missing or wrong.
    """
    test = read_set(name, "test", "top1")
    source = settings_file(name, "test")
    options = build(Compared, test.settings, source, again=again(name))
    stems = {dataset: f"zero_shot_{dataset}" for dataset in options.zero_shot}
    zero_shot = {dataset: read_set(name, stem, "full_top1") for dataset, stem in stems.items()}
    for dataset, measured in zero_shot.items():
        if measured.settings != test.settings:
            raise CompareError(
                f"metrics/{name}/: test.json and zero_shot_{dataset}.json are of two runs, as "
                f"their settings_sha256 say; {again(name)}"
            )
    training = read_metrics_file(metrics_file(name, "train"), name, CompareError)
    return Run(name=name, test=test, zero_shot=zero_shot, training=training, options=options)


def read_set(name: str, stem: str, key: str) -> Measured:
    """One set of videos of a run; its files must belong together.

    Args:
        stem: `test` or `zero_shot_<dataset>`.
        key: the key of the set's top-1 in the metrics file.
    """
    folder, source = plots_dir(name, stem), metrics_file(name, stem)
    values = read_metrics_file(source, name, CompareError)
    if key not in values:
        raise CompareError(
            f"{source}: no {key}; allowed: sets with one label a video and, of "
            "zero_shot.protocols, full"
        )
    settings = load_settings(Path(), name, stem)
    if settings is None:
        raise CompareError(f"{folder}/settings.json: missing, or not of {source}; {again(name)}")
    path = folder / VIDEOS_FILE
    if not path.is_file():
        raise CompareError(f"{path}: there is none; {again(name)}")
    rows = read_rows(path, VIDEOS_COLUMNS, (SINGLE_COLUMN, RAW_COLUMN))
    videos = [(video_id, label) for _, video_id, label, *_ in rows]
    same = videos_sha256([video_id for video_id, _ in videos]) == values["videos_sha256"]
    correct = {key: [label == predicted for _, _, label, predicted, *_ in rows]}
    if "single_view_top1" in values:
        correct["single_view_top1"] = [label == single for _, _, label, _, single, _ in rows]
    for measured, right in correct.items():
        top1 = 100 * sum(right) / max(len(right), 1)
        if not same or not math.isclose(top1, values[measured], abs_tol=1e-6):
            raise CompareError(
                f"{path}: {len(rows)} videos, top-1 {top1:.4f}; {source} has other videos or "
                f"another {measured}, {values[measured]:.4f}; {again(name)}"
            )
    return Measured(
        values=values,
        settings=settings,
        videos=videos,
        correct=correct[key],
        single=correct.get("single_view_top1"),
    )


def check_same_videos(sets: Mapping[str, Measured], stem: str) -> None:
    """Raise CompareError unless all runs, by whose names the sets are, were measured on the same
    videos, in one order; `stem` is the name of the metrics files."""
    (first, expected), *others = sets.items()
    faults = []
    for name, measured in others:
        for key in ("dataset", "videos_sha256"):
            if measured.values[key] != expected.values[key]:
                faults.append(
                    f"{key}: {expected.values[key]} in metrics/{first}/{stem}.json, "
                    f"{measured.values[key]} in metrics/{name}/{stem}.json"
                )
        if measured.videos != expected.videos:
            faults.append(
                f"other videos, labels or order in plots/{first}/{stem}/videos.csv "
                f"({len(expected.videos)} rows) and plots/{name}/{stem}/videos.csv "
                f"({len(measured.videos)} rows)"
            )
    title = f"{stem}: the runs were not measured on the same videos; allowed: runs on one set"
    raise_all(title, faults, CompareError)

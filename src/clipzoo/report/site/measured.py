"""What git keeps of a run besides its metrics: curves, predicted classes and pictures.

A file that is missing becomes a sentence for the page of its run; one that is damaged, too, because
a page must not hide a fault, and a fault in a picture must not hide the results.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from clipzoo.files import ListError, read_rows
from clipzoo.paths import PICTURES, list_file, plots_dir
from clipzoo.recorded import RAW_COLUMN, SINGLE_COLUMN, VIDEOS_COLUMNS, VIDEOS_FILE

CURVES = {
    "loss": "Training loss",
    "val_top1": "Validation top-1 (%)",
    "lr": "Learning rate of the head",
}
"""Names of the curves that `train` logs -> their titles."""
TITLES = {
    "examples": "Examples",
    "saliency": "Weights of the frames",
    "interpolation": "Interpolation with the raw CLIP",
    "weights": "Weight of the video branch",
}
"""Stems of the pictures that are shown, if a set has them -> their titles."""


@dataclass(frozen=True, kw_only=True)
class Video:
    """A row of videos.csv."""

    video_id: str
    label: int
    predicted: int


@dataclass(frozen=True, kw_only=True)
class ClassCount:
    """The videos of one class."""

    class_id: int
    hits: int
    videos: int

    @property
    def accuracy(self) -> float:
        """Percent."""
        return 100 * self.hits / self.videos


@dataclass(kw_only=True)
class SetPlots:
    """What is known of one set of videos of a run, besides its metrics."""

    stem: str
    """The name of its metrics file: `test`, `fused` or `zero_shot_<dataset>`."""
    dataset: str
    videos: list[Video] = field(default_factory=list)
    class_names: list[str] = field(default_factory=list)
    """Names by id; empty where they are not known."""
    pictures: dict[str, Path] = field(default_factory=dict)
    """Titles of `TITLES` -> files."""
    missing: list[str] = field(default_factory=list)
    """Sentences on what cannot be shown, and why."""

    def name_of(self, class_id: int) -> str:
        """The name of a class, or its number where names are not known."""
        names = self.class_names
        return names[class_id] if class_id < len(names) else f"class {class_id}"

    def counts(self) -> list[ClassCount]:
        """The classes with videos, the least accurate one first."""
        videos = Counter(video.label for video in self.videos)
        hits = Counter(video.label for video in self.videos if video.label == video.predicted)
        counts = [ClassCount(class_id=k, hits=hits[k], videos=videos[k]) for k in sorted(videos)]
        return sorted(counts, key=lambda count: count.accuracy)

    def wrong(self) -> list[Video]:
        """The videos of which another class is predicted, in the order of the list."""
        return [video for video in self.videos if video.label != video.predicted]

    def confusions(self) -> list[tuple[int, int, int]]:
        """(true class, predicted class, videos) of each wrong pair, the most frequent one first."""
        pairs = Counter((video.label, video.predicted) for video in self.wrong())
        ordered = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
        return [(label, predicted, count) for (label, predicted), count in ordered]


def read_set(root: Path, run: str, stem: str, dataset: str) -> SetPlots:
    """The plots of one set of videos; what cannot be read is in `missing`.

    Args:
        root: the repository.
        stem, dataset: as in `SetPlots`.
    """
    plots = SetPlots(stem=stem, dataset=dataset)
    folder = root / plots_dir(run, stem)
    if stem != "fused":  # which has no videos.csv: it is a sum of predictions of other runs
        _read_videos(plots, folder / VIDEOS_FILE, root)
    for name, title in TITLES.items():
        path = folder / PICTURES / f"{name}.png"
        if path.is_file():
            plots.pictures[title] = path
    if stem != "fused" and TITLES["examples"] not in plots.pictures:
        plots.missing.append(
            f"Examples: {_relative(folder, root)}/{PICTURES}/ has none. Runs of earlier "
            "versions drew none for a zero-shot set, and none are drawn for several labels a video "
            "or where the method reads sentences."
        )
    return plots


def _read_videos(plots: SetPlots, path: Path, root: Path) -> None:
    """Fill `videos` and `class_names`."""
    name = _relative(path, root)
    if not path.is_file():
        plots.missing.append(
            f"Classes and wrong videos: there is no {name}. It is not written for several labels a "
            "video."
        )
        return
    try:
        rows = read_rows(path, VIDEOS_COLUMNS, (SINGLE_COLUMN, RAW_COLUMN))
        plots.videos = [
            Video(video_id=video_id, label=_class_id(label), predicted=_class_id(predicted))
            for _, video_id, label, predicted, *_ in rows
        ]
    except ValueError as error:
        plots.missing.append(f"Classes and wrong videos: {name} is damaged: {error}")
        return
    _read_class_names(plots, root / list_file(plots.dataset, "labels"), root)


def _class_id(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ListError(f"found {text!r}; allowed: the id of a class")
    return int(text)


def _read_class_names(plots: SetPlots, path: Path, root: Path) -> None:
    name = _relative(path, root)
    most = max((max(v.label, v.predicted) for v in plots.videos), default=-1)
    try:
        rows = read_rows(path, ("id", "name"))
        ids = [_class_id(class_id) for _, class_id, _ in rows]
        if ids != list(range(len(ids))) or most >= len(ids):
            raise ListError(f"{len(ids)} classes, without some of the ids 0 to {most}")
        plots.class_names = [class_name for *_, class_name in rows]
    except ValueError as error:
        plots.missing.append(f"Names of classes, which {name} has: {error}")


def read_curves(root: Path, run: str) -> tuple[dict[str, list[tuple[int, float]]], list[str]]:
    """The curves of a training, (step, value) by name of `CURVES`; and what cannot be shown."""
    folder = root / plots_dir(run, "train") / "plots/metrics"
    curves: dict[str, list[tuple[int, float]]] = {}
    missing = []
    for name, title in CURVES.items():
        path = folder / f"{name}.tsv"
        try:
            curves[name] = _read_curve(path, name)
        except FileNotFoundError:
            missing.append(f"{title}: there is no {_relative(path, root)}.")
        except (OSError, ValueError) as error:
            missing.append(f"{title}: {_relative(path, root)} is damaged: {error}")
    return curves, missing


def _read_curve(path: Path, name: str) -> list[tuple[int, float]]:
    """The points of a file that dvclive wrote: `step` and a value, separated by a tab."""
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    columns = header.split("\t")
    places = columns.index("step"), columns.index(name)
    cells = [line.split("\t") for line in lines]
    return [(int(row[places[0]]), float(row[places[1]])) for row in cells]


def thinned(points: Sequence[tuple[int, float]], most: int) -> list[tuple[int, float]]:
    """At most `most` points of a curve: the mean of each of as many equal runs of points."""
    if len(points) <= most:
        return list(points)
    bounds = [len(points) * i // most for i in range(most + 1)]
    parts = [points[a:b] for a, b in pairwise(bounds)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()

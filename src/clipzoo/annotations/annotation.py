"""The content of official annotation files, independent of `clipzoo.annotations.formats`."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipzoo.data.spec import DatasetSpec
from clipzoo.files import ListError, read_json, read_text

MAX_SECONDS = 10_000_000
"""Over 100 days: a segment that ends later is a broken line."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """One annotated video, or one segment of it."""

    where: str
    """`file:line`, `file: key`, or the dataset's folder."""
    video_id: str
    """The annotated id, without extension; it may not include the folder."""
    label: int
    """A position in `Annotations.class_names`; -1 = none (multi-label)."""
    segment: tuple[float, float] | None = None
    """Start and end (seconds), which may be equal; None = the whole video."""
    labels: tuple[int, ...] | None = None
    """All labels of a video of a multi-label set, ascending; may be empty. `label` is then the
    first of them, or -1."""

    @property
    def all_labels(self) -> tuple[int, ...]:
        """`labels`, or the single label."""
        return (self.label,) if self.labels is None else self.labels


@dataclass
class Annotations:
    """The content of a dataset's annotation files."""

    class_names: list[str]
    official_names: list[str] = field(default_factory=list)
    """The names of the classes in annotation files and folders, where a label file gives others;
    empty = `class_names`."""
    numbered: bool = False
    """The files number the classes themselves, so other names can be given by position."""
    train: list[Annotation] = field(default_factory=list)
    val: list[Annotation] = field(default_factory=list)
    whole: list[Annotation] = field(default_factory=list)
    """All videos of the dataset, untrimmed, if these are not train + val; else empty."""
    splits: dict[int, list[Annotation]] = field(default_factory=dict)
    """Test videos of each official split; empty if there is only one."""
    faults: list[str] = field(default_factory=list)
    """A message for each invalid line: `file:line: what was found; what is allowed`."""
    notes: list[str] = field(default_factory=list)
    """What was skipped on purpose."""

    def parts(self) -> list[list[Annotation]]:
        """All lists of annotations."""
        return [self.train, self.val, self.whole, *self.splits.values()]


@dataclass(frozen=True)
class Source:
    """What a parser reads."""

    folder: Path
    """data/annotations/<dataset>."""
    spec: DatasetSpec
    split: int
    """The official split, counted from 1."""
    seed: int
    video_ids: Sequence[str]
    """The ids in the manifest, for formats in which the folders are the annotation."""
    trained_on: bool
    """Whether the run trains on the dataset; if not, it only evaluates on it."""


def without_extension(path: str) -> str:
    return re.sub(r"\.[A-Za-z0-9]{2,4}$", "", path)


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """(`file:line`, text) of the lines that are not empty; ListError for an unreadable file."""
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip():
            yield f"{path}:{number}", line.strip()


def read_classes(path: Path, number: str, first: int) -> tuple[list[str], list[str]]:
    """The class names in lines like `1 ApplyEyeMakeup`, and a message for each line that is not.

    Numbers count from `first`, in the format `number`; no name may appear twice.
    """
    names, faults = [], []
    for where, line in read_lines(path):
        found, _, name = line.partition(" ")
        expected = number.format(first + len(names))
        if found != expected or not name.strip() or name.strip() in names:
            allowed = f"'{expected} NAME' with a new name, ids in order"
            faults.append(f"{where}: found {line!r}; allowed: {allowed}")
        names.append(name.strip())
    return names, faults


def read_mapping(path: Path) -> dict[str, Any]:
    """The JSON object in a file; ListError if the file cannot be read or has something else."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise ListError(f"{path}: found a {type(value).__name__}; allowed: an object of videos")
    return value


def read_instance(value: object) -> tuple[str, tuple[float, float]] | None:
    """Label and segment of `{"label": NAME, "segment": [START, END]}`, which is in seconds; None
    if the name is empty, or unless 0 <= START <= END.

    ActivityNet's json has an instance of [0, 0], which the authors' list has as one frame.
    """
    label, segment = (
        value.get(key) if isinstance(value, dict) else None for key in ("label", "segment")
    )
    if isinstance(label, str) and label.strip() and isinstance(segment, list) and len(segment) == 2:
        start, end = (x if isinstance(x, (int, float)) else -1.0 for x in segment)
        if 0 <= start <= end < MAX_SECONDS:
            return label, (float(start), float(end))
    return None

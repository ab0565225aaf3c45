"""List files: the videos of a set, their lengths and labels; and few-shot picks.

`lists/<dataset>/{train,val}.csv` have the columns video_id, num_frames, label and optionally
start_frame (several segments of one video, which may overlap or be equal) and labels
(`;`-separated, for multi-label datasets; label is then the first of them, or -1 if there is none).
`labels.csv` has id, name; a label file may have the column official (`read_official_names`).
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipzoo.files import JOINERS, ListError, csv_lines, raise_all, read_rows, write_csv
from clipzoo.paths import list_file

COLUMNS = ("video_id", "num_frames", "label")
OPTIONAL_COLUMNS = ("start_frame", "labels")
SPLIT_COLUMNS = ("video_id", "split")
"""The columns of splits.csv, the test videos of each official split."""
LABEL_COLUMNS, OPTIONAL_LABEL_COLUMNS = ("id", "name"), ("official",)
"""The columns of labels.csv and of label files; see `read_official_names`."""
MISSING_COLUMNS = ("video_id", "set", "reason")
"""The columns of missing.csv, the videos that are annotated but not stored."""
MAX_FRAMES = 10_000_000
"""Over four days at 25 frames a second: anything larger is a broken line."""


@dataclass(frozen=True, slots=True)
class Record:
    """One labeled video, or one segment of it."""

    video_id: str
    num_frames: int
    """The length of the video, or of the segment that begins at `start_frame`."""
    label: int
    start_frame: int = 0
    labels: tuple[int, ...] | None = None
    """All labels, in multi-label datasets; may be empty."""


def check_video_id(video_id: str) -> str | None:
    """Why an id is not a valid path below a dataset's root; None if it is one."""
    parts = video_id.replace("\\", "/").split("/")
    if video_id.startswith(("/", "\\")) or (len(parts[0]) == 2 and parts[0][1] == ":"):
        return f"absolute path {video_id!r}; allowed: paths relative to the dataset's root"
    if ".." in parts:
        return f"path {video_id!r} leaves the dataset's root; '..' is not allowed"
    if not video_id or any(part in ("", ".") for part in parts) or not video_id.isprintable():
        return f"video id {video_id!r}; allowed: printable, not empty, no empty parts"
    return None


def read_list(path: str | Path, num_classes: int) -> list[Record]:
    """Read and check a list file, whose labels are 0 to `num_classes` - 1.

    Raises:
        ListError: names every line with a wrong number of fields, a label out of range, a number of
            frames that is not a whole number from 1 to MAX_FRAMES, a path that is absolute or
            leaves the root, or a repeated video in a list without start_frame.
    """
    path = Path(path)
    header = next((fields for _, fields in csv_lines(path)), [])
    with_labels, segments = "labels" in header, "start_frame" in header
    records, faults, seen = [], [], {}
    for line, *values in read_rows(path, COLUMNS, OPTIONAL_COLUMNS):
        try:
            record = _record(values, num_classes, with_labels)
            if record.video_id in seen and not segments:
                raise ValueError(
                    f"video {record.video_id!r} is in line {seen[record.video_id]} too"
                )
            seen[record.video_id] = line
            records.append(record)
        except ValueError as error:
            faults.append(f"{path}:{line}: {error}")
    raise_all(f"{path}: {len(faults)} bad lines", faults)
    return records


def _record(values: list[str], num_classes: int, with_labels: bool) -> Record:
    video_id, num_frames, label, start_frame, labels = values
    if fault := check_video_id(video_id):
        raise ValueError(fault)
    return Record(
        video_id,
        _int(num_frames, "num_frames", 1, MAX_FRAMES),
        # -1 is the label of a multi-label video without labels.
        _int(label, "label", -1 if with_labels and not labels else 0, num_classes - 1),
        _int(start_frame or "0", "start_frame", 0, MAX_FRAMES),
        tuple(_int(x, "labels", 0, num_classes - 1) for x in labels.split(";") if x)
        if with_labels
        else None,
    )


def _int(text: str, column: str, low: int, high: int) -> int:
    # int() would also take 1_0, and digits of other scripts.
    value = int(text) if re.fullmatch(r" *[-+]?[0-9]{1,18} *", text) else low - 1
    if not low <= value <= high:
        raise ValueError(
            f"{column}: found {text[:100]!r}; allowed: a whole number from {low} to {high}"
        )
    return value


def write_list(records: Iterable[Record], path: str | Path) -> None:
    """Write a list file for `read_list`; it has only those optional columns that are used."""
    records = list(records)
    columns = [*COLUMNS]
    if any(r.start_frame for r in records) or len({r.video_id for r in records}) < len(records):
        columns.append("start_frame")
    if any(r.labels is not None for r in records):
        columns.append("labels")
    rows = []
    for r in records:
        row = [getattr(r, name) for name in columns]
        if columns[-1] == "labels":
            row[-1] = ";".join(map(str, r.labels or ()))
        rows.append(row)
    write_csv(columns, rows, path)


def missing_path(dataset: str) -> Path:
    """The list of a dataset's videos that are annotated but not stored."""
    return list_file(dataset, "missing")


def read_missing(dataset: str) -> list[tuple[str, str]]:
    """(video_id, set) of each of these videos; empty if there is no such list, and ListError if it
    cannot be read or has bad lines."""
    path = missing_path(dataset)
    rows = read_rows(path, MISSING_COLUMNS) if path.is_file() else []
    return [(video_id, name) for _, video_id, name, _ in rows]


def read_labels(path: str | Path) -> list[str]:
    """The class names in the order of their ids.

    Raises:
        ListError: the ids are not 0, 1, 2, ... in order, or the names are at fault
            (`class_name_faults`).
    """
    path = Path(path)
    rows = read_rows(path, LABEL_COLUMNS, OPTIONAL_LABEL_COLUMNS)
    faults = [
        f"{path}:{line}: found id {number!r}; allowed: {position}, ids in order"
        for position, (line, number, *_) in enumerate(rows)
        if number != str(position)
    ]
    names = [row[2] for row in rows]
    faults += class_name_faults(names, [f"{path}:{row[0]}" for row in rows])
    if not rows:
        faults.append(f"{path}: there are no classes")
    raise_all(f"{path}: wrong class names", faults)
    return names


def read_official_names(path: str | Path) -> list[str]:
    """The names that annotation files and folders give to the classes of `read_labels`.

    They are the names themselves, but for those with a value in the column `official`: the videos
    of that class get another one's name, as some authors had it.
    """
    rows = read_rows(Path(path), LABEL_COLUMNS, OPTIONAL_LABEL_COLUMNS)
    return [official or name for _, _, name, official in rows]


def class_name_faults(names: Sequence[str], places: Sequence[str]) -> list[str]:
    """Messages on names that are empty, have characters that nobody sees, or differ from others
    only in blanks. `places` says where each name stands: `file:line` or a file."""
    faults = []
    seen: dict[str, tuple[str, str]] = {}
    for name, where in zip(names, places, strict=True):
        hidden = [x for x in name if not x.isprintable() and x not in JOINERS]
        if not name.strip():
            faults.append(f"{where}: the class name is empty")
            continue
        if hidden:
            faults.append(
                f"{where}: class name {name!r} has the character U+{ord(hidden[0]):04X}, which "
                "nobody sees; allowed: visible characters and spaces"
            )
        # One letter may be written with one code point or several; NFC makes them equal.
        key = "".join(unicodedata.normalize("NFC", name).split())
        if key in seen:
            other, place = seen[key]
            differ = f"differs from {other!r} only in blanks"
            differ = "appears more than once" if other == name else differ
            faults.append(f"{where}: class name {name!r} {differ} ({place}); rename one of them")
        seen[key] = name, where
    return faults


def write_labels(names: Sequence[str], path: str | Path) -> None:
    """Write class names; their positions are the ids."""
    write_csv(("id", "name"), enumerate(names), path)


def videos_sha256(ids: Iterable[str]) -> str:
    """A fingerprint of a set of videos: SHA-256 of the sorted ids, joined by newlines, in UTF-8.

    Only the part of each id after the last `/` counts, so that the folders on a machine do not
    matter and published sets are recognized (reference/video_sets.csv).
    """
    names = sorted(video_id.rsplit("/", 1)[-1] for video_id in ids)
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def pick_shots(records: Sequence[Record], shots: int, seed: int) -> list[Record]:
    """`shots` random records of every class, in the order of the list; ListError if a class has
    fewer.

    Each class has a generator of its own, with the seed (seed, label), so that its picks do not
    change when another class has more or fewer videos.
    """
    positions: dict[int, list[int]] = {}
    for position, record in enumerate(records):
        positions.setdefault(record.label, []).append(position)
    few = [label for label, members in positions.items() if len(members) < shots]
    if few:
        raise ListError(f"{shots} shots: classes {sorted(few)} have fewer training videos")
    picked = []
    for label, members in positions.items():
        rng = np.random.default_rng([seed, label])
        picked += [members[i] for i in rng.choice(len(members), shots, replace=False)]
    return [records[position] for position in sorted(picked)]

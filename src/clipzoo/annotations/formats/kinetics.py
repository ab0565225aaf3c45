"""Kinetics-400, -600 and -700: csv files, or the json files of some releases."""

import re
from collections.abc import Iterator
from pathlib import Path

from clipzoo.annotations.annotation import (
    Annotation,
    Annotations,
    Source,
    read_instance,
    read_mapping,
)
from clipzoo.files import ListError, read_rows

COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
TRAIN_FILES = ("train.csv", "train.json")
VAL_FILES = ("val.csv", "validate.csv", "val.json", "validate.json")
TEST_FILES = ("test.csv", "test.json")

Row = tuple[str, str, str]
"""`file:line`, label, video id."""


def parse_kinetics(source: Source) -> Annotations:
    """train.csv, and one of val.csv, validate.csv and test.csv.

    test.csv is read if it is the only one, or for `evaluate_on: test`.

    The columns are label, youtube_id, time_start, time_end, split. The json files of some releases
    are `{youtube_id: {"annotations": {"label": ..., "segment": [start, end]}, ...}}`. Videos are
    named `<youtube_id>_<start>_<end>` with six digits for the times (seconds), with or without
    folders of their classes. A dataset that is only evaluated on needs no train.csv. Class ids are
    the alphabetical order of all labels.
    """
    val_files = TEST_FILES if source.spec.evaluate_on == "test" else (*VAL_FILES, *TEST_FILES)
    result = Annotations([])
    paths = {"val": _first(source.folder, val_files)}
    if not source.spec.evaluation_only:
        paths["train"] = _first(source.folder, TRAIN_FILES)
    rows: dict[str, list[Row]] = {"train": [], "val": []}
    for kind, path in paths.items():
        if path is not None:
            read = _read_json if path.suffix == ".json" else _read_csv
            rows[kind] = list(read(path, result.faults))
        elif kind == "val" or source.trained_on:
            names = TRAIN_FILES if kind == "train" else val_files
            raise ListError(f"{source.folder}: has no {' or '.join(names)}")
    result.class_names = sorted({label for part in rows.values() for _, label, _ in part})
    number = {name: i for i, name in enumerate(result.class_names)}
    result.train = [Annotation(where, id_, number[label]) for where, label, id_ in rows["train"]]
    result.val = [Annotation(where, id_, number[label]) for where, label, id_ in rows["val"]]
    return result


def _first(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((path for name in names if (path := folder / name).exists()), None)


def _read_csv(path: Path, faults: list[str]) -> Iterator[Row]:
    for line, label, youtube_id, start, end, *_ in read_rows(path, COLUMNS, ("is_cc",)):
        where = f"{path}:{line}"
        known = all(re.fullmatch(r"[0-9]{1,6}", time) for time in (start, end))
        if not known or int(end) < int(start):
            times = f"time_start {start[:100]!r}, time_end {end[:100]!r}"
            faults.append(f"{where}: found {times}; allowed: seconds, the end not before the start")
        else:
            yield where, label, _video_id(youtube_id, int(start), int(end))


def _read_json(path: Path, faults: list[str]) -> Iterator[Row]:
    for youtube_id, entry in read_mapping(path).items():
        where = f"{path}: {youtube_id!r}"
        found = read_instance(entry.get("annotations") if isinstance(entry, dict) else None)
        if found is None:
            allowed = '{"annotations": {"label": NAME, "segment": [START, END]}, ...}'
            faults.append(f"{where}: found {str(entry)[:100]}; allowed: {allowed}")
        else:
            label, (start, end) = found
            yield where, label, _video_id(youtube_id, round(start), round(end))


def _video_id(youtube_id: str, start: int, end: int) -> str:
    return f"{youtube_id}_{start:06d}_{end:06d}"

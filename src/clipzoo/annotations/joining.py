"""Annotations + frame index -> lists/<dataset>/; no annotated video is dropped silently."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from clipzoo.annotations.annotation import Annotation, Annotations, Source
from clipzoo.annotations.class_names import name_classes
from clipzoo.annotations.folders import check_folders
from clipzoo.annotations.formats import PARSERS
from clipzoo.annotations.lookup import Lookup, describe_near
from clipzoo.annotations.matching import Finder, Stored
from clipzoo.config import SHOTS, Params
from clipzoo.data.index import index_path, read_failures, read_index
from clipzoo.data.ledger import (
    ABSENT,
    SHORT,
    accept_command,
    ledger_path,
    read_ledger,
    reason_kind,
    ways_out,
)
from clipzoo.data.records import (
    MISSING_COLUMNS,
    SPLIT_COLUMNS,
    Record,
    check_video_id,
    class_name_faults,
    pick_shots,
    write_labels,
    write_list,
)
from clipzoo.data.spec import ANNOTATION_DIR, DatasetSpec, load_spec
from clipzoo.files import few, raise_all, write_csv
from clipzoo.paths import LISTS_DIR, STATE_DIR

MISSING_STATE_DIR = STATE_DIR / "build_lists"


@dataclass(frozen=True)
class ListSummary:
    """What build_lists wrote."""

    num_classes: int
    num_train: int
    num_val: int
    missing: list[list[str]]
    """[video_id, set, reason] for each annotated video without frames."""
    notes: list[str]
    """Remarks to print, none of them an error."""


def build_lists(params: Params, dataset: str) -> ListSummary:
    """Write train.csv, val.csv, labels.csv, train_Nshot.csv and, if needed, three other lists.

    whole.csv has all untrimmed videos of a dataset, if they are not train + val; splits.csv has the
    test videos of several official splits; missing.csv has the videos that are annotated but not
    stored. A dataset without a training split has no train.csv. Few-shot picks are made among the
    videos with at least `data.min_frames` frames; if a class has too few, there is no such list.

    Raises:
        ListError: lists every invalid annotation line, every duplicate, every empty class, every
            unexpected class name or number of videos, or the annotated videos without frames that
            are not in the ledger of the copy.
        ConfigError, StoreError: the dataset's file or the index cannot be read.
    """
    spec = load_spec(dataset)
    annotations, find = _open(params, dataset, spec)
    missing: dict[str, list[str]] = {}
    # A video that is missing from several sets counts for the first of them.
    val, train, whole = (
        find.records(getattr(annotations, kind), kind, missing)
        for kind in ("val", "train", "whole")
    )
    splits = {n: find.records(part, "whole", missing) for n, part in annotations.splits.items()}
    total = len({a.video_id for part in annotations.parts() for a in part})
    ledger, lost = read_ledger(dataset), list(missing.values())
    _check_missing(lost, ledger, dataset, spec, total, find)
    names, directory = annotations.class_names, LISTS_DIR / dataset
    write_labels(names, directory / "labels.csv")
    write_list(val, directory / "val.csv")
    notes = annotations.notes + _write_train(train, names, directory, params)
    notes += _write_others(whole, splits, lost, directory)
    notes += find.segment_notes(dataset)
    used = {label for video in annotations.val for label in video.all_labels}
    if unused := [name for i, name in enumerate(names) if i not in used]:
        notes.append(f"{len(unused)} classes have no val videos: {', '.join(unused[:10])}")
    there = Lookup(find.stored.keys() - missing.keys(), spec)
    if again := [video_id for video_id in ledger if there.copies(video_id)]:
        notes.append(
            f"{len(again)} videos in {ledger_path(dataset)} are there again ({few(again)}) and are "
            f"used; {accept_command(dataset)} takes them out of it"
        )
    notes += find.choice_notes()
    if spec.num_classes and (spec.num_train or spec.num_val):
        notes.append(f"the numbers of classes and videos are those of datasets/{dataset}.yaml")
    return ListSummary(len(names), len(train), len(val), lost, notes)


def read_annotations(
    params: Params, dataset: str, spec: DatasetSpec, video_ids: list[str]
) -> Annotations:
    """The content of a dataset's annotation files, with the chosen names of its classes.

    Args:
        video_ids: ids of the files, for formats in which the folders are the annotation.

    Raises:
        ListError: as `build_lists`.
        ConfigError: the split or the label file does not exist.
    """
    trained_on = dataset == params.data.dataset and not spec.evaluation_only
    source = Source(
        folder=ANNOTATION_DIR / dataset,
        spec=spec,
        split=params.data.split,
        seed=params.seed if spec.format == "folder" else 0,  # no other format draws videos
        video_ids=video_ids,
        trained_on=trained_on,
    )
    annotations = PARSERS[spec.format](source)
    faults = annotations.faults
    raise_all(f"{source.folder}: {len(faults)} faults in the annotations", faults)
    name_classes(annotations, params, dataset, spec, source.folder)
    faults = _check(annotations, spec, trained_on, params.data.split)
    raise_all(f"{source.folder}: {len(faults)} faults in the annotations", faults)
    check_folders(annotations, video_ids, spec, dataset)
    return annotations


def short_videos(params: Params, dataset: str) -> dict[str, str]:
    """Stored videos that do not show some of their annotated segments: {id: reason}.

    Reasons are those of the ledger. Empty before the videos are extracted.

    Raises:
        ListError, ConfigError, StoreError: as `build_lists`.
    """
    if not index_path(dataset).exists():
        return {}
    annotations, find = _open(params, dataset, load_spec(dataset))
    missing: dict[str, list[str]] = {}
    find.records(annotations.train, "train", missing)
    return {id_: reason for id_, _, reason in missing.values() if reason_kind(reason) == SHORT}


def _open(params: Params, dataset: str, spec: DatasetSpec) -> tuple[Annotations, Finder]:
    """A dataset's annotations, and what finds their videos in its index."""
    path = index_path(dataset)
    columns = ["video_id", "num_frames", "fps", "start_seconds", "uneven_seconds"]
    ids, *values = (column.to_pylist() for column in read_index(path, columns).columns)
    stored = {id_: Stored(*row) for id_, *row in zip(ids, *values, strict=True)}
    failures = read_failures(path)
    annotations = read_annotations(params, dataset, spec, sorted([*stored, *failures]))
    return annotations, Finder(stored, failures, spec)


def _check(annotations: Annotations, spec: DatasetSpec, trained_on: bool, split: int) -> list[str]:
    """Faults of a dataset's annotations as a whole."""
    names = annotations.class_names
    faults = class_name_faults(names, [f"class {label}" for label in range(len(names))])
    # A video in both lists, or twice in one, is a fault; `whole` and `splits` repeat them.
    faults += _check_ids([*annotations.train, *annotations.val]) + _check_ids(annotations.whole)
    needs_train = trained_on and not (spec.format == "folder" and spec.val_fraction == 1)
    sets = [("train", annotations.train)] if annotations.train or needs_train else []
    if spec.format != "folder":
        sets.append(("val", annotations.val))
    for kind, videos in sets:
        used = {label for video in videos for label in video.all_labels}
        empty = [name for i, name in enumerate(names) if i not in used]
        faults += [f"class {name!r} has no {kind} videos" for name in empty]
    if not annotations.val:
        faults.append(
            "there are no val videos; a class needs two videos, or use train/ and val/ folders"
        )
    numbers = [
        ("num_classes", len(names), spec.num_classes),
        ("num_val", len(annotations.val), spec.expected("val", split)),
        ("num_whole", len(annotations.whole), spec.num_whole if annotations.whole else None),
    ]
    if annotations.train or spec.format == "folder":  # else the dataset is only evaluated on
        numbers.insert(1, ("num_train", len(annotations.train), spec.expected("train", split)))
    numbers += [
        (f"num_val of split {n}", len(part), spec.expected("val", n))
        for n, part in annotations.splits.items()
        if n != split
    ]
    return faults + [
        f"{name}: found {count}; datasets/*.yaml says {expected} ({count - expected:+d}): other "
        "annotation files?"
        for name, count, expected in numbers
        if expected is not None and expected != count
    ]


def _check_ids(annotations: list[Annotation]) -> list[str]:
    faults: list[str] = []
    seen: dict[str, Annotation] = {}
    for annotation in annotations:
        fault = check_video_id(annotation.video_id)
        other = seen.setdefault(annotation.video_id, annotation)
        segments = other.segment is not None and annotation.segment is not None
        if fault:
            faults.append(f"{annotation.where}: {fault}")
        elif other.where != annotation.where and not segments:
            faults.append(f"{annotation.where}: {annotation.video_id!r} is in {other.where} too")
    return faults


def _check_missing(
    missing: list[list[str]],
    ledger: dict[str, str],
    dataset: str,
    spec: DatasetSpec,
    total: int,
    find: Finder,
) -> None:
    """Refuse missing videos that are not in the ledger, and write all their ids to a file.

    The others get the reason of the ledger where it is more exact, such as `absent: private`.
    """
    accepted = Lookup(ledger, spec)
    noted = [[ledger[copy] for copy in accepted.copies(row[0])] for row in missing]
    for row, reasons in zip(missing, noted, strict=True):
        if row[2] == ABSENT and reasons and reasons[0].startswith("absent"):
            row[2] = reasons[0]
    missing = [row for row, reasons in zip(missing, noted, strict=True) if not reasons]
    if not missing:
        return
    path = MISSING_STATE_DIR / f"{dataset}_missing.csv"
    write_csv(MISSING_COLUMNS, missing, path)
    sets = Counter(kind for _, kind, _ in missing)
    parts = ", ".join(f"{count} {kind}" for kind, count in sets.items())
    raise_all(
        f"{len(missing)} of {total} annotated videos of {dataset} have no frames and are not "
        f"in {ledger_path(dataset)} ({parts}): {ways_out(dataset)}. All are in {path}:",
        [
            f"{video_id} ({kind}): {reason}"
            + (describe_near(find.lookup.near(video_id)) if reason == ABSENT else "")
            for video_id, kind, reason in missing
        ],
    )


def _write_train(
    records: list[Record], names: list[str], directory: Path, params: Params
) -> list[str]:
    """Write train.csv and the few-shot lists, if any; return notes on lists not written."""
    for path in directory.glob("train*.csv"):
        path.unlink()
    if not records:
        return []
    write_list(records, directory / "train.csv")
    notes = []
    long_enough = [r for r in records if r.num_frames >= params.data.min_frames]
    counts = Counter(record.label for record in long_enough)
    trained = sorted({record.label for record in records})
    for shots in SHOTS:
        path = directory / f"train_{shots}shot.csv"
        short = [f"{names[label]} ({counts[label]})" for label in trained if counts[label] < shots]
        if short:
            more = f" and {len(short) - 5} more" if len(short) > 5 else ""
            notes.append(
                f"no {path.name}: {len(short)} classes have fewer than {shots} training videos "
                f"(data.min_frames: {params.data.min_frames}): {', '.join(short[:5])}{more}"
            )
            continue
        write_list(pick_shots(long_enough, shots, params.seed), path)
    return notes


def _write_others(
    whole: list[Record],
    splits: dict[int, list[Record]],
    missing: list[list[str]],
    directory: Path,
) -> list[str]:
    """Write whole.csv, splits.csv and missing.csv if they are needed; return notes on them."""
    notes = []
    for name in ("whole.csv", "splits.csv", "missing.csv"):
        (directory / name).unlink(missing_ok=True)
    if whole:
        write_list(whole, directory / "whole.csv")
        notes.append(f"{len(whole)} videos in whole.csv")
    if splits:
        rows = [(record.video_id, n) for n, part in sorted(splits.items()) for record in part]
        write_csv(SPLIT_COLUMNS, rows, directory / "splits.csv")
        numbers = ", ".join(f"{len(part)} of split {n}" for n, part in sorted(splits.items()))
        notes.append(f"test videos in splits.csv: {numbers}")
    if missing:
        write_csv(MISSING_COLUMNS, missing, directory / "missing.csv")
    return notes

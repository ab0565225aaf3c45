"""Annotations + frame index -> lists/<dataset>/; no annotated video is dropped silently."""

from collections import Counter
from collections.abc import Iterable
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
from clipzoo.files import ListError, few, raise_all, write_csv
from clipzoo.paths import LISTS_DIR, STATE_DIR

MISSING_STATE_DIR = STATE_DIR / "build_lists"


@dataclass(frozen=True)
class ListSummary:
    """What build_lists wrote."""

    num_classes: int
    num_train: int
    num_val: int
    missing: list[list[str]]
    """[video_id, set, reason] of each annotated video without frames."""
    notes: list[str]
    """Remarks to print that are not errors."""


def build_lists(params: Params, dataset: str) -> ListSummary:
    """Write train.csv, val.csv, labels.csv, train_Nshot.csv and, if needed, the lists below.

    whole.csv has all untrimmed videos of a dataset, if they are not train + val; splits.csv the
    test videos of several official splits; missing.csv the videos that are annotated but not
    stored. A dataset without a training split has no train.csv. Few-shot picks are made among the
    videos with at least `data.min_frames` frames; if a class has too few, there is no list.

    Raises:
        ListError: lists every invalid annotation line, every duplicate, every empty class, every
            unexpected class name or number of videos, or the annotated videos without frames that
            are not in the ledger of the copy.
        ConfigError, StoreError: the dataset's file or the index cannot be read.
    """
    spec = load_spec(dataset)
    stored, failures = _read_stored(dataset)
    annotations = read_annotations(params, dataset, spec, sorted([*stored, *failures]))
    missing: dict[str, list[str]] = {}
    find = Finder(stored, failures, spec)
    records = {
        kind: find.records(getattr(annotations, kind), kind, missing)
        for kind in ("val", "train", "whole")  # a missing video counts for the first of them
    }
    splits = {n: find.records(part, "whole", missing) for n, part in annotations.splits.items()}
    total = len({a.video_id for part in annotations.parts() for a in part})
    ledger = read_ledger(dataset)
    _check_missing(list(missing.values()), ledger, dataset, spec, total, find)
    _take_reasons(missing.values(), ledger, spec)
    directory = LISTS_DIR / dataset
    write_labels(annotations.class_names, directory / "labels.csv")
    write_list(records["val"], directory / "val.csv")
    notes = annotations.notes + _write_train(
        records["train"], annotations.class_names, directory, params
    )
    _write_others(records["whole"], splits, list(missing.values()), directory)
    notes += _segment_notes(find, dataset)
    notes += _describe(annotations, records["whole"], splits)
    there = stored.keys() - missing.keys()
    notes += _ledger_notes(ledger, there, spec, dataset) + _choice_notes(find.chosen, failures)
    num_train, num_val = len(records["train"]), len(records["val"])
    if spec.num_classes and (spec.num_train or spec.num_val):
        notes.append(f"the numbers of classes and videos are those of datasets/{dataset}.yaml")
    num_classes = len(annotations.class_names)
    return ListSummary(num_classes, num_train, num_val, list(missing.values()), notes)


def read_annotations(
    params: Params, dataset: str, spec: DatasetSpec, video_ids: list[str]
) -> Annotations:
    """The content of a dataset's annotation files, with the chosen names of its classes.

    Args:
        params: `data.dataset`, `data.class_names` and `data.split` are read, and for `format:
            folder` the seed.
        video_ids: of the files, for formats in which the folders are the annotation.

    Raises:
        ListError: as `build_lists`.
        ConfigError: the split or the label file does not exist.
    """
    trained_on = dataset == params.data.dataset and not spec.evaluation_only
    source = Source(
        folder=ANNOTATION_DIR / dataset,
        spec=spec,
        split=params.data.split,
        seed=params.seed if spec.format == "folder" else 0,
        video_ids=video_ids,
        trained_on=trained_on,
    )
    annotations = PARSERS[spec.format](source)
    raise_all(
        f"{source.folder}: {len(annotations.faults)} faults in the annotations", annotations.faults
    )
    name_classes(annotations, params, dataset, spec, source.folder)
    faults = check(annotations, spec, trained_on, params.data.split)
    raise_all(f"{source.folder}: {len(faults)} faults in the annotations", faults)
    check_folders(annotations, video_ids, spec, dataset)
    return annotations


def short_videos(params: Params, dataset: str) -> dict[str, str]:
    """Stored videos of which annotated segments are not in the picture, as in the ledger.

    Returns:
        {id: reason}; empty before the videos are extracted.

    Raises:
        ListError, ConfigError, StoreError: as `build_lists`.
    """
    if not index_path(dataset).exists():
        return {}
    spec = load_spec(dataset)
    stored, failures = _read_stored(dataset)
    annotations = read_annotations(params, dataset, spec, sorted([*stored, *failures]))
    missing: dict[str, list[str]] = {}
    Finder(stored, failures, spec).records(annotations.train, "train", missing)
    return {id_: reason for id_, _, reason in missing.values() if reason_kind(reason) == SHORT}


def _segment_notes(find: Finder, dataset: str) -> list[str]:
    """Notes on segments whose frames are not simply those of their seconds."""
    notes = []
    if find.num_merged:
        notes.append(
            f"{find.num_merged} segments have the same frames as another one and count once"
        )
    if find.overruns:
        longest = sorted(find.overruns, key=lambda overrun: -overrun[0])
        notes.append(
            f"{len(longest)} segments are cut where their video ends, up to {longest[0][0]} "
            f"frames earlier: {few([segment for _, segment in longest])}"
        )
    if find.num_early:
        notes.append(f"{find.num_early} segments are cut where the picture of their video begins")
    if find.undated:
        notes.append(
            f"{len(find.undated)} videos were extracted by an earlier version, which did not "
            "record when their picture begins; their segments count from its first frame. To count "
            f"by the clock, remove data/frames/{dataset}/ and extract again"
        )
    return notes


def _read_stored(dataset: str) -> tuple[dict[str, Stored], dict[str, str]]:
    """The stored videos, and the reasons for those that extraction could not read."""
    path = index_path(dataset)
    columns = ["video_id", "num_frames", "fps", "start_seconds", "uneven_seconds"]
    ids, *values = (column.to_pylist() for column in read_index(path, columns).columns)
    stored = {id_: Stored(*row) for id_, *row in zip(ids, *values, strict=True)}
    return stored, read_failures(path)


def check(
    annotations: Annotations, spec: DatasetSpec, trained_on: bool, split: int = 1
) -> list[str]:
    """Faults of a dataset's annotations as a whole."""
    names = annotations.class_names
    faults = class_name_faults(names, [f"class {label}" for label in range(len(names))])
    # A video in both lists, or twice in one, is a fault; `whole` and `splits` repeat them.
    for lists in ((annotations.train, annotations.val), (annotations.whole,)):
        faults += _check_ids([annotation for one in lists for annotation in one])
    needs_train = trained_on and not (spec.format == "folder" and spec.val_fraction == 1)
    sets = [("train", annotations.train)] if annotations.train or needs_train else []
    if spec.format != "folder":
        sets.append(("val", annotations.val))
    for kind, videos in sets:
        used = {label for video in videos for label in video.all_labels}
        empty = [name for i, name in enumerate(annotations.class_names) if i not in used]
        faults += [f"class {name!r} has no {kind} videos" for name in empty]
    if not annotations.val:
        faults.append(
            "there are no val videos; a class needs two videos, or use train/ and val/ folders"
        )
    return faults + _check_counts(annotations, spec, split)


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


def _check_counts(annotations: Annotations, spec: DatasetSpec, split: int) -> list[str]:
    """Faults: numbers that differ from those of the dataset's file."""
    numbers = [
        ("num_classes", len(annotations.class_names), spec.num_classes),
        ("num_train", len(annotations.train), spec.expected("train", split)),
        ("num_val", len(annotations.val), spec.expected("val", split)),
        ("num_whole", len(annotations.whole), spec.num_whole if annotations.whole else None),
    ]
    if not annotations.train and spec.format != "folder":
        numbers[1] = ("num_train", 0, None)  # only evaluated on
    numbers += [
        (f"num_val of split {n}", len(part), spec.expected("val", n))
        for n, part in annotations.splits.items()
        if n != split
    ]
    return [
        f"{name}: found {count}; datasets/*.yaml says {expected} ({count - expected:+d}): other "
        "annotation files?"
        for name, count, expected in numbers
        if expected is not None and expected != count
    ]


def _check_missing(
    missing: list[list[str]],
    ledger: dict[str, str],
    dataset: str,
    spec: DatasetSpec,
    total: int,
    find: Finder,
) -> None:
    """Reject missing videos that are not in the ledger, and write all their ids to a file."""
    accepted = Lookup(ledger, spec)
    missing = [row for row in missing if not accepted.copies(row[0])]
    if not missing:
        return
    path = MISSING_STATE_DIR / f"{dataset}_missing.csv"
    write_csv(MISSING_COLUMNS, missing, path)
    sets = Counter(kind for _, kind, _ in missing)
    parts = ", ".join(f"{count} {kind}" for kind, count in sets.items())
    raise_all(
        f"{len(missing)} of {total} annotated videos of {dataset} lack frames and are not in "
        f"{ledger_path(dataset)} ({parts}): {ways_out(dataset)}. All are in {path}:",
        [
            f"{video_id} ({kind}): {reason}"
            + (describe_near(find.near(video_id)) if reason == ABSENT else "")
            for video_id, kind, reason in missing
        ],
        ListError,
    )


def _take_reasons(rows: Iterable[list[str]], ledger: dict[str, str], spec: DatasetSpec) -> None:
    """Give absent videos the reason that the ledger has for them, such as `absent: private`."""
    accepted = Lookup(ledger, spec)
    for row in rows:
        reasons = [ledger[video_id] for video_id in accepted.copies(row[0])]
        if row[2] == ABSENT and reasons and reasons[0].startswith("absent"):
            row[2] = reasons[0]


def _ledger_notes(
    ledger: dict[str, str], stored: Iterable[str], spec: DatasetSpec, dataset: str
) -> list[str]:
    """Notes on videos that the ledger names, but that have frames."""
    lookup = Lookup(stored, spec)
    again = [video_id for video_id in ledger if lookup.copies(video_id)]
    if not again:
        return []
    return [
        f"{len(again)} videos in {ledger_path(dataset)} are there again ({few(again)}) and are "
        f"used; {accept_command(dataset)} takes them out of it"
    ]


def _choice_notes(chosen: dict[str, list[str]], failures: dict[str, str]) -> list[str]:
    """Notes on videos with several files."""
    if not chosen:
        return []
    parts = []
    for video_id, others in chosen.items():
        broken = any(other in failures for other in others)
        parts.append(f"{video_id}, not {', '.join(others)}" + (" (broken)" if broken else ""))
    return [f"{len(chosen)} videos have several files; used: {few(parts, separator='; ')}"]


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
) -> None:
    """Write whole.csv, splits.csv and missing.csv if they are needed."""
    for name in ("whole.csv", "splits.csv", "missing.csv"):
        (directory / name).unlink(missing_ok=True)
    if whole:
        write_list(whole, directory / "whole.csv")
    if splits:
        rows = [(record.video_id, n) for n, part in sorted(splits.items()) for record in part]
        write_csv(SPLIT_COLUMNS, rows, directory / "splits.csv")
    if missing:
        write_csv(MISSING_COLUMNS, missing, directory / "missing.csv")


def _describe(
    annotations: Annotations, whole: list[Record], splits: dict[int, list[Record]]
) -> list[str]:
    """Notes on optional lists and on empty classes."""
    notes = [f"{len(whole)} videos in whole.csv"] if whole else []
    if splits:
        numbers = ", ".join(f"{len(part)} of split {n}" for n, part in sorted(splits.items()))
        notes.append(f"test videos in splits.csv: {numbers}")
    used = {label for video in annotations.val for label in video.all_labels}
    names = [name for i, name in enumerate(annotations.class_names) if i not in used]
    if names:
        notes.append(f"{len(names)} classes have no val videos: {', '.join(names[:10])}")
    return notes

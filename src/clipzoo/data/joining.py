"""Annotations + index of frames -> lists/<dataset>/; every annotated video is accounted for."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from clipzoo.config import SHOTS, Params
from clipzoo.data.annotations import PARSERS, Annotation, Annotations, Source
from clipzoo.data.index import index_path, read_failures, read_index
from clipzoo.data.lists import (
    ListError,
    Record,
    check_video_id,
    pick_shots,
    raise_all,
    write_csv,
    write_labels,
    write_list,
)
from clipzoo.data.spec import ANNOTATION_DIR, DatasetSpec, load_spec

LISTS_DIR = Path("lists")


@dataclass(frozen=True)
class ListSummary:
    """What build_lists found."""

    num_classes: int
    num_train: int
    num_val: int
    missing: list[list[str]]
    """[video_id, set, reason] of annotated videos that have no frames."""
    notes: list[str]
    """What a person should know, but is no error."""


def build_lists(params: Params, dataset: str) -> ListSummary:
    """Write train.csv, val.csv, labels.csv, train_Nshot.csv and, where any, missing.csv.

    There is no train.csv for a dataset without a training split. Few-shot picks are made among the
    videos with at least `data.min_frames` frames; a list is left out where a class has too few.

    Raises:
        ListError: lists every bad annotation line, every duplicate and empty class, or the
            annotated videos without frames, unless there are 0 or `data.allow_missing` of them.
        ConfigError, StoreError: the dataset's file or the index cannot be read.
    """
    spec = load_spec(dataset)
    frames, failures = _read_frames(dataset)
    trained_on = dataset == params.data.dataset
    source = Source(
        folder=ANNOTATION_DIR / dataset,
        spec=spec,
        split=params.data.split,
        seed=params.seed,
        video_ids=sorted([*frames, *failures]),
        trained_on=trained_on,
    )
    annotations = PARSERS[spec.format](source)
    faults = [*annotations.faults, *check(annotations, spec, trained_on)]
    raise_all(f"{source.folder}: {len(faults)} faults in the annotations", faults)
    records, missing = {}, []
    find = Finder(frames, failures)
    for kind in ("train", "val"):
        records[kind] = find.records(getattr(annotations, kind), kind, missing)
    _check_missing(missing, params.data.allow_missing, dataset)
    directory = LISTS_DIR / dataset
    write_labels(annotations.class_names, directory / "labels.csv")
    write_list(records["val"], directory / "val.csv")
    notes = _write_train(records["train"], directory, params) if records["train"] else []
    if missing:
        write_csv(("video_id", "set", "reason"), missing, directory / "missing.csv")
    notes += _classes_without_val(annotations)
    return ListSummary(
        len(annotations.class_names), len(records["train"]), len(records["val"]), missing, notes
    )


def _read_frames(dataset: str) -> tuple[dict[str, int], dict[str, str]]:
    """Frame counts of the stored videos, and reasons of those that extraction left out."""
    path = index_path(dataset)
    table = read_index(path)
    counts = table.column("num_frames").to_pylist()
    frames = dict(zip(table.column("video_id").to_pylist(), counts, strict=True))
    return frames, read_failures(path)


def check(annotations: Annotations, spec: DatasetSpec, trained_on: bool) -> list[str]:
    """Faults of a dataset's annotations as a whole."""
    faults, seen = [], {}
    for annotation in (*annotations.train, *annotations.val):
        fault = check_video_id(annotation.video_id)
        other = seen.setdefault(annotation.video_id, annotation.where)
        if fault:
            faults.append(f"{annotation.where}: {fault}")
        elif other != annotation.where:
            faults.append(f"{annotation.where}: {annotation.video_id!r} is in {other} too")
    needs_train = trained_on and not (spec.format == "folder" and spec.val_fraction == 1)
    sets = [("train", annotations.train)] if annotations.train or needs_train else []
    if spec.format != "folder":
        sets.append(("val", annotations.val))
    for kind, videos in sets:
        used = {video.label for video in videos}
        empty = [name for i, name in enumerate(annotations.class_names) if i not in used]
        faults += [f"class {name!r} has no {kind} videos" for name in empty]
    if not annotations.val:
        faults.append(
            "there are no val videos; a class needs two videos, or use train/ and val/ folders"
        )
    faults += _check_counts(annotations, spec)
    return faults


def _check_counts(annotations: Annotations, spec: DatasetSpec) -> list[str]:
    found = {
        "num_classes": len(annotations.class_names),
        "num_train": len(annotations.train),
        "num_val": len(annotations.val),
    }
    return [
        f"{name}: found {count}; datasets/*.yaml says {expected}: other annotation files?"
        for name, count in found.items()
        if (expected := getattr(spec, name)) is not None and expected != count
    ]


class Finder:
    """Finds annotated videos among the stored ones, by path or by file name alone."""

    def __init__(self, frames: dict[str, int], failures: dict[str, str]) -> None:
        self._frames = frames
        self._failures = failures
        self._by_name: dict[str, list[str]] = {}
        for video_id in (*frames, *failures):
            self._by_name.setdefault(_file_name(video_id), []).append(video_id)

    def records(
        self, annotations: Iterable[Annotation], kind: str, missing: list[list[str]]
    ) -> list[Record]:
        """Records of one set, in the order of its annotations; adds to `missing`.

        Raises:
            ListError: several stored videos have an annotated name, or one is annotated twice.
        """
        records, faults, taken = [], [], {}
        for annotation in annotations:
            video_id = annotation.video_id
            if video_id not in self._frames and video_id not in self._failures:
                same_name = self._by_name.get(_file_name(video_id), [])
                if len(same_name) > 1:
                    faults.append(f"{annotation.where}: could be any of {', '.join(same_name)}")
                    continue
                video_id = same_name[0] if same_name else video_id
            other = taken.setdefault(video_id, annotation.where)
            if other != annotation.where:
                faults.append(f"{annotation.where}: {video_id!r} is in {other} too")
            elif video_id in self._frames:
                records.append(Record(video_id, self._frames[video_id], annotation.label))
            else:
                reason = self._failures.get(video_id, "not among the raw videos")
                missing.append([video_id, kind, reason])
        raise_all(f"{len(faults)} {kind} videos are not clear", faults)
        return records


def _file_name(video_id: str) -> str:
    return video_id.rpartition("/")[2]


def _check_missing(missing: list[list[str]], allowed: int, dataset: str) -> None:
    if len(missing) in (0, allowed):
        return
    raise_all(
        f"{len(missing)} annotated videos of {dataset} have no frames; data.allow_missing is "
        f"{allowed}: add them and scan again, or set data.allow_missing to exactly {len(missing)}",
        [f"{video_id} ({kind}): {reason}" for video_id, kind, reason in missing],
        ListError,
    )


def _write_train(records: list[Record], directory: Path, params: Params) -> list[str]:
    """Write train.csv and the few-shot lists; returns notes on those left out."""
    write_list(records, directory / "train.csv")
    notes = []
    long_enough = [r for r in records if r.num_frames >= params.data.min_frames]
    for shots in SHOTS:
        path = directory / f"train_{shots}shot.csv"
        path.unlink(missing_ok=True)
        counts = Counter(record.label for record in long_enough)
        fewest = min(counts[record.label] for record in records)
        if fewest < shots:
            notes.append(
                f"no {path.name}: a class has {fewest} training videos that are long enough"
            )
            continue
        write_list(pick_shots(long_enough, shots, params.seed), path)
    return notes


def _classes_without_val(annotations: Annotations) -> list[str]:
    used = {video.label for video in annotations.val}
    names = [name for i, name in enumerate(annotations.class_names) if i not in used]
    return [f"{len(names)} classes have no val videos: {', '.join(names[:10])}"] if names else []

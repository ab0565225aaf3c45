"""Charades: csv files with the labeled segments of every video; training is on the segments,
testing on whole videos with all their labels."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clipzoo.annotations.annotation import (
    MAX_SECONDS,
    Annotation,
    Annotations,
    Source,
    read_classes,
)
from clipzoo.files import ListError, read_rows

CLASSES_FILE = "Charades_v1_classes.txt"
TRAIN_FILE = "Charades_v1_train.csv"
TEST_FILE = "Charades_v1_test.csv"
SEGMENT_FILE = "Charades_train_split_label.csv"
"""BIKE's training list: the segments of TRAIN_FILE, one a line, in the same order."""
COLUMNS = ("id", "actions")
OTHER_COLUMNS = (
    *("subject", "scene", "quality", "relevance", "verified"),
    *("script", "objects", "descriptions"),
)
SEGMENT_COLUMNS = ("video_id", "label", "start_time", "end_time", "total_time")
SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


@dataclass(frozen=True, slots=True)
class Action:
    """One labeled segment, as it is written."""

    where: str
    """`file:line`, or `file:line: action N`"""
    video_id: str
    label: str
    """The class, as `c092`."""
    start: str
    end: str
    length: str
    """The length of the video (seconds, as start and end); only training needs it."""


def parse_charades(source: Source) -> Annotations:
    """Charades_v1_classes.txt (`c000 Holding some clothes`), and Charades_v1_train.csv and
    Charades_v1_test.csv, whose column `actions` is `c092 11.90 21.20;c147 0.00 12.60`.

    Each training segment is an annotation with one label. It ends with its video if its end is
    later. Segments that do not end after their start are skipped, as by BIKE; a segment that begins
    after its video is a fault. Test videos are annotated as a whole, with all their labels or none.
    Charades_train_split_label.csv (`video_id,label,start_time,end_time,total_time`, BIKE's list)
    takes the place of Charades_v1_train.csv. A dataset that is only evaluated on needs neither.
    Class ids are the positions in Charades_v1_classes.txt.
    """
    names, faults = read_classes(source.folder / CLASSES_FILE, "c{:03d}", 0)
    labels = {f"c{i:03d}": i for i in range(len(names))}
    result = Annotations(names, numbered=True, faults=faults)
    paths = [source.folder / name for name in (SEGMENT_FILE, TRAIN_FILE)]
    path = next((path for path in paths if path.exists()), None)
    if path is not None and not source.spec.evaluation_only:
        if path.name == SEGMENT_FILE:
            rows = read_rows(path, SEGMENT_COLUMNS)
            actions = [Action(f"{path}:{line}", *fields) for line, *fields in rows]
        else:
            videos = _read_videos(path, faults, with_length=True)
            actions = [action for _, _, part in videos for action in part]
        result.train, notes = _train_segments(actions, labels, faults)
        result.notes += [f"training segments are those of {path.name}", *notes]
    elif source.trained_on:
        raise ListError(f"{source.folder}: has no {TRAIN_FILE} or {SEGMENT_FILE}")
    videos = _read_videos(source.folder / TEST_FILE, faults, with_length=False)
    result.val = [_whole_video(*video, labels, faults) for video in videos]
    if without := sum(not video.all_labels for video in result.val):
        result.notes.append(f"{without} test videos have no label; they are tested on too")
    return result


Video = tuple[str, str, list[Action]]
"""`file:line`, id, actions."""


def _read_videos(path: Path, faults: list[str], *, with_length: bool) -> Iterator[Video]:
    """The lines of an official csv file; `faults` gets those that are invalid.

    The first release had no column `length`, which only training needs (`with_length`).
    """
    columns = (*COLUMNS, "length") if with_length else COLUMNS
    optional = OTHER_COLUMNS if with_length else ("length", *OTHER_COLUMNS)
    seen: dict[str, str] = {}
    for line, video_id, text, length, *_ in read_rows(path, columns, optional):
        where = f"{path}:{line}"
        other = seen.setdefault(video_id, where)
        if other != where:
            faults.append(f"{where}: {video_id!r} is in {other} too")
            continue
        actions = []
        for number, triplet in enumerate(text.split(";") if text.strip() else [], start=1):
            here, words = f"{where}: action {number}", triplet.split()
            if len(words) == 3:
                label, start, end = words
                actions.append(Action(here, video_id, label, start, end, length))
            else:
                allowed = "CLASS START END, separated by ';'"
                faults.append(f"{here}: found {triplet[:100]!r}; allowed: {allowed}")
        yield where, video_id, actions


def _train_segments(
    actions: list[Action], labels: dict[str, int], faults: list[str]
) -> tuple[list[Annotation], list[str]]:
    """Annotations of the training segments, and notes on those that are skipped."""
    annotations, num_empty, num_late = [], 0, 0
    for action in actions:
        label, texts = labels.get(action.label), (action.start, action.end, action.length)
        start, end, length = map(float, texts) if _is_time(*texts) else (math.inf,) * 3
        if label is None or max(end, length) >= MAX_SECONDS:
            faults.append(_fault(action))
        elif end <= start:
            num_empty += 1
        elif length <= start:
            text = f"begins at {action.start} s; its video is {action.length} s long"
            faults.append(f"{action.where}: {text}")
        else:
            num_late += end > length
            segment = (start, min(end, length))
            annotations.append(Annotation(action.where, action.video_id, label, segment))
    notes = []
    if num_empty:
        notes.append(f"skipped: {num_empty} training segments that do not end after their start")
    if num_late:
        notes.append(f"{num_late} training segments are annotated beyond the length of their video")
    return annotations, notes


def _whole_video(
    where: str, video_id: str, actions: list[Action], labels: dict[str, int], faults: list[str]
) -> Annotation:
    """A test video with all its labels; only the classes of its actions matter."""
    faults += [_fault(a) for a in actions if a.label not in labels or not _is_time(a.start, a.end)]
    found = sorted({labels[a.label] for a in actions if a.label in labels})
    return Annotation(where, video_id, found[0] if found else -1, labels=tuple(found))


def _is_time(*texts: str) -> bool:
    """Whether all texts are plain numbers; float() would also take `nan`, `1e9` and `1_0`."""
    return all(SECONDS.fullmatch(text.strip()) for text in texts)


def _fault(action: Action) -> str:
    found = f"{action.label[:100]!r}, {action.start[:100]!r} to {action.end[:100]!r}"
    length = f" of {action.length[:100]!r}" if action.length else ""
    allowed = f"a class of {CLASSES_FILE}, and times in seconds"
    return f"{action.where}: found {found}{length}; allowed: {allowed}"

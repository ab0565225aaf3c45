"""Match annotated videos with stored ones, and segments with their frames."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from clipzoo.annotations.annotation import Annotation
from clipzoo.annotations.lookup import Lookup, choose
from clipzoo.data.ledger import ABSENT, SHORT, describe
from clipzoo.data.records import Record
from clipzoo.data.spec import DatasetSpec
from clipzoo.files import ListError, few, raise_all


@dataclass(frozen=True, slots=True)
class Stored:
    """A video of the index."""

    num_frames: int
    fps: float
    """The frame rate of the stored frames; 0 = unknown."""
    start_seconds: float = 0.0
    """When the first picture is shown, on a player's clock; NaN = unknown."""
    uneven_seconds: float = 0.0
    """The largest distance of a frame from where `fps` puts it; NaN = unknown."""


@dataclass
class Shortfall:
    """What is missing of the segments of one video."""

    segments: int = 0
    """The number of its segments, in one set."""
    left_out: int = 0
    """How many of them have no frame, or end too late."""
    example: str = ""
    """The first one that is left out, and why."""


class Finder:
    """Finds annotated videos among the stored ones, by path or by file name.

    If a video has several files, one that could be read is preferred (`lookup.choose`).
    """

    def __init__(
        self, stored: dict[str, Stored], failures: dict[str, str], spec: DatasetSpec
    ) -> None:
        self.stored = stored
        self._failures = failures
        self._spec = spec
        self.lookup = Lookup((*stored, *failures), spec)
        self._num_merged = 0
        """Segments that, at the stored frame rate, have the same frames as another one."""
        self._overruns: list[tuple[int, str]] = []
        """(frames cut, name) for each segment that is cut where its video ends."""
        self._num_early = 0
        """Segments that are cut because the picture begins later."""
        self._undated: set[str] = set()
        """Videos with segments whose first picture's time was not recorded."""
        self._chosen: dict[str, list[str]] = {}
        """For each video with several files, the one that is used, and the others."""

    def records(
        self, annotations: Iterable[Annotation], kind: str, missing: dict[str, list[str]]
    ) -> list[Record]:
        """Records of one set, in the order of its annotations.

        Videos without frames, and those of which segments lie outside of the picture or end more
        than `overrun_frames` after it, are added to `missing`: video id -> [video_id, kind,
        reason]. The other segments of such a video have records.

        Raises:
            ListError: several stored videos have the annotated name, or a video is annotated twice,
                or has segments and unevenly spaced frames; lists them all.
        """
        records, faults, uneven = [], [], {}
        taken: dict[str, Annotation] = {}
        short: dict[str, Shortfall] = {}
        for annotation in annotations:
            candidates = self._look_up(annotation.video_id)
            if len(candidates) > 1:
                faults.append(
                    f"{annotation.where}: could be any of {', '.join(candidates)}; keep one and "
                    "scan again"
                )
                continue
            video_id = candidates[0]
            other = taken.setdefault(video_id, annotation)
            if other is not annotation and annotation.segment is None:
                faults.append(f"{annotation.where}: {video_id!r} is in {other.where} too")
                continue
            stored = self.stored.get(video_id)
            if stored is None:
                failure = self._failures.get(video_id)
                reason = ABSENT if failure is None else describe(failure)
                missing.setdefault(video_id, [video_id, kind, reason])
            elif annotation.segment is None:
                label, labels = annotation.label, annotation.labels
                records.append(Record(video_id, stored.num_frames, label, labels=labels))
            elif not self._spec.fps and stored.uneven_seconds * stored.fps > 1:
                # Some frame is shown over a frame's time from where its number puts it.
                uneven[video_id] = f"{video_id}: {stored.uneven_seconds:.2f} s"
            else:
                lost = short.setdefault(video_id, Shortfall())
                record = self._segment(video_id, annotation, lost)
                records += [record] if record else []
        raise_all(f"{len(faults)} {kind} videos are ambiguous", faults)
        raise_all(
            f"{len(uneven)} {kind} videos have segments in seconds, but frames at uneven times, up "
            "to the following from where their number puts them; set fps in datasets/*.yaml, which "
            "makes them even",
            list(uneven.values()),
        )
        for video_id, lost in short.items():
            if lost.left_out:
                details = f"{lost.left_out} of {lost.segments} segments, e.g. {lost.example}"
                missing.setdefault(video_id, [video_id, kind, f"{SHORT}: {details}"])
        if self._spec.segment_rule == "truncated":
            return records
        unique = list(dict.fromkeys(records))
        self._num_merged += len(records) - len(unique)
        return unique

    def _look_up(self, annotated: str) -> list[str]:
        """The stored or failed video to use, several if that is undecided, else `annotated`."""
        video_id = self._spec.video_id(annotated)
        copies = self.lookup.copies(annotated)
        best = choose(copies, video_id, self.stored.__contains__)
        if len(best) == 1 and len(copies) > 1:
            self._chosen[best[0]] = [copy for copy in copies if copy != best[0]]
        return best or [video_id]

    def _segment(self, video_id: str, annotation: Annotation, lost: Shortfall) -> Record | None:
        """The record of a segment; None, with the reason in `lost`, if it is left out."""
        assert annotation.segment is not None
        stored, rule = self.stored[video_id], self._spec.segment_rule
        limit = self._spec.overrun_frames  # None = a segment may end after its video
        segment, fps = annotation.segment, self._spec.fps or stored.fps
        if not fps:
            raise ListError(
                f"{video_id}: unknown frame rate, which segments need; set fps in datasets/*.yaml"
            )
        offset = self._offset(video_id, fps)
        first, stop = _uncut_frames(*segment, fps, rule, offset)
        frames = segment_frames(*segment, fps, stored.num_frames, rule, offset)
        late = stop - stored.num_frames
        lost.segments += 1
        if frames is None or (limit is not None and late > limit):
            begin, end = offset / fps, (offset + stored.num_frames) / fps
            fault = f"lies outside of its picture, {begin:.1f} to {end:.1f} s"
            if frames is not None:
                fault = f"ends {late} frames after its picture (overrun_frames: {limit})"
            lost.example = lost.example or f"{segment[0]:g} to {segment[1]:g} s {fault}"
            lost.left_out += 1
            return None
        # The rule `shown` rounds up, and so may the number of a video's frames.
        rounding = 0 if rule == "truncated" else 1
        if late > rounding or segment[0] * fps - offset >= stored.num_frames:
            self._overruns.append((late, f"{video_id} from {segment[0]:g} s"))
        self._num_early += first < 0
        return Record(video_id, frames[1], annotation.label, frames[0])

    def _offset(self, video_id: str, fps: float) -> float:
        """How many frames earlier the picture would have begun, if it had begun at 0 s."""
        start = self.stored[video_id].start_seconds
        if math.isnan(start):
            self._undated.add(video_id)
            return 0.0
        # ffmpeg's filter fps puts the first picture at the nearest whole frame.
        return math.floor(start * fps + 0.5) if self._spec.fps else round(start * fps, 3)

    def segment_notes(self, dataset: str) -> list[str]:
        """Notes on segments whose frames are not simply those of their seconds."""
        notes = []
        if self._num_merged:
            notes.append(
                f"{self._num_merged} segments have the same frames as another one and count once"
            )
        if self._overruns:
            longest = sorted(self._overruns, key=lambda overrun: -overrun[0])
            notes.append(
                f"{len(longest)} segments are cut where their video ends, up to {longest[0][0]} "
                f"frames earlier: {few([segment for _, segment in longest])}"
            )
        if self._num_early:
            notes.append(
                f"{self._num_early} segments are cut where the picture of their video begins"
            )
        if self._undated:
            notes.append(
                f"{len(self._undated)} videos were extracted by an earlier version, which did not "
                "record when their picture begins; their segments count from its first frame. To "
                f"count by the clock, remove data/frames/{dataset}/ and extract again"
            )
        return notes

    def choice_notes(self) -> list[str]:
        """A note on videos with several files; empty if there are none."""
        parts = []
        for video_id, others in self._chosen.items():
            broken = any(other in self._failures for other in others)
            parts.append(f"{video_id}, not {', '.join(others)}" + (" (broken)" if broken else ""))
        shown = few(parts, separator="; ")
        return [f"{len(parts)} videos have several files; used: {shown}"] if parts else []


def segment_frames(
    start: float,
    end: float,
    fps: float,
    num_frames: int,
    rule: str = "shown",
    offset: float = 0.0,
) -> tuple[int, int] | None:
    """The frames of a segment, and at least the one shown at `start`.

    Args:
        start: seconds on a player's clock.
        end: seconds, not before `start`.
        fps: the rate of the stored frames.
        num_frames: the length of the stored video; what is outside of it is cut off.
        rule: `DatasetSpec.segment_rule`.
        offset: when the first frame is shown, in frames (seconds * fps).

    Returns:
        The first frame and the number of frames, 1 or more; None if the segment ends before the
        first frame, or begins after the last one has been shown.

    Example: 2.5 to 5.5 s of a video of 60 frames at 1 frame a second. A frame is shown from its
    number on, for 1 s:

        seconds      0   1   2   3   4   5   6
        segment               [----------]        2.5 to 5.5
        shown                    3   4   5        the first at or after 2.5, before 5.5
        truncated            2   3   4            from trunc(2.5) on, trunc(5.5 - 2.5) = 3 frames

    If the picture begins at 2 s (offset 2), the frames shown are 1, 2 and 3.
    """
    first, stop = _uncut_frames(start, end, fps, rule, offset)
    first, stop = max(0, first), min(stop, num_frames)
    if stop > first:
        return first, stop - first
    shown = math.floor(start * fps - offset)  # at `start`
    early = shown < 0 and end * fps - offset <= 0
    # Half a frame is allowed, because the number of frames of a video is rounded.
    if early or start * fps - offset > num_frames + 0.5:
        return None
    return min(max(0, shown), num_frames - 1), 1


def _uncut_frames(
    start: float, end: float, fps: float, rule: str, offset: float
) -> tuple[int, int]:
    """First frame of a segment, and the one after its last, wherever its video begins and ends."""
    if rule == "truncated":
        # In the authors' order of operations: rounding makes 0.1 to 0.6 s at 24 frames a second 11
        # frames, 14.399999999999999 - 2.4000000000000004, and 0.5 * 24 would be 12.
        first = math.floor(start * fps - offset)
        return first, first + int(end * fps - start * fps)
    return math.ceil(start * fps - offset), math.ceil(end * fps - offset)

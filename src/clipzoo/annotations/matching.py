"""Match annotated videos with stored ones, and segments with their frames."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from clipzoo.annotations.annotation import Annotation
from clipzoo.annotations.lookup import Lookup, choose
from clipzoo.data.ledger import ABSENT, SHORT, describe
from clipzoo.data.records import Record
from clipzoo.data.spec import DatasetSpec
from clipzoo.files import ListError, raise_all


@dataclass(frozen=True, slots=True)
class Stored:
    """A video of the index."""

    num_frames: int
    fps: float
    """Frame rate of the stored frames; 0 = unknown."""
    start_seconds: float = 0.0
    """When the first picture is shown, by a player's clock; NaN = unknown."""
    uneven_seconds: float = 0.0
    """Largest distance of a frame from where `fps` puts it; NaN = unknown."""


@dataclass
class Shortfall:
    """What is missing of the segments of one video."""

    segments: int = 0
    """Number of its segments, of one set."""
    left_out: int = 0
    """Number of those that have no frame, or end too late."""
    example: str = ""
    """The first that is left out, and why."""

    @property
    def reason(self) -> str:
        """The reason as the ledger of a copy has it."""
        return f"{SHORT}: {self.left_out} of {self.segments} segments, e.g. {self.example}"


class Finder:
    """Finds annotated videos among the stored ones, by path or by file name.

    Of several files of a video, one that could be read is preferred (`lookup.choose`).
    """

    def __init__(
        self, stored: dict[str, Stored], failures: dict[str, str], spec: DatasetSpec
    ) -> None:
        self._stored = stored
        self._failures = failures
        self._spec = spec
        self.num_merged = 0
        """Segments that, at the stored frame rate, have the same frames as another one."""
        self.overruns: list[tuple[int, str]] = []
        """(frames cut, name) of each segment that is cut where its video ends."""
        self.num_early = 0
        """Segments that are cut because the picture begins later."""
        self.undated: set[str] = set()
        """Videos with segments whose first picture's time was not recorded."""
        self.chosen: dict[str, list[str]] = {}
        """The file that is used of each video with several, and its other files."""
        self._lookup = Lookup((*stored, *failures), spec)

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
            elif video_id not in self._stored:
                reason = (
                    describe(self._failures[video_id]) if video_id in self._failures else ABSENT
                )
                missing.setdefault(video_id, [video_id, kind, reason])
            elif annotation.segment is None:
                records.append(self._whole(video_id, annotation))
            elif self._is_uneven(video_id):
                uneven[video_id] = f"{video_id}: {self._stored[video_id].uneven_seconds:.2f} s"
            else:
                record = self._segment(
                    video_id, annotation, short.setdefault(video_id, Shortfall())
                )
                records += [record] if record else []
        raise_all(f"{len(faults)} {kind} videos are ambiguous", faults)
        self._refuse_uneven(list(uneven.values()), kind)
        for video_id, lack in short.items():
            if lack.left_out:
                missing.setdefault(video_id, [video_id, kind, lack.reason])
        if self._spec.segment_rule == "truncated":
            return records
        unique = list(dict.fromkeys(records))
        self.num_merged += len(records) - len(unique)
        return unique

    def near(self, video_id: str) -> str:
        """`Lookup.near` of a missing video."""
        return self._lookup.near(video_id)

    def _look_up(self, annotated: str) -> list[str]:
        """The stored or failed video to use, several if that is undecided, else `annotated`."""
        video_id = self._spec.video_id(annotated)
        copies = self._lookup.copies(annotated)
        best = choose(copies, video_id, self._stored.__contains__)
        if len(best) == 1 and len(copies) > 1:
            self.chosen[best[0]] = [copy for copy in copies if copy != best[0]]
        return best or [video_id]

    def _whole(self, video_id: str, annotation: Annotation) -> Record:
        num_frames = self._stored[video_id].num_frames
        return Record(video_id, num_frames, annotation.label, labels=annotation.labels)

    def _segment(self, video_id: str, annotation: Annotation, lack: Shortfall) -> Record | None:
        """The record of a segment, or None, with the reason in `lack`, if it is left out."""
        assert annotation.segment is not None
        stored, rule, limit = self._stored[video_id], self._spec.segment_rule, self._limit
        segment, fps = annotation.segment, self._fps(video_id)
        offset = self._offset(video_id, fps)
        first, stop = _uncut_frames(*segment, fps, rule, offset)
        frames = segment_frames(*segment, fps, stored.num_frames, rule, offset)
        late = stop - stored.num_frames
        lack.segments += 1
        if frames is None or late > limit:
            begin, end = offset / fps, (offset + stored.num_frames) / fps
            fault = f"lies outside of its picture, {begin:.1f} to {end:.1f} s"
            if frames is not None:
                fault = f"ends {late} frames after its picture (overrun_frames: {limit})"
            lack.example = lack.example or f"{segment[0]:g} to {segment[1]:g} s {fault}"
            lack.left_out += 1
            return None
        # The rule `shown` rounds up, and so may the number of a video's frames.
        rounding = 0 if rule == "truncated" else 1
        if late > rounding or segment[0] * fps - offset >= stored.num_frames:
            self.overruns.append((late, f"{video_id} from {segment[0]:g} s"))
        self.num_early += first < 0
        return Record(video_id, frames[1], annotation.label, frames[0])

    @property
    def _limit(self) -> float:
        limit = self._spec.overrun_frames
        return math.inf if limit is None else limit

    def _fps(self, video_id: str) -> float:
        fps = self._spec.fps or self._stored[video_id].fps
        if not fps:
            raise ListError(
                f"{video_id}: unknown frame rate, which segments need; set fps in datasets/*.yaml"
            )
        return fps

    def _offset(self, video_id: str, fps: float) -> float:
        """Frames that there would be before the first one, had the picture begun at 0 s."""
        start = self._stored[video_id].start_seconds
        if math.isnan(start):
            self.undated.add(video_id)
            return 0.0
        # ffmpeg's filter fps puts the first picture at the nearest whole frame.
        return math.floor(start * fps + 0.5) if self._spec.fps else round(start * fps, 3)

    def _is_uneven(self, video_id: str) -> bool:
        """Whether a frame is shown more than a frame before or after where its number puts it."""
        stored = self._stored[video_id]
        return not self._spec.fps and stored.uneven_seconds * stored.fps > 1

    def _refuse_uneven(self, uneven: list[str], kind: str) -> None:
        raise_all(
            f"{len(uneven)} {kind} videos have segments in seconds, but frames at uneven times, up "
            "to the following from where their number puts them; set fps in datasets/*.yaml, which "
            "makes them even",
            uneven,
        )


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
        start: seconds, by a player's clock.
        end: seconds, not before `start`.
        fps: of the stored frames.
        num_frames: of the stored video; anything before its first frame or after its last is cut
            off.
        rule: `DatasetSpec.segment_rule`.
        offset: when the first frame is shown, in frames (seconds * fps).

    Returns:
        first frame and number of frames, 1 or more; None if the segment ends before the first
        frame, or begins after the last one has been shown.

    Example: 2.5 to 5.5 s of a video of 60 frames at 1 frame a second: frames 3, 4 and 5 if shown;
    2, 3 and 4 if truncated. If its picture begins at 2 s (offset 2), they are 1, 2 and 3 if shown.
    """
    first, stop = _uncut_frames(start, end, fps, rule, offset)
    first, stop = max(0, first), min(stop, num_frames)
    if stop > first:
        return first, stop - first
    shown = math.floor(start * fps - offset)  # at `start`
    early = shown < 0 and end * fps - offset <= 0
    # Half a frame, because the number of frames of a video is rounded.
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

"""Match annotated videos with stored ones, and segments with their frames."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from clipzoo.annotations.annotation import Annotation
from clipzoo.annotations.lookup import Lookup, choose
from clipzoo.data.ledger import ABSENT, describe
from clipzoo.data.records import Record
from clipzoo.data.spec import DatasetSpec
from clipzoo.files import ListError, raise_all


@dataclass(frozen=True, slots=True)
class Stored:
    """A video of the index."""

    num_frames: int
    fps: float
    """Of the stored frames; 0 = unknown."""


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
        self.num_cut = 0
        """Segments that end after their video, by at most `overrun_frames`."""
        self.longest_overrun = 0
        """Of these segments (frames)."""
        self.chosen: dict[str, list[str]] = {}
        """Of each video with several files: that which is used, and the others."""
        self._lookup = Lookup((*stored, *failures), spec)

    def records(
        self, annotations: Iterable[Annotation], kind: str, missing: dict[str, list[str]]
    ) -> list[Record]:
        """Records of one set, in the order of its annotations.

        Videos without frames are added to `missing`: video id -> [video_id, kind, reason].

        Raises:
            ListError: several stored videos have the annotated name, or a video is annotated twice,
                or segments end more than `overrun_frames` after their video; lists them all.
        """
        records, faults, overruns = [], [], {}
        taken: dict[str, Annotation] = {}
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
            elif video_id in self._stored:
                overrun = self._overrun(video_id, annotation)
                if overrun:
                    overruns[f"{annotation.where}: {video_id!r}"] = overrun
                records.append(self._record(video_id, annotation))
            else:
                reason = (
                    describe(self._failures[video_id]) if video_id in self._failures else ABSENT
                )
                missing.setdefault(video_id, [video_id, kind, reason])
        raise_all(f"{len(faults)} {kind} videos are ambiguous", faults)
        self._check_overruns(overruns, kind)
        if self._spec.segment_rule == "truncated":
            return records
        unique = list(dict.fromkeys(records))
        self.num_merged += len(records) - len(unique)
        return unique

    def _look_up(self, annotated: str) -> list[str]:
        """The stored or failed video to use, several if that is undecided, else `annotated`."""
        video_id = self._spec.video_id(annotated)
        copies = self._lookup.copies(annotated)
        best = choose(copies, video_id, self._stored.__contains__)
        if len(best) == 1 and len(copies) > 1:
            self.chosen[best[0]] = [copy for copy in copies if copy != best[0]]
        return best or [video_id]

    def _record(self, video_id: str, annotation: Annotation) -> Record:
        stored = self._stored[video_id]
        if annotation.segment is None:
            return Record(video_id, stored.num_frames, annotation.label, labels=annotation.labels)
        start, num_frames = segment_frames(
            *annotation.segment, self._fps(video_id), stored.num_frames, self._spec.segment_rule
        )
        return Record(video_id, num_frames, annotation.label, start)

    def _fps(self, video_id: str) -> float:
        fps = self._spec.fps or self._stored[video_id].fps
        if not fps:
            raise ListError(
                f"{video_id}: unknown frame rate, which segments need; set fps in datasets/*.yaml"
            )
        return fps

    def _overrun(self, video_id: str, annotation: Annotation) -> int:
        """Frames by which a segment ends after its video, if the dataset limits them; else 0."""
        if annotation.segment is None or self._spec.overrun_frames is None:
            return 0
        fps = self._fps(video_id)
        stop = _uncut_frames(*annotation.segment, fps, self._spec.segment_rule)[1]
        return max(0, stop - self._stored[video_id].num_frames)

    def _check_overruns(self, overruns: dict[str, int], kind: str) -> None:
        """Count the segments that are cut; ListError for those that end too late.

        Args:
            overruns: of the segments that end after their video (frames), by where they are.
            kind: of the set.
        """
        if not overruns:
            return
        limit, longest = self._spec.overrun_frames or 0, max(overruns.values())
        late = [
            f"{where}: ends {frames} frames after its video"
            for where, frames in overruns.items()
            if frames > limit
        ]
        raise_all(
            f"{len(late)} {kind} segments end too late: overrun_frames in datasets/*.yaml allows "
            f"{limit} frames after the end of a video; extract the videos again if they are not "
            f"complete, or set it to {longest}",
            late,
        )
        self.num_cut += len(overruns)
        self.longest_overrun = max(self.longest_overrun, longest)


def segment_frames(
    start: float, end: float, fps: float, num_frames: int, rule: str = "shown"
) -> tuple[int, int]:
    """The frames of a segment, and at least the one shown at `start`.

    Args:
        start: seconds.
        end: seconds, after `start`.
        fps: of the stored frames.
        num_frames: of the stored video; anything after its end is cut off.
        rule: `DatasetSpec.segment_rule`.

    Returns:
        first frame and number of frames, 1 or more.

    Example: 2.5 to 5.5 s of a video of 60 frames at 1 frame a second: frames 3, 4 and 5 if shown;
    2, 3 and 4 if truncated.
    """
    first, stop = (min(i, num_frames) for i in _uncut_frames(start, end, fps, rule))
    if stop > first:
        return first, stop - first
    return min(math.floor(start * fps), num_frames - 1), 1


def _uncut_frames(start: float, end: float, fps: float, rule: str) -> tuple[int, int]:
    """First frame of a segment, and the one after its last, wherever its video ends."""
    if rule == "truncated":
        # In the authors' order of operations: rounding makes 0.1 to 0.6 s at 24 frames a second 11
        # frames, 14.399999999999999 - 2.4000000000000004, and 0.5 * 24 would be 12.
        first = int(start * fps)
        return first, first + int(end * fps - start * fps)
    return math.ceil(start * fps), math.ceil(end * fps)

"""Match annotated videos with stored ones, and segments with their frames."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from clipzoo.annotations.annotation import Annotation
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
    """Finds annotated videos among the stored ones, by path or by file name."""

    def __init__(
        self, stored: dict[str, Stored], failures: dict[str, str], spec: DatasetSpec
    ) -> None:
        self._stored = stored
        self._failures = failures
        self._spec = spec
        self.num_merged = 0
        """Segments that, at the stored frame rate, have the same frames as another one."""
        self._by_name: dict[str, list[str]] = {}
        for video_id in (*stored, *failures):
            self._by_name.setdefault(_file_name(video_id), []).append(video_id)

    def records(
        self, annotations: Iterable[Annotation], kind: str, missing: dict[str, list[str]]
    ) -> list[Record]:
        """Records of one set, in the order of its annotations.

        Videos without frames are added to `missing`: video id -> [video_id, kind, reason].

        Raises:
            ListError: several stored videos have the annotated name, or a video is annotated twice;
                lists them all.
        """
        records, faults = [], []
        taken: dict[str, Annotation] = {}
        for annotation in annotations:
            candidates = self._look_up(self._spec.video_id(annotation.video_id))
            if len(candidates) > 1:
                faults.append(f"{annotation.where}: could be any of {', '.join(candidates)}")
                continue
            video_id = candidates[0]
            other = taken.setdefault(video_id, annotation)
            if other is not annotation and annotation.segment is None:
                faults.append(f"{annotation.where}: {video_id!r} is in {other.where} too")
            elif video_id in self._stored:
                records.append(self._record(video_id, annotation))
            else:
                reason = self._failures.get(video_id, "not among the raw videos")
                missing.setdefault(video_id, [video_id, kind, reason])
        raise_all(f"{len(faults)} {kind} videos are ambiguous", faults)
        unique = list(dict.fromkeys(records))
        self.num_merged += len(records) - len(unique)
        return unique

    def _look_up(self, video_id: str) -> list[str]:
        """Stored or failed videos of that path, else of that file name, else `video_id` itself."""
        if video_id in self._stored or video_id in self._failures:
            return [video_id]
        return self._by_name.get(_file_name(video_id)) or [video_id]

    def _record(self, video_id: str, annotation: Annotation) -> Record:
        stored = self._stored[video_id]
        if annotation.segment is None:
            return Record(video_id, stored.num_frames, annotation.label)
        fps = self._spec.fps or stored.fps
        if not fps:
            raise ListError(
                f"{video_id}: unknown frame rate, which segments need; set fps in datasets/*.yaml"
            )
        start, num_frames = segment_frames(*annotation.segment, fps, stored.num_frames)
        return Record(video_id, num_frames, annotation.label, start)


def segment_frames(start: float, end: float, fps: float, num_frames: int) -> tuple[int, int]:
    """The frames i with start <= i / fps < end, and at least the one shown at `start`.

    Args:
        start: seconds.
        end: seconds, after `start`.
        fps: of the stored frames.
        num_frames: of the stored video; anything after its end is cut off.

    Returns:
        first frame and number of frames, 1 or more.

    Example: 2.5 to 5.5 s of a video of 60 frames at 1 frame a second: frames 3, 4 and 5.
    """
    first = min(math.ceil(start * fps), num_frames)
    stop = min(math.ceil(end * fps), num_frames)
    if stop > first:
        return first, stop - first
    return min(math.floor(start * fps), num_frames - 1), 1


def _file_name(video_id: str) -> str:
    return video_id.rpartition("/")[2]

"""A long video in windows of equal length, whose frames are read ahead in one pass."""

import math
import queue
import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from clipzoo.config import ConfigError
from clipzoo.data.store import VideoInfo
from clipzoo.serve.seeking import Video

AHEAD = 64
"""Frames that are read before they are asked for."""
LEAST_SECONDS = 0.001
"""The length of the shortest windows."""
SAME_SECONDS = 1e-6
"""Times that differ by less are one: they are sums of rounded ones."""


class Span(NamedTuple):
    """A window of a video: consecutive frames, and its time."""

    first_frame: int
    num_frames: int
    start: float
    end: float
    """Seconds; the end is the start of the next window, or the end of the video."""


def check_every(every: float) -> None:
    """Raise ConfigError unless this can be the length of a window (seconds)."""
    if not (math.isfinite(every) and every >= LEAST_SECONDS):
        raise ConfigError(f"every: found {every:g}; allowed: {LEAST_SECONDS:g} seconds or more")


def split_windows(seconds: np.ndarray, end: float, every: float) -> list[Span]:
    """Divide a video into windows.

    A window has the frames that appear in it. Where no new frame appears, the window before lasts
    longer; a rest at the end shorter than half a window is added to the last one.

    Args:
        seconds: when each frame is shown, [n] float64, ascending.
        end: when the last one ends.
        every: the length of a window (seconds), above 0.

    Example: frames at 0, 1, 2, ..., 10, end 11, every 4: [0, 4), [4, 8) and [8, 11). With every 5:
    [0, 5) and [5, 11).
    """
    #   frame   0   1   2   3   4   5   6   7   8   9   10  end
    #   4       |---------------|---------------|-----------|    3 of 4: a window
    #   5       |-------------------|-----------------------|    1 of 5: no window
    begin = float(seconds[0])
    numbers = np.floor((seconds - begin + SAME_SECONDS) / every)  # [n]: the window of each frame
    chosen, firsts = np.unique(numbers, return_index=True)
    starts = begin + chosen * every  # [windows]
    if len(starts) > 1 and end - starts[-1] < every / 2 - SAME_SECONDS:
        starts, firsts = starts[:-1], firsts[:-1]
    counts = np.diff(firsts, append=len(seconds))
    ends = [*starts[1:], max(end, float(seconds[-1]))]
    rows = zip(firsts.tolist(), counts.tolist(), starts.tolist(), ends, strict=True)
    return [Span(*row[:2], float(row[2]), float(row[3])) for row in rows]


class FramesAhead:
    """Frames of a video that are read in order, in a thread of their own; a `data.store.Store`.

    Args:
        file: the video.
        wanted: the frames that will be read, int64, ascending, without repeats.

    A context: ffmpeg ends with it.
    """

    def __init__(self, file: Video, wanted: np.ndarray) -> None:
        self.videos: dict[str, VideoInfo] = file.videos
        self._file, self._wanted = file, wanted
        self._queue: queue.Queue[tuple[int, bytes | BaseException]] = queue.Queue(AHEAD)
        self._error: BaseException | None = None
        self._here: dict[int, bytes] = {}  # frames that were taken from the queue
        self._ended = threading.Event()
        # One thread reads all: ffmpeg ends with the thread that started it.
        self._thread = threading.Thread(target=self._fill, name="frames", daemon=True)

    def __enter__(self) -> "FramesAhead":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def read(self, video_id: str, indices: Sequence[int] | np.ndarray) -> list[bytes]:
        """The JPEGs of some wanted frames, none of them before the first of the last call.

        Raises:
            VideoError: as `VideoFile.read`.
        """
        first = min(indices)
        self._here = {i: jpeg for i, jpeg in self._here.items() if i >= first}
        for index in indices:
            while index not in self._here:
                if self._error is not None:  # of an earlier call too, as several may be waiting
                    raise self._error
                number, item = self._queue.get()
                if isinstance(item, BaseException):
                    self._error = item
                else:
                    self._here[number] = item
        return [self._here[index] for index in indices]

    def _fill(self) -> None:
        frames = self._file.stream(self._wanted)
        try:
            for number, jpeg in zip(self._wanted.tolist(), frames, strict=True):
                if not self._put(number, jpeg):
                    return
            raise IndexError("a frame is read that was not wanted")  # whoever reads more waits
        except BaseException as error:  # for the thread that waits
            self._put(-1, error)
        finally:
            frames.close()

    def _put(self, number: int, item: bytes | BaseException) -> bool:
        """Whether the item was put before the end."""
        while not self._ended.is_set():
            try:
                self._queue.put((number, item), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

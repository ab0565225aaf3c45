"""One video file as a frame store: its frames are those that extract_frames would store of it."""

import itertools
import math
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np

from clipzoo.data.decoding import (
    Outcome,
    VideoError,
    check_decoded,
    frames_command,
    jpeg_command,
    run_ffmpeg,
    split_jpegs,
)
from clipzoo.data.store import VideoInfo
from clipzoo.data.timing import frame_rate
from clipzoo.serve.folder import FramesOfVideos

TINY_PX = 16
"""Side of the pictures by which frames are counted."""
MOST_SELECTED = 256
"""Frames that ffmpeg selects at once: it compares the number of each frame with all of them."""


class VideoFile:
    """A video that ffmpeg decodes when it is read; a `data.store.Store` of the one id `name`.

    Args:
        path: the file.
        frames: size, quality and rate of its frames.

    Raises:
        VideoError: the file is missing, is not a video, is damaged, or has no frames.
    """

    def __init__(self, path: str | Path, frames: FramesOfVideos) -> None:
        self.path, self.frames = Path(path), frames
        if not self.path.is_file():
            raise VideoError(f"{path}: no such file")
        self.name, outcome = self.path.name, Outcome()
        command = frames_command(self.path, frames.fps, (TINY_PX, TINY_PX), timed=True)
        num_bytes = sum(len(chunk) for chunk in run_ffmpeg(command, outcome))
        num_frames = num_bytes // (3 * TINY_PX**2)
        check_decoded(self.path, outcome, frames.fps, num_frames)
        if outcome.damage:
            raise VideoError(f"{path}: is damaged ({outcome.damage})")
        times = outcome.timing.times
        rate = frames.fps or frame_rate(times, outcome.fps)[0]
        timed = not frames.fps and len(times) == num_frames
        regular = (times[0] if times else 0.0) + np.arange(num_frames) / (rate or math.inf)
        self.seconds = np.maximum.accumulate(times) if timed else regular
        """When each frame is shown, [num_frames] float64, ascending."""
        self.end_seconds = max(outcome.timing.end_seconds, float(self.seconds[-1]))
        """When the last one ends."""
        self.videos = {self.name: VideoInfo(num_frames, 0, 0, rate, 0)}

    @property
    def num_frames(self) -> int:
        """The number of frames that are kept."""
        return self.videos[self.name].num_frames

    def read(self, video_id: str, indices: Sequence[int] | np.ndarray) -> list[bytes]:
        """The JPEGs of some frames, in any order; decodes the file from its start.

        Raises:
            VideoError: ffmpeg does not find these frames now.
        """
        unique = np.unique(indices)
        jpegs = list(self.stream(unique))
        return [jpegs[place] for place in np.searchsorted(unique, indices)]

    def stream(self, frames: np.ndarray) -> Generator[bytes, None, None]:
        """The JPEGs of some frames, int64, ascending and without repeats, one after the other;
        errors are those of `read`."""
        size, quality, fps = str(self.frames.size), self.frames.quality, self.frames.fps
        few = frames.tolist() if len(frames) <= MOST_SELECTED else None
        command = jpeg_command(self.path, size, quality, fps, frames=few)
        wanted, found = set(frames.tolist()), 0
        jpegs = split_jpegs(run_ffmpeg(command, Outcome()))
        for number, jpeg in zip(few or itertools.count(), jpegs, strict=False):
            if number in wanted:
                yield jpeg
                found += 1
                if found == len(frames):
                    return
        raise VideoError(f"{self.path}: {found} of {len(frames)} frames can be read again")

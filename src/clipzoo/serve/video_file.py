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
    selection,
    split_jpegs,
)
from clipzoo.data.store import VideoInfo
from clipzoo.data.timing import frame_rate
from clipzoo.serve.folder import FramesOfVideos

TINY_PX = 16
"""Side of the pictures by which frames are counted."""
MOST_SELECTED = 1024
"""Frames that ffmpeg selects at once: its command may not be too long."""


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
        check_name(self.path)
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
        few = len(frames) <= MOST_SELECTED
        expression = selection(frames) if few else "1"
        command = selecting_command(self.path, self.frames, expression)
        wanted, found = set(frames.tolist()), 0
        outcome = Outcome()
        jpegs = split_jpegs(run_ffmpeg(command, outcome))
        for number, jpeg in zip(frames.tolist() if few else itertools.count(), jpegs, strict=False):
            if number in wanted:
                yield jpeg
                found += 1
                if found == len(frames):
                    return
        reason = outcome.damage or "it was whole a moment ago"
        text = f"{self.path}: {found} of {len(frames)} frames can be read again ({reason})"
        raise VideoError(text)


def check_name(path: Path) -> None:
    """Raise VideoError if a file is missing, or its name cannot be given to ffmpeg."""
    if not path.is_file():
        raise VideoError(f"{path}: no such file")
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise VideoError(f"{path}: its name is not UTF-8; rename the file") from None


def selecting_command(path: Path, frames: FramesOfVideos, *filters: str) -> list[str]:
    """As `jpeg_command`, but only of the frames for which an expression of `selection` holds; more
    filters may follow it."""
    expression, *more = filters
    command = jpeg_command(path, str(frames.size), frames.quality, frames.fps)
    chain = ",".join(["select={}".format(expression.replace(",", r"\,")), *more])
    place = command.index("-filter_complex") + 1
    command[place] = command[place].replace("scale=", f"{chain},scale=", 1)
    return command

"""Read frames of raw videos on the fly, with decord or ffmpeg.

decord is fast, as it can begin at any key frame, but reads some videos wrongly: it seeks to other
frames than it plays (B-frames in avi, transport and program streams, open groups of pictures),
repeats frames or hangs if an edit list has several edits, shows mirrored videos unmirrored, may
choose another video track, and does not know AV1. So extraction compares it with ffmpeg on
every video (`clipzoo.frames.comparison`), in a process that can be killed, and the index names the
videos that decord reads wrongly. These are read by ffmpeg, which decodes them from their start in a
process that is killed if it stalls (`clipzoo.data.decoding`).

decord has no list of allowed formats, and would follow a playlist or script to other files. So
`check_container` looks at the start of a file before decord opens it. It also cannot return frames
of some widths (`WRONG_WIDTHS`).
"""

import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from clipzoo.data.decoding import BICUBIC, Outcome, VideoError, frames_command, run_ffmpeg
from clipzoo.data.index import StoreError

WRONG_WIDTHS = (24, 48, 72)
"""Widths (px) at which decord pads lines to 4 bytes per pixel and reads them as 4 channels."""
CONTAINERS = {
    "mov, mp4": rb"\0.{3}(ftyp|moov|free|skip|wide|pnot|styp|uuid)|.{4}mdat",
    "matroska, webm": rb"\x1a\x45\xdf\xa3",
    "avi": rb"RIFF.{4}AVI[ X\x19]",
    "flv": rb"FLV\x01.\0\0\0\x09",
    "asf": rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c",
    "ogg": rb"OggS\0",
    "mpeg": rb"\0?\0\0\x01[\x00-\xff]",
    "mpegts": rb"\x47.{187}\x47.{187}\x47|.{4}\x47.{191}\x47.{191}\x47",
}
"""The first bytes of files of each allowed format."""
THUMBNAIL_SIZE = (32, 16)
"""Width and height (px) of the pictures that show whether decord's frames are right."""
SEEK_PROBES = 8
"""About how many frames are also sought one by one."""
NO_DECODER = "-1128613112"
"""ffmpeg's AVERROR_DECODER_NOT_FOUND, in decord's message."""
UNKNOWN_CODEC = "decord cannot decode its codec"


@dataclass(frozen=True)
class Kept:
    """The frames that are kept of a video, as ffmpeg finds them."""

    num_frames: int
    fps: float | None = None
    """The frames a second to keep; None = every frame."""
    start_seconds: float = math.nan
    """When the first picture is shown; NaN = when decord says."""


def read_by_ffmpeg(
    path: Path,
    frames: Sequence[int],
    *,
    size: tuple[int, int],
    fps: float | None = None,
    flags: str = BICUBIC,
) -> np.ndarray:
    """Read some frames of a video, in any order; decodes it from its start.

    Args:
        frames: indices [T] among the frames that are kept.
        size: width and height of the result (px).
        fps, flags: as for `frames_command`.

    Returns:
        uint8 [T, H, W, 3], RGB, upright.

    Raises:
        StoreError: ffmpeg does not find these frames, or stalls.
    """
    unique, outcome = sorted(set(frames)), Outcome()
    shape = (len(unique), size[1], size[0], 3)
    try:
        command = frames_command(path, fps, size, unique, flags=flags)
        content = b"".join(run_ffmpeg(command, outcome))
    except VideoError as error:
        raise StoreError(f"{path}: {error}") from error
    if len(content) != np.prod(shape):
        raise StoreError(
            f"{path}: ffmpeg gave {len(content)} bytes for {len(unique)} frames up to "
            f"{unique[-1]}; allowed: {np.prod(shape)} ({outcome.damage or 'it reports no error'})"
        )
    images = np.frombuffer(content, np.uint8).reshape(shape)  # [unique, H, W, 3]
    return images[np.searchsorted(unique, frames)]  # [T, H, W, 3]


def read_by_decord(
    path: Path, frames: Sequence[int], *, size: tuple[int, int], kept: Kept
) -> np.ndarray:
    """Read some frames of a video on which decord agrees with ffmpeg; seeks to them.

    Arguments and result are those of `read_by_ffmpeg`; `kept` comes from the index.

    Raises:
        StoreError: decord cannot open or decode the file, or finds another number of frames.
    """
    width, height = size
    scale = 2 if width in WRONG_WIDTHS else 1
    reader = _open(path, width * scale, height * scale)
    images = _seek(reader, _kept_frames(reader, path, kept)[np.asarray(frames)], path)
    if scale > 1:  # [T, 2H, 2W, 3] -> [T, H, W, 3]
        images = np.stack([cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in images])
    return images


def play_by_decord(path: Path, kept: Kept) -> Iterator[np.ndarray]:
    """Play a video, then seek to frames around its key frames, which must be those played.

    Yields:
        For each frame of the file its thumbnails uint8 [k, 16, 32, 3]: one, or as many as `fps`
        makes of it.

    Raises:
        StoreError: decord cannot decode the video, finds another number of frames, or seeks to
            other frames than it plays.
    """
    reader = _open(path, *THUMBNAIL_SIZE)
    count, keys = len(reader), reader.get_key_indices()
    # How often each frame is kept, which is once unless `fps` drops or repeats frames.
    repeats = np.bincount(_kept_frames(reader, path, kept), minlength=count)  # [count]
    played = np.empty((count, *THUMBNAIL_SIZE[::-1], 3), np.uint8)
    for i in range(count):
        with _errors_of(path):
            played[i] = reader.next().asnumpy()
        yield played[[i] * repeats[i]]  # [k, 16, 32, 3]
    places = {key + step for key in keys for step in (-1, 0, 1)} | {count // 2, count - 1}
    places = sorted(i for i in places if 0 <= i < count)
    # all of them in one batch, then some of them alone
    for probes in (places, *([i] for i in places[:: max(1, len(places) // SEEK_PROBES)])):
        found = _seek(_open(path, *THUMBNAIL_SIZE), np.asarray(probes), path)
        if not np.array_equal(found, played[probes]):
            raise StoreError(f"{path}: decord seeks to other frames than it plays")


def check_container(path: Path) -> None:
    """Raise StoreError unless a file begins like a container of one video (`CONTAINERS`)."""
    try:
        with path.open("rb") as file:
            start = file.read(1024)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error
    if not any(re.match(pattern, start, re.DOTALL) for pattern in CONTAINERS.values()):
        raise StoreError(
            f"{path}: is not a video that decord may open: it begins with {start[:16]!r}; allowed: "
            f"{', '.join(CONTAINERS)}"
        )


def _open(path: Path, width: int, height: int) -> Any:
    import decord  # here, because it loads a second ffmpeg: only for raw videos

    check_container(path)
    decord.logging.set_level(decord.logging.FATAL)
    try:
        # The path starts at the root, because `concat:x.mp4` would be an address.
        name = os.path.abspath(path)
        return decord.VideoReader(name, num_threads=1, width=width, height=height)
    except (decord.DECORDError, RuntimeError) as error:
        if NO_DECODER in str(error):
            raise StoreError(f"{path}: {UNKNOWN_CODEC}") from error
        raise StoreError(f"{path}: decord cannot open it ({_reason(error)})") from error


def _seek(reader: Any, frames: np.ndarray, path: Path) -> np.ndarray:
    """Frames uint8 [T, H, W, 3] of a reader that has just been opened; `frames` is int64 [T]."""
    unique, places = np.unique(frames, return_inverse=True)
    with _errors_of(path):
        images = reader.get_batch(unique.tolist()).asnumpy()  # [unique, H, W, 3]
    return images[places]  # [T, H, W, 3]


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Turn decord's errors on a video into StoreErrors that name it."""
    import decord

    try:
        yield
    except (decord.DECORDError, IndexError, StopIteration, RuntimeError) as error:
        raise StoreError(f"{path}: decord cannot decode it ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    """decord's message, without paths, source locations and stack."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"\S*\[\d+:\d+:\d+\] |/\S+:\d+: |\[/.*\] ", "", line)[:200]


def _kept_frames(reader: Any, path: Path, kept: Kept) -> np.ndarray:
    """Indices int64 [num_frames] of a reader's frames that are kept; StoreError if they are not as
    many as ffmpeg keeps."""
    if not kept.fps:
        if len(reader) != kept.num_frames:
            raise StoreError(f"{path}: decord finds {len(reader)} frames, ffmpeg {kept.num_frames}")
        return np.arange(kept.num_frames)
    times = np.asarray(reader.get_frame_timestamp(range(len(reader))))  # [n, 2]
    # decord's times need not begin where the container does, which decides what is kept.
    if math.isfinite(kept.start_seconds):
        times = times - times[0, 0] + kept.start_seconds
    # Checked before the indices are made: a time that decord does not know is billions of years.
    count = num_outputs(times, kept.fps)
    if count != kept.num_frames:
        raise StoreError(
            f"{path}: decord's times give {count} frames at {kept.fps:g} a second, ffmpeg's "
            f"{kept.num_frames}"
        )
    return resampled(times, kept.fps)


def num_outputs(times: np.ndarray, fps: float) -> int:
    """How many frames ffmpeg's `fps` filter makes; arguments as for `resampled`."""
    first, end = np.floor(times[[0, -1], [0, 1]] * fps + 0.5)
    return int(end - first)


def resampled(times: np.ndarray, fps: float) -> np.ndarray:
    """Indices of the frames that ffmpeg's `fps` filter keeps: for output k, the last one due by k.

    Args:
        times: [n, 2], start and end of each decoded frame (seconds).
        fps: frames a second of the output.

    Returns:
        int64 [m], indices of the n frames, ascending; a frame may appear several times.

    Example: 4 frames of 0.25 s at fps 2. Each is due at the nearest output, halves rounded up:

        frame     0     1     2     3     end
        seconds   0   0.25  0.5   0.75    1
        due       0     1     1     2     2

    So output 0 is frame 0, output 1 is frame 2, and the video ends before output 2. A video that is
    shorter than half an output frame has no outputs.
    """
    due = np.floor(times[:, 0] * fps + 0.5).astype(int)  # [n]
    return np.searchsorted(due, due[0] + np.arange(num_outputs(times, fps)), side="right") - 1

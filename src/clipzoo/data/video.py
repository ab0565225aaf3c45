"""Read frames of raw videos with decord, working around its bugs.

decord seeks to other frames than it plays if B-frames are packed (avi) or an edit list cuts the
start (`seeks_exactly`), repeats the last frame if a header claims more frames than there are, and
cannot return frames of some widths (`WRONG_WIDTHS`).

decord has no list of allowed formats, and would follow a playlist or script to other files. So
`check_container` looks at the start of a file before decord opens it. Nor can a thread of this
process be ended if decord hangs in it; so extraction lets ffmpeg decode a file first, which is
ended if it stalls (`clipzoo.data.decoding`).
"""

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

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
"""What files of each allowed format begin with."""
THUMBNAIL_PX = 32
SEEK_PROBES = 8


def read_video(
    path: Path,
    frames: Sequence[int],
    *,
    size: tuple[int, int],
    fps: float | None = None,
    start_seconds: float = math.nan,
    seekable: bool = True,
) -> np.ndarray:
    """Read some frames of a video, in any order.

    Args:
        path: the video.
        frames: indices [T], among the frames that `fps` keeps if it is given.
        size: width and height of the result (px).
        fps: frames per second to keep; None = every frame.
        start_seconds: when the first picture is shown, as ffmpeg has it; NaN = as decord has it.
        seekable: result of `seeks_exactly`; False = decode from the start.

    Returns:
        uint8 [T, H, W, 3], RGB, turned upright.

    Raises:
        StoreError: decord cannot open or decode the file.
    """
    width, height = size
    scale = 2 if width in WRONG_WIDTHS else 1
    reader = _open(path, width * scale, height * scale)
    if fps:
        frames = kept_frames(reader, fps, start_seconds)[np.asarray(frames)].tolist()
    images = _decode(reader, frames, path, seekable)
    if scale > 1:
        images = np.stack([cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in images])
    return images


def count_kept(path: Path, fps: float | None, start_seconds: float = math.nan) -> int:
    """Number of frames that decord finds, or that `fps` keeps of them; StoreError if broken."""
    reader = _open(path, THUMBNAIL_PX, THUMBNAIL_PX)
    return len(kept_frames(reader, fps, start_seconds)) if fps else len(reader)


def seeks_exactly(path: Path) -> bool:
    """Whether decord gives the same frames of a video when it seeks as when it plays.

    Decodes the video once and seeks to frames around its key frames.

    Raises:
        StoreError: decord cannot decode the video.
    """
    reader = _open(path, THUMBNAIL_PX, THUMBNAIL_PX)
    num_frames = len(reader)
    played = _decode(reader, range(num_frames), path, seekable=False)
    places = {key + step for key in reader.get_key_indices() for step in (-1, 0, 1)}
    places = sorted(i for i in places | {num_frames // 2, num_frames - 1} if 0 <= i < num_frames)
    # all of them in one batch, then some of them alone
    for probes in (places, *([i] for i in places[:: max(1, len(places) // SEEK_PROBES)])):
        fresh = _open(path, THUMBNAIL_PX, THUMBNAIL_PX)
        if not np.array_equal(_decode(fresh, probes, path, seekable=True), played[probes]):
            return False
    return True


def check_container(path: Path) -> None:
    """Raise StoreError unless a file begins like a container of one video (`CONTAINERS`)."""
    try:
        with path.open("rb") as file:
            start = file.read(1024)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error
    if not any(re.match(pattern, start, re.DOTALL) for pattern in CONTAINERS.values()):
        raise StoreError(
            f"{path}: is no video that decord may open: it begins with {start[:16]!r}; allowed: "
            f"{', '.join(CONTAINERS)}"
        )


def _open(path: Path, width: int, height: int) -> Any:
    import decord  # here, because it loads a second ffmpeg: only for raw videos

    check_container(path)
    decord.logging.set_level(decord.logging.FATAL)
    try:
        # From the root on, because `concat:x.mp4` is an address.
        name = os.path.abspath(path)
        return decord.VideoReader(name, num_threads=1, width=width, height=height)
    except (decord.DECORDError, RuntimeError) as error:
        raise StoreError(f"{path}: decord cannot open it ({_reason(error)})") from error


def _decode(reader: Any, frames: Sequence[int], path: Path, seekable: bool) -> np.ndarray:
    """Frames uint8 [T, H, W, 3] of a reader that has just been opened."""
    import decord

    unique = sorted(set(frames))
    try:
        if seekable:
            images = reader.get_batch(unique).asnumpy()
        else:
            played = (reader.next() for _ in range(unique[-1] + 1))
            images = np.stack([f.asnumpy() for i, f in enumerate(played) if i in set(unique)])
    except (decord.DECORDError, IndexError, StopIteration, RuntimeError) as error:
        raise StoreError(f"{path}: decord cannot decode it ({_reason(error)})") from error
    return images[np.searchsorted(unique, frames)]  # [unique, H, W, 3] -> [T, H, W, 3]


def _reason(error: Exception) -> str:
    """decord's message, without source locations and stack."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"\S*\[\d+:\d+:\d+\] |/\S+:\d+: ", "", line)[:200]


def kept_frames(reader: Any, fps: float, start_seconds: float = math.nan) -> np.ndarray:
    """Indices int64 [m] of the frames that `fps` keeps of a decord reader.

    decord's times need not begin where the container does, which decides what is kept.
    """
    times = np.asarray(reader.get_frame_timestamp(range(len(reader))))  # [n, 2]
    if math.isfinite(start_seconds):
        times = times - times[0, 0] + start_seconds
    return resampled(times, fps)


def resampled(times: np.ndarray, fps: float) -> np.ndarray:
    """Indices of the frames that ffmpeg's `fps` filter keeps: for output k, the last one due by k.

    Args:
        times: [n, 2] start and end of each decoded frame (seconds).
        fps: frames per second of the output.

    Returns:
        int64 [m], indices of the n frames, ascending; a frame may appear several times.

    Example: 4 frames of 0.25 s, fps 2: they are due at outputs 0, 1, 1, 2 and the video ends at 2,
    so output 0 is frame 0 and output 1 is frame 2. A video shorter than half an output frame gives
    none.
    """
    due = np.floor(times[:, 0] * fps + 0.5).astype(int)
    end = int(np.floor(times[-1, 1] * fps + 0.5))
    return np.searchsorted(due, np.arange(due[0], end), side="right") - 1

"""Frames of a raw video by decord, kept from what it gets wrong.

It seeks to other frames than it plays where B-frames are packed (avi) or an edit list cuts the
start (`seeks_exactly`), repeats the last frame where a header claims more than there are, and
cannot hand over frames of some widths (`WRONG_WIDTHS`).
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from clipzoo.data.index import StoreError

WRONG_WIDTHS = (24, 48, 72)
"""Widths (px) whose lines decord pads to 4 bytes a pixel and then takes for four channels."""
THUMBNAIL_PX = 32
SEEK_PROBES = 8


def read_video(
    path: Path,
    frames: Sequence[int],
    *,
    size: tuple[int, int],
    fps: float | None = None,
    seekable: bool = True,
) -> np.ndarray:
    """Some frames of a video, in any order.

    Args:
        path: of the video.
        frames: indices [T]; of the frames that `fps` keeps, where given.
        size: width and height of the result (px).
        fps: frames a second to choose from; None = every frame.
        seekable: what `seeks_exactly` said; False = decode from the start.

    Returns:
        uint8 [T, H, W, 3], RGB, turned upright.

    Raises:
        StoreError: decord cannot open or decode the file.
    """
    width, height = size
    scale = 2 if width in WRONG_WIDTHS else 1
    reader = _open(path, width * scale, height * scale)
    if fps:
        frames = kept_frames(reader, fps)[np.asarray(frames)].tolist()
    images = _decode(reader, frames, path, seekable)
    if scale > 1:
        images = np.stack([cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in images])
    return images


def count_kept(path: Path, fps: float | None) -> int:
    """Number of frames that decord has, or those of them that `fps` keeps; StoreError if broken."""
    reader = _open(path, THUMBNAIL_PX, THUMBNAIL_PX)
    return len(kept_frames(reader, fps)) if fps else len(reader)


def seeks_exactly(path: Path) -> bool:
    """Whether decord finds the frames of a video when it seeks, as it does when it plays.

    Decodes the video once and seeks to the neighbourhood of its key frames.

    Raises:
        StoreError: decord cannot decode the video.
    """
    reader = _open(path, THUMBNAIL_PX, THUMBNAIL_PX)
    num_frames = len(reader)
    played = _decode(reader, range(num_frames), path, seekable=False)
    near = {key + step for key in reader.get_key_indices() for step in (-1, 0, 1)}
    near = sorted(i for i in near | {num_frames // 2, num_frames - 1} if 0 <= i < num_frames)
    for probes in (near, *([i] for i in near[:: max(1, len(near) // SEEK_PROBES)])):
        fresh = _open(path, THUMBNAIL_PX, THUMBNAIL_PX)
        if not np.array_equal(_decode(fresh, probes, path, seekable=True), played[probes]):
            return False
    return True


def _open(path: Path, width: int, height: int) -> Any:
    import decord  # loads an ffmpeg of its own: only where raw videos are read

    decord.logging.set_level(decord.logging.FATAL)
    try:
        return decord.VideoReader(str(path), num_threads=1, width=width, height=height)
    except (decord.DECORDError, RuntimeError) as error:
        raise StoreError(f"{path}: decord cannot open it ({_reason(error)})") from error


def _decode(reader: Any, frames: Sequence[int], path: Path, seekable: bool) -> np.ndarray:
    """Frames [T, H, W, 3] of a reader that has just been opened."""
    import decord

    wanted = sorted(set(frames))
    try:
        if seekable:
            images = reader.get_batch(wanted).asnumpy()
        else:
            played = (reader.next() for _ in range(wanted[-1] + 1))
            images = np.stack([f.asnumpy() for i, f in enumerate(played) if i in set(wanted)])
    except (decord.DECORDError, IndexError, StopIteration, RuntimeError) as error:
        raise StoreError(f"{path}: decord cannot decode it ({_reason(error)})") from error
    return images[np.searchsorted(wanted, frames)]


def _reason(error: Exception) -> str:
    """decord's own words, without its places in the source and its stack."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"\S*\[\d+:\d+:\d+\] |/\S+:\d+: ", "", line)[:200]


def kept_frames(reader: Any, fps: float) -> np.ndarray:
    """Frames int64 [m] of a decord reader that a dataset with `fps` has."""
    return resampled(np.asarray(reader.get_frame_timestamp(range(len(reader)))), fps)


def resampled(times: np.ndarray, fps: float) -> np.ndarray:
    """Frames that ffmpeg's `fps` filter keeps: for output k the last frame due by then.

    Args:
        times: [n, 2] start and end of each decoded frame (seconds).
        fps: frames a second of the output.

    Returns:
        indices int64 [m] into the n frames, ascending; a frame may come several times.

    Example: 4 frames of a quarter of a second, fps 2: they are due at 0, 1, 1, 2 and the video ends
    at 2, so output 0 is frame 0 and output 1 is frame 2. A video of less than half an output frame
    gives none.
    """
    due = np.floor(times[:, 0] * fps + 0.5).astype(int)
    end = int(np.floor(times[-1, 1] * fps + 0.5))
    return np.searchsorted(due, np.arange(due[0], end), side="right") - 1

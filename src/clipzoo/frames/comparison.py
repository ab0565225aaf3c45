"""Whether decord reads a raw video as ffmpeg does (`reader: video`).

ffmpeg's frames are right: they are what shards contain. decord gets the same video in a process of
its own, because it hangs or crashes on some, and a thread cannot be killed. The two agree if

- both find the same number of frames (with `fps`: keep, so that their times are compared too);
- each frame's thumbnail is the same, which proves order, orientation, colors and the right one of
  several tracks;
- decord seeks to the frames that it plays, and no two frames have the same time;
- the first frame has the same size and picture as the stored ones.

Both scale the thumbnails alike, so they differ by 2 of 255 at most where two decoders round
differently.
"""

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from clipzoo.data.decoding import (
    BILINEAR,
    Outcome,
    VideoError,
    check_decoded,
    ending_with_us,
    frames_command,
    jpeg_command,
    run_ffmpeg,
    split_jpegs,
)
from clipzoo.data.index import StoreError
from clipzoo.data.video import THUMBNAIL_SIZE, UNKNOWN_CODEC, Kept, read_by_ffmpeg
from clipzoo.frames import decord_process
from clipzoo.frames.decord_process import Request

STALLED_SECONDS = 30
"""decord is killed if it gives no new frame for this time. ffmpeg has just read the file, so most
likely it is in memory."""
START_SECONDS = 120
"""How long decord's process may take to start."""
THUMBNAIL_TOLERANCE = 4
"""The largest difference that a value of a thumbnail may have (0 to 255)."""
FIRST_TOLERANCE = 8.0
"""The mean difference that the first frame may have, reduced to a thumbnail. It is larger, because
decord scales the frame in another way than ffmpeg."""
BEST_QUALITY = 2
"""ffmpeg's -q:v of a JPEG with the least loss."""
SOURCE = Path(__file__).parents[2]


@dataclass(frozen=True)
class Decoded:
    """What ffmpeg makes of a video that is to be read on the fly."""

    path: Path
    fps: float | None
    """The frames a second that are kept; None = every frame."""
    thumbnails: np.ndarray
    """The thumbnails of all frames kept, uint8 [num_frames, 16, 32, 3]."""
    first: np.ndarray
    """The first frame as it is stored, uint8 [H, W, 3]."""
    outcome: Outcome


class Decord:
    """A process with decord, which is started when it is needed and killed when it hangs."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def fault(self, video: Decoded) -> str:
        """Why decord cannot be trusted with a video; '' = it gives the frames that ffmpeg gives.

        Raises:
            OSError: decord cannot be started, whatever the video.
        """
        connection = self._start()
        kept = Kept(len(video.thumbnails), video.fps, video.outcome.timing.start_seconds)
        height, width = video.first.shape[:2]
        try:
            connection.send(Request(video.path, kept, (width, height)))
            fault, finished = _compare(connection, video)
        except TimeoutError:
            fault, finished = f"decord gives no new frame for {STALLED_SECONDS} s", False
        except (EOFError, OSError):
            fault, finished = "decord crashes", False
        if not finished:  # more answers may follow, and what is known to be wrong may hang
            self.close()
        return fault

    def _start(self) -> Connection:
        if self._connection:
            return self._connection
        ours, theirs = socket.socketpair()
        paths = [str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])]
        with theirs:
            self._process = subprocess.Popen(
                [*ending_with_us(), sys.executable, "-m", decord_process.__name__],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            )
        self._connection = Connection(ours.detach())
        try:
            _receive(self._connection, START_SECONDS)
        except (TimeoutError, EOFError, OSError) as error:
            self.close()
            raise OSError(
                "decord: its process does not start (the reason is above, if there is one); try "
                "`python -c 'import decord'`, or extract the frames (`reader: shards`)"
            ) from error
        return self._connection

    def close(self) -> None:
        """Kill the process; the next `fault` starts another one."""
        if self._connection:
            self._connection.close()
        if self._process:
            self._process.kill()
            self._process.wait()
        self._connection = self._process = None


def _receive(connection: Connection, seconds: float) -> object:
    """The next answer; TimeoutError if there is none, EOFError if the process has ended."""
    if not connection.poll(seconds):
        raise TimeoutError
    return connection.recv()


def _compare(connection: Connection, video: Decoded) -> tuple[str, bool]:
    """The first difference ('' = none), and whether it is the last answer; see `Decord.fault`."""
    thumbnails, first, place = video.thumbnails, video.first, 0
    while isinstance(answer := _receive(connection, STALLED_SECONDS), np.ndarray):
        if answer.ndim == 3:  # the first frame in full size
            if answer.shape != first.shape:
                found, allowed = ("x".join(map(str, i.shape[1::-1])) for i in (answer, first))
                return f"decord gives frames of {found} px, ffmpeg {allowed}", False
            if np.abs(_reduced(answer) - _reduced(first)).mean() > FIRST_TOLERANCE:
                return "decord gives another first frame than ffmpeg", False
            continue
        expected = thumbnails[place : place + len(answer)].astype(np.int16)  # [k, 16, 32, 3]
        if np.abs(answer - expected).max(initial=0) > THUMBNAIL_TOLERANCE:
            return f"decord gives another picture than ffmpeg from frame {place} on", False
        place += len(answer)
    return str(answer), True


def _reduced(image: np.ndarray) -> np.ndarray:
    """A picture uint8 [H, W, 3] as int16 [16, 32, 3]."""
    return cv2.resize(image, THUMBNAIL_SIZE, interpolation=cv2.INTER_AREA).astype(np.int16)


def thumbnails_command(path: Path, fps: float | None, *, timed: bool = False) -> list[str]:
    """The ffmpeg command that writes a thumbnail of each frame to its standard output."""
    return frames_command(path, fps, THUMBNAIL_SIZE, flags=BILINEAR, timed=timed)


def decode_video(path: Path, size: str, fps: float | None) -> Decoded:
    """Decode a video by ffmpeg, once; VideoError if there are no frames. Arguments as for
    `jpeg_command`."""
    outcome = Outcome()
    content = b"".join(run_ffmpeg(thumbnails_command(path, fps, timed=True), outcome))
    shape = (-1, *THUMBNAIL_SIZE[::-1], 3)
    thumbnails = np.frombuffer(content, np.uint8).reshape(shape)  # [num_frames, 16, 32, 3]
    check_decoded(path, outcome, fps, len(thumbnails))
    frames = split_jpegs(run_ffmpeg(jpeg_command(path, size, BEST_QUALITY, fps), Outcome()))
    first = simplejpeg.decode_jpeg(next(frames))  # [H, W, 3]
    frames.close()
    return Decoded(path, fps, thumbnails, first, outcome)


def find_fault(video: Decoded, decord: Decord) -> str:
    """Why ffmpeg has to read a video on the fly; '' = decord does.

    Raises:
        VideoError: ffmpeg cannot either.
        OSError: decord cannot be started.
    """
    if (np.diff(video.outcome.timing.times) <= 0).any():
        # decord would find one frame or the other, differently from call to call.
        fault = "two frames have the same time, and decord seeks by time"
    else:
        fault = decord.fault(video)
    if fault == UNKNOWN_CODEC:
        fault = f"decord cannot decode {video.outcome.codec.upper()}"
    if fault:
        _check_ffmpeg(video, fault)
    return fault


def _check_ffmpeg(video: Decoded, fault: str) -> None:
    """Raise VideoError unless ffmpeg finds some frames of a video again.

    It does not if the size of the frames changes, because it then counts them from 0 again.
    """
    path, count = video.path, len(video.thumbnails)
    places = sorted({0, count // 2, count - 1})
    try:
        found = read_by_ffmpeg(path, places, size=THUMBNAIL_SIZE, fps=video.fps, flags=BILINEAR)
        agrees = np.array_equal(found, video.thumbnails[places])
    except StoreError:
        agrees = False
    if not agrees:
        raise VideoError(
            f"{path}: {fault}, and ffmpeg does not find frames {places} again (does their size "
            "change?); extract the frames instead (`reader: shards` in the dataset's file)"
        )

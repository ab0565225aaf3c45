"""The work of an extraction worker: the videos of one shard -> a tar of JPEGs and index rows."""

import os
import shlex
import tarfile
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import IO

import simplejpeg

from clipzoo.config import FramesConfig
from clipzoo.data.decoding import (
    Outcome,
    VideoError,
    check_decoded,
    jpeg_command,
    run_ffmpeg,
    split_jpegs,
)
from clipzoo.data.ffmpeg import ffmpeg_version
from clipzoo.data.index import StoreError, member_name
from clipzoo.data.ledger import describe, reason_kind
from clipzoo.data.raw_files import SourceError, check_size
from clipzoo.data.spec import DatasetSpec
from clipzoo.data.timing import frame_rate
from clipzoo.files import ListError, replacing
from clipzoo.frames.comparison import Decord, decode_video, find_fault, thumbnails_command
from clipzoo.frames.manifest import RawVideo, count_frames

Row = dict[str, object]
Report = tuple[list[Row], list[list[str]], list[list[str]]]
"""Index rows, failures and damaged videos ([video_id, reason] each)."""
Describe = Callable[[Path, RawVideo], tuple[Row, str]]
"""Path of a video's file, and the video -> its index row, and what is damaged ('' = nothing)."""


def describe_ffmpeg(spec: DatasetSpec, frames: FramesConfig) -> dict[str, str]:
    """The ffmpeg that makes (for `reader: video`, counts) the frames of a dataset, and its command;
    OSError if ffmpeg cannot be run.

    Returns:
        ffmpeg_version, the first line of `ffmpeg -version`, and ffmpeg_command, the command line
        with `ffmpeg` for the binary and VIDEO for the video. Empty for `reader: directory`.
    """
    if spec.reader == "directory":
        return {}
    if spec.reader == "shards":
        command = jpeg_command(Path("VIDEO"), str(frames.size), frames.quality, spec.fps)
    else:
        command = thumbnails_command(Path("VIDEO"), spec.fps)
    line = shlex.join(["ffmpeg", *command[1:]])
    return {"ffmpeg_version": ffmpeg_version(), "ffmpeg_command": line}


def pack_videos(
    path: Path, root: Path, videos: Iterable[RawVideo], spec: DatasetSpec, frames: FramesConfig
) -> Report:
    """Decode videos into a tar, which is renamed into place when it is complete and on disk.

    Members are `<video_id>/00001.jpg`, ... without times and owners. A broken video leaves
    nothing in the tar.

    Raises:
        StoreError: this machine has too little memory for a video.
        OSError: the tar cannot be written (disk full) and is removed.
    """
    with replacing(path) as part, part.open("wb", buffering=1 << 20) as tar:

        def pack(file: Path, video: RawVideo) -> tuple[Row, str]:
            start = tar.tell()
            try:
                return _pack_video(tar, file, video, spec, frames)
            except (VideoError, StoreError):
                tar.seek(start)
                tar.truncate()
                raise

        report = _describe_all(root, videos, pack)
        # A tar ends with two empty blocks, and is padded to whole records.
        tar.write(bytes(-(tar.tell() + 1024) % tarfile.RECORDSIZE + 1024))
    return report


def describe_videos(
    root: Path, videos: Iterable[RawVideo], spec: DatasetSpec, frames: FramesConfig
) -> Report:
    """Index rows of videos that are not extracted: raw files, or directories of frame files;
    StoreError if this machine has too little memory for a video."""
    if spec.reader == "directory":
        return _describe_all(root, videos, partial(_describe_directory, spec=spec))
    with closing(Decord()) as decord:
        describe = partial(_describe_video, spec=spec, frames=frames, decord=decord)
        return _describe_all(root, videos, describe)


def _describe_all(root: Path, videos: Iterable[RawVideo], describe: Describe) -> Report:
    """What `describe` makes of each video, or why it cannot."""
    rows, failures, damaged = [], [], []
    for video in videos:
        path = root / video.path
        try:
            row, damage = describe(path, video)
        except MemoryError as error:
            # An error of the stage, not a failure of the video: nobody may accept it into the
            # ledger.
            raise StoreError(
                f"{path}: this machine has too little memory to decode it "
                f"({str(error) or 'MemoryError'}); end other programs, set a smaller "
                "runtime.extract_workers, or run the stage on a machine with more; finished shards "
                "are kept"
            ) from error
        except (VideoError, StoreError) as error:
            failures.append([video.video_id, _reason(error)])
            continue
        rows.append(row)
        if damage:
            damaged.append([video.video_id, damage])
    return rows, failures, damaged


def _reason(error: Exception) -> str:
    """Why a video failed, in the words of the ledger."""
    if isinstance(error.__cause__, FileNotFoundError):
        return f"absent: {error}"
    return f"differs: {error}" if isinstance(error, SourceError) else describe(str(error))


def is_as_scanned(root: Path, video: RawVideo, spec: DatasetSpec) -> bool:
    """Whether the file of a video, or its folder of frames, is the one in the manifest."""
    try:
        if spec.reader == "directory":
            _describe_directory(root / video.path, video, spec)
        else:
            check_size(root / video.path, video.size)
    except (VideoError, StoreError):
        return False
    return True


def _pack_video(
    tar: IO[bytes], path: Path, video: RawVideo, spec: DatasetSpec, frames: FramesConfig
) -> tuple[Row, str]:
    check_size(path, video.size)
    outcome = Outcome()
    command = jpeg_command(path, str(frames.size), frames.quality, spec.fps, timed=True)
    offsets, sizes, shapes = [], [], set()
    for number, jpeg in enumerate(split_jpegs(run_ffmpeg(command, outcome)), start=1):
        info = tarfile.TarInfo(member_name(video.video_id, number))
        info.size = len(jpeg)
        tar.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict"))
        offsets.append(tar.tell())
        sizes.append(len(jpeg))
        shapes.add(simplejpeg.decode_jpeg_header(jpeg)[:2])
        tar.write(jpeg)
        tar.write(bytes(-len(jpeg) % tarfile.BLOCKSIZE))
    check_decoded(path, outcome, spec.fps, len(sizes))
    _refuse_damaged(path, outcome, spec)
    if len(shapes) > 1:
        raise VideoError(f"{path}: the size of its frames changes; set frames.size to WxH")
    ((height, width),) = shapes
    row = _row(video, len(sizes), int(width), int(height), _clock(outcome, spec.fps))
    return {**row, "offsets": offsets, "sizes": sizes}, outcome.damage


def _refuse_damaged(path: Path, outcome: Outcome, spec: DatasetSpec) -> None:
    """Raise VideoError if ffmpeg reported damage, or the video is cut, and that is not kept."""
    if outcome.damage and not spec.keep_damaged:
        cut = reason_kind(outcome.damage) == "cut"  # as in the ledger of the copy, without a path
        raise VideoError(outcome.damage if cut else f"{path}: {outcome.damage}")


def _clock(outcome: Outcome, fps: float | None) -> Row:
    """The columns of the index that say when frames are shown."""
    # ffmpeg's filter `fps` makes frames that are exactly even, whatever the file has.
    rate, error = (fps, 0.0) if fps else frame_rate(outcome.timing.times, outcome.fps)
    start = outcome.timing.start_seconds
    return {"fps": rate, "start_seconds": start, "uneven_seconds": error}


def _row(
    video: RawVideo, num_frames: int, width: int, height: int, clock: Row, decord_fault: str = ""
) -> Row:
    row: Row = {"video_id": video.video_id, "path": video.path, "source_size": video.size}
    row |= {"num_frames": num_frames, "width": width, "height": height, **clock}
    return row | {"decord_fault": decord_fault, "offsets": [], "sizes": []}


def _describe_video(
    path: Path, video: RawVideo, spec: DatasetSpec, frames: FramesConfig, decord: Decord
) -> tuple[Row, str]:
    check_size(path, video.size)
    decoded = decode_video(path, str(frames.size), spec.fps)
    _refuse_damaged(path, decoded.outcome, spec)
    fault = find_fault(decoded, decord)
    height, width = decoded.first.shape[:2]
    clock = _clock(decoded.outcome, spec.fps)
    row = _row(video, len(decoded.thumbnails), width, height, clock, fault)
    return row, decoded.outcome.damage


def _describe_directory(path: Path, video: RawVideo, spec: DatasetSpec) -> tuple[Row, str]:
    try:
        with os.scandir(path) as entries:  # opening a named pipe would wait forever
            names = (entry.name for entry in entries if entry.is_file())
            count = count_frames(names, video.path, spec)
        first = path / spec.frame_name(video.path, 0)
        height, width = map(int, simplejpeg.decode_jpeg_header(first.read_bytes())[:2])
    except (ListError, ValueError, OSError) as error:
        raise VideoError(f"{path}: {error}") from error
    if count != video.size:
        raise SourceError(
            f"{path}: has {count} frames, but {video.size} in the manifest: it changed since "
            "`clipzoo scan`; scan again"
        )
    clock: Row = {"fps": spec.fps or 0.0, "start_seconds": 0.0, "uneven_seconds": 0.0}
    return _row(video, count, width, height, clock), ""

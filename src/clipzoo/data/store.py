"""Reading stored frames: tar shards, directories of image files, or raw videos.

All three are described by `data/frames/<dataset>/index.parquet` (shards also by jpegs.npy) and read
by `store.read(video_id, indices)`; indices count the video's frames from 0. `reader` in
datasets/<dataset>.yaml selects one of the three.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tarfile import BLOCKSIZE, LENGTH_NAME
from typing import Protocol

import numpy as np
import pyarrow as pa

from clipzoo.config import Params
from clipzoo.data.index import (
    RESTORE,
    SIZE_FIELD,
    StoreError,
    count_jpegs,
    header_fields,
    index_path,
    member_name,
    open_jpegs,
    read_index,
    read_states,
    shard_name,
)
from clipzoo.data.raw_files import check_size
from clipzoo.data.spec import DatasetSpec, load_spec, raw_root
from clipzoo.data.video import Kept, read_by_decord, read_by_ffmpeg

VIDEO_COLUMNS = ("video_id", "num_frames", "width", "height", "fps")
"""The columns of the index that have the id and the first fields of `VideoInfo`."""


@dataclass(frozen=True, slots=True)
class VideoInfo:
    num_frames: int
    width: int
    height: int
    """The size of the stored frames (px)."""
    fps: float
    """The frames a second as stored; 0 = unknown."""
    row: int
    """The row of the index."""


class Store(Protocol):
    """A dataset's frames."""

    videos: dict[str, VideoInfo]

    def read(self, video_id: str, indices: Sequence[int] | np.ndarray) -> list[bytes] | np.ndarray:
        """Frames of a video; may be called from several threads.

        Args:
            indices: [T], each in 0 .. num_frames - 1, in any order, repeats allowed.

        Returns:
            T JPEG files, or uint8 [T, H, W, 3] in RGB.

        Raises:
            StoreError: the video is unknown, or its file is missing, changed or broken.
        """
        ...


def open_store(params: Params, dataset: str) -> Store:
    """Open the frames of a dataset with the reader that its datasets/<name>.yaml names.

    Raises:
        StoreError: the index is missing, damaged or of another version.
        ConfigError: as `load_spec`.
    """
    spec, path = load_spec(dataset), index_path(dataset)
    if spec.reader == "shards":
        return ShardStore(path)
    store = DirectoryStore if spec.reader == "directory" else VideoStore
    return store(read_index(path), raw_root(params, dataset), spec)


def _videos(table: pa.Table) -> dict[str, VideoInfo]:
    ids, *columns = (table.column(name).to_pylist() for name in VIDEO_COLUMNS)
    rows = zip(*columns, range(table.num_rows), strict=True)
    return {video_id: VideoInfo(*row) for video_id, row in zip(ids, rows, strict=True)}


def _look_up(
    videos: dict[str, VideoInfo], video_id: str, indices: Sequence[int] | np.ndarray
) -> tuple[VideoInfo, list[int]]:
    if video_id not in videos:
        raise StoreError(f"{video_id}: not in the frame store")
    info = videos[video_id]
    frames = [int(i) for i in indices]
    if frames and not 0 <= min(frames) <= max(frames) < info.num_frames:
        raise StoreError(
            f"{video_id}: frames {min(frames)} to {max(frames)} requested; the video has "
            f"0 to {info.num_frames - 1}"
        )
    return info, frames


class ShardStore:
    """JPEGs in tar shards, read at their offsets with pread, so that threads share no position."""

    def __init__(self, index: Path) -> None:
        table = read_index(index, [*VIDEO_COLUMNS, "shard"])
        counts = count_jpegs(table)  # [N]
        self.videos = _videos(table)
        self._directory = index.parent
        self._shards = table.column("shard").to_numpy()
        self._lengths = {shard: state.tar_bytes for shard, state in read_states(index).items()}
        self._starts = np.cumsum(counts) - counts  # [N], each video's first row in jpegs.npy
        self._jpegs = open_jpegs(index, int(counts.sum()))

    def read(self, video_id: str, indices: Sequence[int] | np.ndarray) -> list[bytes]:
        info, frames = _look_up(self.videos, video_id, indices)
        shard = self._shards[info.row]
        path, length = self._directory / shard_name(shard), self._lengths.get(shard, 0)
        start = int(self._starts[info.row])
        try:
            # Without O_NONBLOCK, opening a named pipe would wait forever.
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise StoreError(f"{video_id}: {path} cannot be opened ({error.strerror})") from error
        try:
            if os.fstat(handle).st_size != length:
                raise ValueError(f"has {os.fstat(handle).st_size} bytes; allowed: {length}")
            places = self._jpegs[[start + i for i in frames]].tolist()  # T x [block, size]
            return [
                _read_jpeg(handle, length, member_name(video_id, i + 1), *place)
                for i, place in zip(frames, places, strict=True)
            ]
        except ValueError as error:
            raise StoreError(f"{video_id}: {path} {error}; {RESTORE}") from error
        finally:
            os.close(handle)


def _read_jpeg(handle: int, length: int, name: str, block: int, size: int) -> bytes:
    """The JPEG of the member `name`; ValueError, with what was found, if it is not in its place.

    The shard has `length` bytes; the JPEG begins at a `block` of 512 bytes and has `size` bytes.
    """
    offset = block * BLOCKSIZE
    if not BLOCKSIZE <= offset <= length - size:
        raise ValueError(f"has {length} bytes, and its index has a JPEG of {size} at {offset}")
    # The block before the JPEG is the member's header, read together with it.
    member = os.pread(handle, BLOCKSIZE + size, offset - BLOCKSIZE)
    expected = header_fields(name, size)
    found = member[:LENGTH_NAME].rstrip(b"\0"), member[SIZE_FIELD]
    if found != expected:
        raise ValueError(
            f"has another member at {offset}: found {found}; allowed: {expected} (name, size in "
            "octal digits)"
        )
    return member[BLOCKSIZE:]


class DirectoryStore:
    """One directory of JPEG files per video, as other projects extract them."""

    def __init__(self, table: pa.Table, root: Path, spec: DatasetSpec) -> None:
        self.videos = _videos(table)
        self._paths = table.column("path").to_pylist()
        self._root = root
        self._spec = spec

    def read(self, video_id: str, indices: Sequence[int] | np.ndarray) -> list[bytes]:
        info, frames = _look_up(self.videos, video_id, indices)
        folder = self._paths[info.row]
        paths = [self._root / folder / self._spec.frame_name(folder, i) for i in frames]
        try:
            return [path.read_bytes() for path in paths]
        except OSError as error:
            raise StoreError(f"{video_id}: {error}") from error


class VideoStore:
    """Raw videos, decoded on the fly and resized to the size in the index.

    They are decoded by decord, which is about 20 times slower than shards, or by ffmpeg where the
    index says that decord reads them wrongly (`clipzoo.frames.comparison`). Every call opens a new
    decoder, so threads share none.
    """

    def __init__(self, table: pa.Table, root: Path, spec: DatasetSpec) -> None:
        self.videos = _videos(table)
        self._paths = table.column("path").to_pylist()
        self._sizes = table.column("source_size").to_pylist()
        self._faults = table.column("decord_fault").to_pylist()
        self._starts = table.column("start_seconds").to_pylist()
        self._root = root
        self._fps = spec.fps

    def read(self, video_id: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        info, frames = _look_up(self.videos, video_id, indices)
        path, size = self._root / self._paths[info.row], (info.width, info.height)
        check_size(path, self._sizes[info.row])
        try:
            if self._faults[info.row]:
                return read_by_ffmpeg(path, frames, size=size, fps=self._fps)
            kept = Kept(info.num_frames, self._fps, self._starts[info.row])
            return read_by_decord(path, frames, size=size, kept=kept)
        except MemoryError as error:
            raise StoreError(
                f"{path}: this machine has too little memory for {len(frames)} frames ({error})"
            ) from error

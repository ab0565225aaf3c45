"""Reading stored frames: tar shards, directories of image files, or raw videos.

All three are described by `data/frames/<dataset>/index.parquet` and read by
`store.read(video_id, indices)`; indices count the video's frames from 0. `reader` in
datasets/<dataset>.yaml selects one of the three.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from clipzoo.config import Params
from clipzoo.data.index import (
    FRAMES_DIR,
    StoreError,
    check_size,
    index_path,
    read_index,
    shard_name,
)
from clipzoo.data.spec import DatasetSpec, load_spec, raw_root
from clipzoo.data.video import read_video


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """A stored video."""

    num_frames: int
    width: int
    """Width of the stored frames (px)."""
    height: int
    """Height of the stored frames (px)."""
    fps: float
    """Frames per second as stored; 0 = unknown."""
    row: int
    """Row of the index."""


class Store(Protocol):
    """A dataset's frames."""

    videos: dict[str, VideoInfo]

    def read(self, video_id: str, indices: Sequence[int] | np.ndarray) -> list[bytes] | np.ndarray:
        """Frames of a video; may be called from several threads.

        Args:
            video_id: one of `videos`.
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
        StoreError: the index is missing or of another version.
        ConfigError: as `load_spec`.
    """
    spec = load_spec(dataset)
    table = read_index(index_path(dataset))
    if spec.reader == "shards":
        return ShardStore(table, FRAMES_DIR / dataset)
    root = raw_root(params, dataset)
    if spec.reader == "directory":
        return DirectoryStore(table, root, spec)
    return VideoStore(table, root, spec)


def _videos(table: pa.Table) -> dict[str, VideoInfo]:
    rows = table.select(["video_id", "num_frames", "width", "height", "fps"]).to_pylist()
    return {
        r["video_id"]: VideoInfo(r["num_frames"], r["width"], r["height"], r["fps"], row)
        for row, r in enumerate(rows)
    }


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

    def __init__(self, table: pa.Table, directory: Path) -> None:
        self.videos = _videos(table)
        self._directory = directory
        self._shards = table.column("shard").to_numpy()
        # One flat array per column: tens of millions of Python integers would take gigabytes.
        self._starts, self._offsets = _flat(table.column("offsets"))
        _, self._sizes = _flat(table.column("sizes"))

    def read(self, video_id: str, indices: Sequence[int] | np.ndarray) -> list[bytes]:
        """See `Store.read`."""
        info, frames = _look_up(self.videos, video_id, indices)
        path = self._directory / shard_name(self._shards[info.row])
        start = int(self._starts[info.row])
        try:
            handle = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise StoreError(f"{video_id}: {path} cannot be opened ({error.strerror})") from error
        try:
            places = [(int(self._sizes[start + i]), int(self._offsets[start + i])) for i in frames]
            images = [os.pread(handle, size, offset) for size, offset in places]
        finally:
            os.close(handle)
        if any(len(image) != size for image, (size, _) in zip(images, places, strict=True)):
            raise StoreError(f"{video_id}: {path} is shorter than its index says; extract it again")
        return images


def _flat(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """List column -> where each row starts, and the values of all rows in one array."""
    lists = column.combine_chunks()
    if isinstance(lists, pa.ChunkedArray):
        lists = lists.chunk(0) if lists.num_chunks else pa.array([], column.type)
    return lists.offsets.to_numpy(), lists.values.to_numpy()


class DirectoryStore:
    """One directory of JPEG files per video, as other projects extract them."""

    def __init__(self, table: pa.Table, root: Path, spec: DatasetSpec) -> None:
        self.videos = _videos(table)
        self._paths = table.column("path").to_pylist()
        self._root = root
        self._spec = spec

    def read(self, video_id: str, indices: Sequence[int] | np.ndarray) -> list[bytes]:
        """See `Store.read`."""
        info, frames = _look_up(self.videos, video_id, indices)
        directory = self._root / self._paths[info.row]
        names = [self._spec.frame_template.format(i + self._spec.first_index) for i in frames]
        try:
            return [(directory / name).read_bytes() for name in names]
        except OSError as error:
            raise StoreError(f"{video_id}: {error}") from error


class VideoStore:
    """Raw videos, decoded by decord on the fly and resized to the size in the index.

    About 20 times slower than shards. Every call opens a new decoder, so threads share none.
    """

    def __init__(self, table: pa.Table, root: Path, spec: DatasetSpec) -> None:
        self.videos = _videos(table)
        self._paths = table.column("path").to_pylist()
        self._sizes = table.column("source_size").to_pylist()
        self._seekable = table.column("seekable").to_pylist()
        self._root = root
        self._fps = spec.fps

    def read(self, video_id: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See `Store.read`."""
        info, frames = _look_up(self.videos, video_id, indices)
        path = self._root / self._paths[info.row]
        check_size(path, self._sizes[info.row])
        return read_video(
            path,
            frames,
            size=(info.width, info.height),
            fps=self._fps,
            seekable=self._seekable[info.row],
        )

"""The index of a dataset's frames, index.parquet and jpegs.npy in data/frames/<dataset>/, and its
parts.

Extraction writes them and the store reads them. index.parquet has one row for each video. Its
metadata hold the ffmpeg version and command that made the frames (`ffmpeg_version`,
`ffmpeg_command`) and, for each shard, the videos that could not be read:

    python -c "from pyarrow import parquet as p; print(p.read_schema('index.parquet').metadata)"

jpegs.npy has one row for each JPEG, video after video in the order of index.parquet. It is mapped
into memory, so that the processes of a machine share one copy of tens of millions of rows. The part
of one shard has both, in one parquet file.
"""

import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from clipzoo.files import replacing

FRAMES_DIR = Path("data/frames")
INDEX_COLUMNS = {
    "video_id": pa.string(),
    "path": pa.string(),  # of the raw video, relative to the dataset's raw root
    "source_size": pa.int64(),  # bytes; number of files where the source is a directory
    "shard": pa.int32(),  # -1 where nothing was extracted
    "num_frames": pa.int32(),
    "width": pa.int32(),
    "height": pa.int32(),
    "fps": pa.float32(),  # of the stored frames; 0 = unknown
    "seekable": pa.bool_(),  # False: decord must read the raw video from its start
}
PART_COLUMNS = {
    **INDEX_COLUMNS,
    "offsets": pa.list_(pa.int64()),  # of each JPEG in the shard, bytes
    "sizes": pa.list_(pa.int32()),  # of each JPEG, bytes
}
JPEG_COLUMNS = 2
"""Of jpegs.npy, uint32: the JPEG's offset in its shard in blocks of 512 bytes (contents of tar
members start at whole blocks), and its size in bytes."""
METADATA_KEY = b"clipzoo"
"""Metadata key of the states of all shards (`ShardState`), as JSON."""


class StoreError(OSError):
    """Frames cannot be read; the message names the video and the file."""


@dataclass(frozen=True)
class ShardState:
    """A finished shard, as recorded in the metadata of its part and of the index."""

    fingerprint: str
    tar_bytes: int
    """Size of the tar; 0 if there is none."""
    num_frames: int
    failures: list[list[str]] = field(default_factory=list)
    """[video_id, reason] of videos that are not in the shard."""
    damaged: list[list[str]] = field(default_factory=list)
    """[video_id, reason] of damaged videos in the shard (`keep_damaged`)."""


def index_path(dataset: str) -> Path:
    """Path of the index of a dataset's frames."""
    return FRAMES_DIR / dataset / "index.parquet"


def jpegs_path(index: Path) -> Path:
    """Path of the table of JPEGs that belongs to an index."""
    return index.with_name("jpegs.npy")


def read_index(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read an index, or some of its columns, in the given order.

    Args:
        path: of index.parquet.
        columns: among INDEX_COLUMNS; None = all.

    Raises:
        StoreError: the file is missing or is not an index of this version.
    """
    names, table = list(INDEX_COLUMNS), None
    try:
        with parquet.ParquetFile(path) as file:
            if file.schema_arrow.names == names:
                table = file.read(list(columns or names))
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f"{path}: cannot be read ({error}); run extract_frames") from error
    if table is None:
        raise StoreError(f"{path}: index of another version; run extract_frames again")
    return table.select(list(columns or names))


def count_jpegs(table: pa.Table) -> np.ndarray:
    """Number of JPEGs in the shards for each row of an index, int64 [N]; 0 if not extracted.

    Args:
        table: with the columns shard and num_frames.
    """
    counts = table.column("num_frames").to_numpy().astype(np.int64)  # [N]
    return np.where(table.column("shard").to_numpy() < 0, 0, counts)  # [N]


def open_jpegs(index: Path, count: int) -> np.ndarray:
    """Map the table of JPEGs into memory: uint32 [count, 2] (`JPEG_COLUMNS`), read-only.

    Args:
        index: path of the index.parquet that it belongs to.
        count: number of JPEGs by that index.

    Raises:
        StoreError: the file is missing, damaged, or of another length.
    """
    path = jpegs_path(index)
    fix = "run `dvc checkout`, or extract_frames again"
    try:
        jpegs = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise StoreError(f"{path}: cannot be read ({error}); {fix}") from error
    if jpegs.dtype != np.dtype("<u4") or jpegs.shape != (count, JPEG_COLUMNS):
        raise StoreError(
            f"{path}: found {jpegs.dtype} {list(jpegs.shape)}; {index} needs uint32 "
            f"{[count, JPEG_COLUMNS]}; {fix}"
        )
    return np.asarray(jpegs)  # still mapped; indexing a plain array is faster


def start_jpegs(file: IO[bytes], count: int) -> None:
    """Write the header of a table of `count` JPEGs, the rows of which follow (`part_jpegs`)."""
    header = {"descr": "<u4", "fortran_order": False, "shape": (count, JPEG_COLUMNS)}
    np.lib.format.write_array_header_1_0(file, header)  # pyright: ignore[reportArgumentType]


def part_jpegs(part: pa.Table) -> np.ndarray:
    """Rows uint32 [F, 2] of the table of JPEGs, from the lists in a part."""
    offsets, sizes = (
        part.column(name).combine_chunks().flatten().to_numpy() for name in ("offsets", "sizes")
    )  # [F] each
    assert not (offsets % tarfile.BLOCKSIZE).any(), "tar members are in whole blocks"
    assert offsets.max(initial=0) // tarfile.BLOCKSIZE < 2**32, "shards are below 2 TB"
    return np.stack([offsets // tarfile.BLOCKSIZE, sizes], axis=1).astype("<u4")  # [F, 2]


def make_part(table: pa.Table, jpegs: np.ndarray) -> pa.Table:
    """A part (columns PART_COLUMNS) of some rows of an index and their JPEGs, uint32 [F, 2]."""
    ends = np.cumsum(count_jpegs(table), dtype=np.int32)  # [N]
    starts = pa.array(np.concatenate([[np.int32(0)], ends]))  # [N + 1]
    lists = (jpegs[:, 0] * np.int64(tarfile.BLOCKSIZE), jpegs[:, 1].astype(np.int32))  # [F] each
    for name, values in zip(("offsets", "sizes"), lists, strict=True):
        table = table.append_column(name, pa.ListArray.from_arrays(starts, values))
    return table


def read_failures(path: Path) -> dict[str, str]:
    """Videos of the manifest that are missing from an index: {video_id: reason}."""
    states = read_states(path).values()
    return {video_id: reason for state in states for video_id, reason in state.failures}


def shard_name(shard: int) -> str:
    """File name of a shard."""
    return f"shard-{shard:05d}.tar"


def check_size(path: Path, size: int) -> None:
    """Raise StoreError if a file is missing or its size (bytes) differs from the manifest's."""
    try:
        num_bytes = path.stat().st_size
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error
    if num_bytes != size:
        raise StoreError(
            f"{path}: has {num_bytes} bytes, its manifest says {size}: it changed since "
            "`python -m clipzoo scan`; scan again"
        )


def write_index(
    table: pa.Table,
    states: Mapping[int, ShardState],
    path: Path,
    ffmpeg: Mapping[str, str] | None = None,
) -> None:
    """Write an index, or a part of one, atomically.

    Args:
        table: with the columns INDEX_COLUMNS; those of a part are PART_COLUMNS.
        states: of the shards in `table`.
        path: the file.
        ffmpeg: how the frames were made, for people to read; goes into the metadata unchanged.

    Raises:
        OSError: the file cannot be written; no partial file is left.
    """
    shards = {str(shard): asdict(state) for shard, state in states.items()}
    metadata = {METADATA_KEY: json.dumps(shards), **(ffmpeg or {})}
    table = table.replace_schema_metadata(metadata)
    with replacing(path) as part:
        parquet.write_table(table, part, compression="zstd", use_dictionary=False)


def read_states(path: Path) -> dict[int, ShardState]:
    """States in the metadata of a part or an index; empty if the file is missing or neither."""
    try:
        metadata = parquet.read_schema(path).metadata or {}
        states = json.loads(metadata.get(METADATA_KEY, b"{}"))
        return {int(shard): ShardState(**state) for shard, state in states.items()}
    except (OSError, ValueError, TypeError):  # pa.ArrowInvalid is a ValueError
        return {}

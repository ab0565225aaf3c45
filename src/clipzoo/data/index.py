"""The index of a dataset's frames, data/frames/<dataset>/index.parquet, and its parts.

Extraction writes it and the store reads it. Its metadata hold the ffmpeg version and command that
made the frames (`ffmpeg_version`, `ffmpeg_command`) and, for each shard, the videos that could not
be read:

    python -c "from pyarrow import parquet as p; print(p.read_schema('index.parquet').metadata)"
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

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
    "offsets": pa.list_(pa.int64()),  # of each JPEG in the shard, bytes
    "sizes": pa.list_(pa.int32()),  # of each JPEG, bytes
}


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


def read_index(path: Path) -> pa.Table:
    """Read an index; columns are INDEX_COLUMNS.

    Raises:
        StoreError: the file is missing or is not an index of this version.
    """
    try:
        table = parquet.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f"{path}: cannot be read ({error}); run extract_frames") from error
    if table.schema.names != list(INDEX_COLUMNS):
        raise StoreError(f"{path}: index of another version; run extract_frames again")
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
        table: with the columns INDEX_COLUMNS.
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

"""data/frames/<dataset>/index.parquet: where each stored video's frames are; and its parts.

Extraction writes it, the store reads it. Its metadata say which ffmpeg made the frames by which
command (`ffmpeg_version`, `ffmpeg_command`), and of each shard which videos could not be read:

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
"""Of the index's metadata: what extraction knows of each shard, as JSON."""


class StoreError(OSError):
    """Frames cannot be read; the message names the video and the file."""


@dataclass(frozen=True)
class ShardState:
    """What is known of a finished shard; kept in the metadata of its part and of the index."""

    fingerprint: str
    tar_bytes: int
    """Of the tar; 0 where there is none."""
    num_frames: int
    failures: list[list[str]] = field(default_factory=list)
    """[video_id, reason] of videos that are not in it."""
    damaged: list[list[str]] = field(default_factory=list)
    """[video_id, reason] of damaged videos that are (`keep_damaged`)."""


def index_path(dataset: str) -> Path:
    """Where the index of a dataset's frames is."""
    return FRAMES_DIR / dataset / "index.parquet"


def read_index(path: Path) -> pa.Table:
    """Read an index; columns are INDEX_COLUMNS.

    Raises:
        StoreError: the file is absent or no such index.
    """
    try:
        table = parquet.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f"{path}: cannot be read ({error}); run extract_frames") from error
    if table.schema.names != list(INDEX_COLUMNS):
        raise StoreError(f"{path}: is an index of another version; run extract_frames again")
    return table


def read_failures(path: Path) -> dict[str, str]:
    """Videos of the manifest that an index lacks, and why: {video_id: reason}."""
    states = read_states(path).values()
    return {video_id: reason for state in states for video_id, reason in state.failures}


def shard_name(shard: int) -> str:
    """File name of a shard."""
    return f"shard-{shard:05d}.tar"


def check_size(path: Path, size: int) -> None:
    """Raise StoreError if a file is absent or its size (bytes) is not the one of the manifest."""
    try:
        found = path.stat().st_size
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error
    if found != size:
        raise StoreError(
            f"{path}: has {found} bytes, its manifest says {size}: it changed since "
            "`python -m clipzoo scan`; scan again"
        )


def write_index(
    table: pa.Table,
    states: Mapping[int, ShardState],
    path: Path,
    ffmpeg: Mapping[str, str] | None = None,
) -> None:
    """Write an index, or a part of it, which gets its name when it is whole.

    Args:
        table: with the columns INDEX_COLUMNS.
        states: of the shards in it.
        path: of the file.
        ffmpeg: how its frames were made, for people to read; kept in the metadata as it is.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    shards = {str(shard): asdict(state) for shard, state in states.items()}
    metadata = {METADATA_KEY: json.dumps(shards), **(ffmpeg or {})}
    table = table.replace_schema_metadata(metadata)
    with replacing(path) as part:
        parquet.write_table(table, part, compression="zstd", use_dictionary=False)


def read_states(path: Path) -> dict[int, ShardState]:
    """States in the metadata of a part or an index; none if the file is absent or another's."""
    try:
        metadata = parquet.read_schema(path).metadata or {}
        states = json.loads(metadata.get(METADATA_KEY, b"{}"))
        return {int(shard): ShardState(**state) for shard, state in states.items()}
    except (OSError, ValueError, TypeError):  # pa.ArrowInvalid is a ValueError
        return {}

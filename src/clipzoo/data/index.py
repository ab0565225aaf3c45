"""The index of a dataset's frames, index.parquet and jpegs.npy in data/frames/<dataset>/, and its
parts.

Extraction writes them, and the store reads them. index.parquet has one row for each video. Its
metadata have the version and the command of the ffmpeg that made the frames (`ffmpeg_version`,
`ffmpeg_command`) and, for each shard, the videos that could not be read:

    python -c "from pyarrow import parquet as p; print(p.read_schema('index.parquet').metadata)"

jpegs.npy has one row for each JPEG, video after video in the order of index.parquet. It is mapped
into memory, so that the processes of a machine share one copy of tens of millions of rows. The part
of one shard has the rows of both tables, in one parquet file.

Damage is found before another frame can be taken for the one asked for. index.parquet and parts
contain a hash of themselves, which is compared before anything else is read. A row of jpegs.npy is
compared when its frame is read (`clipzoo.data.store`): the header of the tar's member must have the
name of the frame and the size in the row. So a store of any size opens at once.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from clipzoo.files import replacing, require_regular

FRAMES_DIR = Path("data/frames")
INDEX_NAME = "index.parquet"
FAILURE_COLUMNS = ("video_id", "reason")
INDEX_COLUMNS = {
    "video_id": pa.string(),
    "path": pa.string(),  # of the raw video, relative to the dataset's raw root
    "source_size": pa.int64(),  # bytes; number of files where the source is a directory
    "shard": pa.int32(),  # -1 where nothing was extracted
    "num_frames": pa.int32(),
    "width": pa.int32(),
    "height": pa.int32(),
    "fps": pa.float32(),  # of the stored frames; 0 = unknown
    "decord_fault": pa.string(),  # why ffmpeg decodes the raw video on the fly; '' = decord does
    "start_seconds": pa.float64(),  # of the first picture, on a player's clock; NaN = unknown
    "uneven_seconds": pa.float32(),  # largest distance of a frame from even ones; NaN = unknown
}
LATER_COLUMNS = ("start_seconds", "uneven_seconds")
"""Columns that earlier versions did not write; they are read as NaN."""
PART_COLUMNS = {
    **INDEX_COLUMNS,
    "offsets": pa.list_(pa.int64()),  # of each JPEG in the shard, bytes
    "sizes": pa.list_(pa.int32()),  # of each JPEG, bytes
}
PLAN_COLUMNS = {name: INDEX_COLUMNS[name] for name in ("shard", "video_id", "path", "source_size")}
JPEG_COLUMNS = 2
"""The columns of jpegs.npy, uint32: the JPEG's offset in its shard in blocks of 512 bytes (contents
of tar members start at whole blocks), and its size in bytes."""
SIZE_FIELD = slice(124, 136)
"""The place of the size in the header of a tar's member; the name is at the start."""
METADATA_KEY = b"clipzoo"
"""The metadata key of the states of all shards (`ShardState`), as JSON."""
HASH_KEY = b"hash"
HASH_MARK = b"blake2b-128 of this file with zeros in its place: "
"""The value of HASH_KEY, without the hash that follows. Metadata are not compressed, so the file
has both as they are."""
NO_HASH = b"0" * 32
RESTORE = "run `dvc checkout` to restore it, or extract_frames to make it again"


class StoreError(OSError):
    """Frames cannot be read; the message names the video and the file."""


@dataclass(frozen=True)
class ShardState:
    """A finished shard, as recorded in the metadata of its part and of the index."""

    fingerprint: str
    tar_bytes: int
    """The size of the tar; 0 if there is none."""
    num_frames: int
    failures: list[list[str]] = field(default_factory=list)
    """[video_id, reason] for each video that could not be read."""
    damaged: list[list[str]] = field(default_factory=list)
    """[video_id, reason] for each damaged video in the shard (`keep_damaged`)."""
    absent: list[tuple[int, str, str, int]] = field(default_factory=list)
    """(position, video_id, path, size) for each video that the shard was made from but has no row
    of: failures, and videos that have left the manifest since. The position, ascending, is the one
    among all videos that the shard was made from."""


class Source(NamedTuple):
    """The columns of a row that say which file its frames were made from, and their number."""

    video_id: str
    path: str
    size: int
    num_frames: int


def index_path(dataset: str) -> Path:
    return FRAMES_DIR / dataset / INDEX_NAME


def failures_path(dataset: str) -> Path:
    """Path of the list of videos that extraction could not read, also where it stopped for them."""
    return FRAMES_DIR / dataset / "missing.csv"


def jpegs_path(index: Path) -> Path:
    return index.with_name("jpegs.npy")


def read_index(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read an index: all columns, or some of INDEX_COLUMNS in the given order; StoreError if the
    file is missing or damaged, or is not an index of this version."""
    return _read_table(path, list(INDEX_COLUMNS), columns)


def read_shards(path: Path) -> dict[int, tuple[ShardState, list[Source]]]:
    """The state and the rows of each shard of an index or a part, in the order of the rows.

    Empty if the file is missing, damaged or of another version.
    """
    states = read_states(path)
    try:
        names = list(INDEX_COLUMNS if path.name == INDEX_NAME else PART_COLUMNS)
        table = _read_table(path, names, ("video_id", "path", "source_size", "num_frames"))
    except StoreError:
        return {}
    rows = list(map(Source, *(column.to_pylist() for column in table.columns)))
    frames = np.cumsum([row.num_frames for row in rows], dtype=np.int64)  # [N]
    lengths = [state.num_frames for state in states.values()]
    # Every row has at least one frame, so the numbers of frames tell where a shard's rows end.
    ends = np.searchsorted(frames, np.cumsum(lengths), side="right").tolist()  # one for each shard
    assert not states or ends[-1] == len(rows), "the states are those of the rows"
    starts = [0, *ends]
    return {
        shard: (state, rows[start:end])
        for (shard, state), start, end in zip(states.items(), starts, ends, strict=False)
    }


def read_part(path: Path) -> pa.Table:
    """Read the part of one shard, columns PART_COLUMNS; raises as `read_index`."""
    return _read_table(path, list(PART_COLUMNS))


def _read_table(path: Path, names: list[str], columns: Sequence[str] | None = None) -> pa.Table:
    """Columns of an index or a part; those of earlier versions are brought up to date.

    It is read without Arrow's threads: one of them may be the last to hold the content, which is
    Python's, and free it when Python is already ending, which aborts the process
    (`runtime.ending`).
    """
    wanted = list(columns or names)
    with parquet.ParquetFile(pa.BufferReader(_read_whole(path))) as file:
        found = file.schema_arrow.names
        # Earlier versions had `seekable` in place of `decord_fault`.
        renamed = ["decord_fault" if name == "seekable" else name for name in found]
        earlier = [name for name in names if name not in LATER_COLUMNS]
        if renamed not in (names, earlier):
            raise StoreError(f"{path}: index of another version; run extract_frames again")
        stored = dict(zip(renamed, found, strict=True))
        table = file.read([stored[n] for n in wanted if n in stored], use_threads=False)
    faults = {True: "", False: "decord seeks to other frames than it plays"}
    if "seekable" in table.column_names:
        values = [faults[value] for value in table["seekable"].to_pylist()]
        table = table.append_column("decord_fault", pa.array(values, pa.string()))
    for name in wanted:
        if name not in stored:
            unknown = pa.array(np.full(table.num_rows, np.nan), INDEX_COLUMNS[name])
            table = table.append_column(name, unknown)
    return pa.table({name: table[name] for name in wanted})  # without metadata


def _read_whole(path: Path) -> bytes:
    """The content of an index or a part; StoreError if it is missing or damaged."""
    require_regular(path, lambda text: StoreError(f"{text}; run extract_frames"))
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}); {RESTORE}") from error
    place = content.rfind(HASH_MARK) + len(HASH_MARK)
    if place < len(HASH_MARK):  # rfind gave -1
        raise StoreError(
            f"{path}: cannot be read (it contains no hash: damaged, or of another version); "
            f"{RESTORE}"
        )
    expected, found = content[place : place + len(NO_HASH)], _hash(content, place)
    if expected != found:
        raise StoreError(
            f"{path}: cannot be read (damaged: found hash {found.decode()}; allowed: "
            f"{expected.decode('ascii', 'replace')!r}, which it contains); {RESTORE}"
        )
    return content


def _hash(content: bytes, place: int) -> bytes:
    """The hash of a file's content, in hex, as if NO_HASH were at `place`."""
    digest = hashlib.blake2b(content[:place] + NO_HASH, digest_size=len(NO_HASH) // 2)
    digest.update(content[place + len(NO_HASH) :])
    return digest.hexdigest().encode()


def count_jpegs(table: pa.Table) -> np.ndarray:
    """Number of JPEGs in the shards for each row of an index, int64 [N]; 0 if not extracted."""
    counts = table.column("num_frames").to_numpy().astype(np.int64)  # [N]
    return np.where(table.column("shard").to_numpy() < 0, 0, counts)  # [N]


def open_jpegs(index: Path, count: int) -> np.ndarray:
    """Map the table of JPEGs into memory: uint32 [count, 2] (`JPEG_COLUMNS`), read-only.

    Args:
        count: number of JPEGs according to `index`, the index.parquet beside the table.

    Raises:
        StoreError: the file is missing, or does not have the header and the length of this table.
    """
    path, header = jpegs_path(index), jpegs_header(count)
    num_bytes = len(header) + count * JPEG_COLUMNS * 4
    require_regular(path, lambda text: StoreError(f"{text}; {RESTORE}"))
    try:
        with path.open("rb") as file:
            start, found = file.read(len(header)), path.stat().st_size
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}); {RESTORE}") from error
    if start != header or found != num_bytes:
        raise StoreError(
            f"{path}: found {found} bytes, header {start[10:].rstrip()!r}; {index} needs "
            f"{num_bytes}, header {header[10:].rstrip()!r}; {RESTORE}"
        )
    shape = (count, JPEG_COLUMNS)
    jpegs = np.memmap(path, "<u4", mode="r", offset=len(header), shape=shape)
    return np.asarray(jpegs)  # still mapped; indexing a plain array is faster


def jpegs_header(count: int) -> bytes:
    """What a table of `count` JPEGs starts with; its rows follow (`part_jpegs`)."""
    header = {"descr": "<u4", "fortran_order": False, "shape": (count, JPEG_COLUMNS)}
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, header)  # pyright: ignore[reportArgumentType]
    return file.getvalue()


def part_jpegs(part: pa.Table) -> np.ndarray:
    """Rows uint32 [F, 2] of the table of JPEGs, from the lists in a part."""
    offsets, sizes = (
        part.column(name).combine_chunks().flatten().to_numpy() for name in ("offsets", "sizes")
    )  # [F] each
    assert not (offsets % tarfile.BLOCKSIZE).any(), "tar members are in whole blocks"
    assert offsets.max(initial=0) // tarfile.BLOCKSIZE < 2**32, "shards are below 2 TiB"
    return np.stack([offsets // tarfile.BLOCKSIZE, sizes], axis=1).astype("<u4")  # [F, 2]


def make_part(table: pa.Table, jpegs: np.ndarray) -> pa.Table:
    """A part (columns PART_COLUMNS) of some rows of an index and their JPEGs, uint32 [F, 2]."""
    ends = np.cumsum(count_jpegs(table), dtype=np.int32)  # [N]
    starts = pa.array(np.concatenate([[np.int32(0)], ends]))  # [N + 1]
    lists = (jpegs[:, 0] * np.int64(tarfile.BLOCKSIZE), jpegs[:, 1].astype(np.int32))  # [F] each
    for name, values in zip(("offsets", "sizes"), lists, strict=True):
        table = table.append_column(name, pa.ListArray.from_arrays(starts, values))
    return table


def read_plan(path: Path) -> tuple[pa.Table, dict[bytes, bytes]]:
    """Read a plan, columns PLAN_COLUMNS, and its metadata; raises as `read_index`."""
    return _read_table(path, list(PLAN_COLUMNS)), read_metadata(path)


def read_metadata(path: Path) -> dict[bytes, bytes]:
    """The metadata of an index, a part or a plan; empty if it is missing or damaged."""
    try:
        return parquet.read_schema(pa.BufferReader(_read_whole(path))).metadata or {}
    except (OSError, ValueError):  # StoreError is an OSError
        return {}


def read_failures(path: Path) -> dict[str, str]:
    """The videos that could not be read, according to an index: {video_id: reason}."""
    states = read_states(path).values()
    return {video_id: reason for state in states for video_id, reason in state.failures}


def shard_name(shard: int) -> str:
    return f"shard-{shard:05d}.tar"


def member_name(video_id: str, number: int) -> str:
    """Name of a frame in its shard; frames are counted from 1."""
    return f"{video_id}/{number:05d}.jpg"


def header_fields(name: str, size: int) -> tuple[bytes, bytes]:
    """Name (without the zeros after it) and size, as the header of a member of a shard has them.

    The header has the first 100 characters of a name, in ASCII; if that is not the whole name, a
    PAX header before it has it. Sizes are octal digits.
    """
    return name.encode("ascii", "replace")[: tarfile.LENGTH_NAME], b"%011o\0" % size


def write_index(
    table: pa.Table,
    states: Mapping[int, ShardState],
    path: Path,
    more: Mapping[str, str] | None = None,
    *,
    durable: bool = True,
) -> None:
    """Write an index, a part of one or a plan, atomically.

    Args:
        table: has the columns INDEX_COLUMNS, PART_COLUMNS or PLAN_COLUMNS.
        states: the states of the shards in `table`, in the order of their rows.
        more: goes into the metadata unchanged: how the frames were made, for people to read.
        durable: wait for the disk, and remove what killed processes left of this file. Without it,
            the files of many shards take time linear in their number, and a power failure may leave
            one torn, which its hash shows.

    Raises:
        OSError: the file cannot be written; no partial file is left.
    """
    shards = {str(shard): asdict(state) for shard, state in states.items()}
    for state in shards.values():
        if not state["absent"]:  # so that indexes from before this key stay the same bytes
            del state["absent"]
    metadata = {METADATA_KEY: json.dumps(shards), **(more or {}), HASH_KEY: HASH_MARK + NO_HASH}
    buffer = pa.BufferOutputStream()
    parquet.write_table(
        table.replace_schema_metadata(metadata), buffer, compression="zstd", use_dictionary=False
    )
    content = buffer.getvalue().to_pybytes()
    place = content.rfind(HASH_MARK + NO_HASH) + len(HASH_MARK)
    with replacing(path, durable=durable, sweep=durable) as part, part.open("wb") as file:
        for piece in (content[:place], _hash(content, place), content[place + len(NO_HASH) :]):
            file.write(piece)


def read_states(path: Path) -> dict[int, ShardState]:
    """The states in the metadata of a part or an index; empty if it is missing or damaged."""
    try:
        states = json.loads(read_metadata(path).get(METADATA_KEY, b"{}"))
        return {int(shard): ShardState(**state) for shard, state in states.items()}
    except (ValueError, TypeError):
        return {}

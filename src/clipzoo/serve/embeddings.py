"""A parquet file of video embeddings, and search in it by a sentence.

Columns: `video`, the path or id; `start` and `end` in seconds, null where the row is the whole
video; `embedding`, D float32 of unit length as 4 D bytes, little-endian. As a list of numbers, the
same embeddings take five times as long to read, since parquet notes of each number which list it is
in. The metadata have the digest of the weights, because embeddings of two models cannot be
compared.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from clipzoo.files import ListError, replacing, require_regular

WEIGHTS_KEY = b"clipzoo.weights_sha256"
COLUMNS = ("video", "start", "end", "embedding")
FLOAT = np.dtype("<f4")
OPTIONS: dict[str, Any] = {
    "compression": {name: "none" if name == "embedding" else "zstd" for name in COLUMNS},
    "use_dictionary": ["video"],
    "write_statistics": False,
}
GROUP_BYTES = 1 << 26
"""Embeddings of one row group, which is in memory before it is written."""
BLOCK_BYTES = 1 << 21
"""Embeddings that are compared at once: those of a block stay in the processor's cache."""


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """A video, or a window of it, as one row."""

    video: str
    embedding: np.ndarray
    """[D] float32, of unit length."""
    start: float | None = None
    """Seconds; None = the row is the whole video."""
    end: float | None = None


class Found(NamedTuple):
    """A row that search returns."""

    video: str
    cosine: float
    start: float | None
    end: float | None


def write_embeddings(
    rows: Iterable[Embedded], path: str | Path, dim: int, weights_sha256: str
) -> int:
    """Write rows as they come, and return their number; DiskError if the disk is full.

    Args:
        dim: D.
        weights_sha256: digest of the weights that embedded them.
    """
    binary, seconds = pa.binary(FLOAT.itemsize * dim), pa.float64()
    fields = zip(COLUMNS, (pa.string(), seconds, seconds, binary), strict=True)
    schema = pa.schema(list(fields), {WEIGHTS_KEY: weights_sha256.encode()})
    rows, num_rows, size = iter(rows), 0, max(1, GROUP_BYTES // binary.byte_width)
    with (
        replacing(Path(path)) as part,
        parquet.ParquetWriter(part, schema, **OPTIONS) as writer,
    ):
        while group := list(islice(rows, size)):
            embeddings = np.stack([row.embedding for row in group]).astype(FLOAT)  # [n, D]
            data = pa.py_buffer(np.ascontiguousarray(embeddings))
            columns = [
                pa.array([row.video for row in group], pa.string()),
                pa.array([row.start for row in group], seconds),
                pa.array([row.end for row in group], seconds),
                pa.FixedSizeBinaryArray.from_buffers(binary, len(group), [None, data]),
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema), len(group))
            num_rows += len(group)
    return num_rows


def search(path: str | Path, query: np.ndarray, weights_sha256: str, top: int) -> list[Found]:
    """The rows nearest to a query, the best first; of equal ones, that which is first in the file.

    Every row is compared, a block at a time. Memory grows by 4 bytes a row.

    Args:
        path: a file of `write_embeddings`.
        query: [D] float32, of unit length.
        weights_sha256: digest of the weights that made the query.
        top: how many are returned.

    Raises:
        ListError: the file is missing, damaged, or not such a file, or another model made it.
    """
    require_regular(path)
    try:
        with parquet.ParquetFile(path, memory_map=True) as file:
            _check(file, path, len(query), weights_sha256)
            if not file.metadata.num_rows:
                raise ListError(f"{path}: has no row; embed some videos")
            cosines = _cosines(file, query.astype(FLOAT))  # [N]
            best = _highest(cosines, top)
            return [
                Found(row["video"], float(cosines[i]), row["start"], row["end"])
                for i, row in zip(best.tolist(), _rows(file, best.tolist()), strict=True)
            ]
    except (OSError, pa.ArrowException) as error:
        raise ListError(f"{path}: cannot be read ({error}); `clipzoo embed` writes it") from error


def _check(file: parquet.ParquetFile, path: str | Path, dim: int, weights_sha256: str) -> None:
    """Raise ListError unless a file has embeddings of this model."""
    schema = file.schema_arrow
    metadata = schema.metadata or {}
    if WEIGHTS_KEY not in metadata or tuple(schema.names) != COLUMNS:
        raise ListError(f"{path}: not a file of embeddings; `clipzoo embed` writes one")
    if (found := metadata[WEIGHTS_KEY].decode(errors="replace")) != weights_sha256:
        raise ListError(
            f"{path}: was written by another model (weights {found[:12]}, not "
            f"{weights_sha256[:12]}); give that with --model, or embed the videos again"
        )
    if schema.field("embedding").type != pa.binary(FLOAT.itemsize * dim):
        raise ListError(
            f"{path}: embedding: found {schema.field('embedding').type}; allowed: "
            f"{FLOAT.itemsize * dim} bytes; embed the videos again"
        )


def _cosines(file: parquet.ParquetFile, query: np.ndarray) -> np.ndarray:
    """The cosine of every row with a query [D], [N] float32."""
    cosines, done = np.empty(file.metadata.num_rows, np.float32), 0
    for matrix in _blocks(file, len(query)):
        cosines[done : done + len(matrix)] = matrix @ query
        done += len(matrix)
    return cosines


def _blocks(file: parquet.ParquetFile, dim: int) -> Iterator[np.ndarray]:
    """The embeddings, [n, D] float32 at a time, without a copy."""
    rows = max(1, BLOCK_BYTES // (FLOAT.itemsize * dim))
    for batch in file.iter_batches(rows, columns=["embedding"], use_threads=False):
        column = batch.column(0)
        if column.null_count:
            raise pa.ArrowInvalid("an embedding is null")
        values = np.frombuffer(column.buffers()[1], FLOAT).reshape(-1, dim)
        yield values[column.offset : column.offset + len(column)]


def _highest(cosines: np.ndarray, top: int) -> np.ndarray:
    """Positions of the highest of [N] values, the highest first; of equal ones the lower first."""
    if top < len(cosines):
        least = np.partition(cosines, len(cosines) - top)[len(cosines) - top]
        candidates = np.flatnonzero(cosines >= least)
    else:
        candidates = np.arange(len(cosines))
    return candidates[np.argsort(-cosines[candidates], kind="stable")][:top]


def _rows(file: parquet.ParquetFile, positions: list[int]) -> list[dict[str, Any]]:
    """Video, start and end of some rows; only the row groups that have them are read."""
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    ends = np.cumsum(sizes)
    groups = np.searchsorted(ends, positions, side="right")  # the group of each position
    found: dict[int, dict[str, Any]] = {}
    for group in sorted(set(groups.tolist())):
        table = file.read_row_group(group, columns=list(COLUMNS[:3]))
        first = int(ends[group]) - sizes[group]
        inside = [p for p, g in zip(positions, groups, strict=True) if g == group]
        rows = table.take([position - first for position in inside]).to_pylist()
        found |= dict(zip(inside, rows, strict=True))
    return [found[position] for position in positions]

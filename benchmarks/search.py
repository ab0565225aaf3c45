"""Time of one search among many embeddings, and of the same embeddings as lists of numbers.

    python benchmarks/search.py [--rows N] [--dims 64 512] [--rounds N]

Random embeddings of unit length are written by `write_embeddings`, and as a parquet column of lists
by pyarrow's defaults, as another program would. Then, in turns, a sentence is sought in both. The
first round reads the files from the disk, and is printed by itself; in the others they are in the
memory of the operating system. The time is that of the call, on the clock; a model that embeds the
sentence is not in it. Both find the same rows, or this fails.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from clipzoo.serve.embeddings import Embedded, search, write_embeddings

TOP, AT_ONCE, WEIGHTS = 10, 65_536, "0" * 64


def blocks(num_rows: int, dim: int) -> Iterator[np.ndarray]:
    """Random embeddings, [n, D] float32 of unit length at a time; the same on every call."""
    generator = np.random.default_rng(0)
    for start in range(0, num_rows, AT_ONCE):
        shape = (min(AT_ONCE, num_rows - start), dim)
        values = generator.standard_normal(shape, dtype=np.float32)  # [n, D]
        yield values / np.linalg.norm(values, axis=1, keepdims=True)


def write_ours(path: Path, num_rows: int, dim: int) -> None:
    rows = (row for block in blocks(num_rows, dim) for row in block)
    write_embeddings(
        (Embedded(video=f"videos/{i:07d}.mp4", embedding=row) for i, row in enumerate(rows)),
        path,
        dim,
        WEIGHTS,
    )


def write_lists(path: Path, num_rows: int, dim: int) -> None:
    schema = pa.schema([("embedding", pa.list_(pa.float32(), dim))])
    with parquet.ParquetWriter(path, schema) as writer:
        for block in blocks(num_rows, dim):
            column = pa.FixedSizeListArray.from_arrays(block.ravel(), dim)
            writer.write_batch(pa.record_batch([column], schema=schema))


def forget(path: Path) -> None:
    """Make the operating system drop what it has of a file in memory."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def search_lists(path: Path, query: np.ndarray) -> list[int]:
    """Positions of the nearest rows of a file of lists, read in large batches by threads."""
    with parquet.ParquetFile(path, memory_map=True) as file:
        cosines = [
            batch["embedding"].flatten().to_numpy().reshape(len(batch), -1) @ query  # [n]
            for batch in file.iter_batches(AT_ONCE)
        ]
    return np.argsort(-np.concatenate(cosines), kind="stable")[:TOP].tolist()


def measure(folder: Path, num_rows: int, dim: int, rounds: int) -> dict[str, float]:
    """Seconds of a search in each file: of the first round, and the median of the others."""
    ours, lists = folder / f"ours{dim}.parquet", folder / f"lists{dim}.parquet"
    write_ours(ours, num_rows, dim)
    write_lists(lists, num_rows, dim)
    query = next(blocks(1, dim))[0]  # the first row itself
    seconds: dict[str, list[float]] = {"ours": [], "lists": []}
    forget(ours)
    forget(lists)
    for _ in range(1 + rounds):
        began = time.perf_counter()
        found = search(ours, query, WEIGHTS, TOP)
        seconds["ours"].append(time.perf_counter() - began)
        began = time.perf_counter()
        expected = search_lists(lists, query)
        seconds["lists"].append(time.perf_counter() - began)
        assert [row.video for row in found] == [f"videos/{i:07d}.mp4" for i in expected]
    ours.unlink()
    lists.unlink()
    values = {f"{way}_first": times[0] for way, times in seconds.items()}
    return values | {way: statistics.median(times[1:]) for way, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dims", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print("   rows  numbers  search (first)  lists (first)   ratio")
    with tempfile.TemporaryDirectory() as folder:
        for dim in arguments.dims:
            found = measure(Path(folder), arguments.rows, dim, arguments.rounds)
            print(
                f"{arguments.rows:7}  {dim:7}  {found['ours']:5.2f} s ({found['ours_first']:5.2f})"
                f"  {found['lists']:5.2f} s ({found['lists_first']:5.2f})"
                f"  {found['lists'] / found['ours']:5.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""A parquet file of video embeddings, and search in it by a sentence.

Columns: `video`, and `embedding`, D float32 of unit length. The metadata have the digest of the
weights, because embeddings of two models cannot be compared.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from clipzoo.files import ListError, replacing

WEIGHTS_KEY = b"clipzoo.weights_sha256"
ROWS_AT_ONCE = 65_536


def write_embeddings(
    rows: Iterable[tuple[str, np.ndarray]], path: str | Path, dim: int, weights_sha256: str
) -> int:
    """Write (video, embedding [D]) rows as they come; returns their number."""
    vectors = pa.list_(pa.float32(), dim)
    schema = pa.schema(
        [("video", pa.string()), ("embedding", vectors)], {WEIGHTS_KEY: weights_sha256.encode()}
    )
    num_rows = 0
    with replacing(Path(path)) as part, parquet.ParquetWriter(part, schema) as writer:
        for video, embedding in rows:
            values = pa.FixedSizeListArray.from_arrays(embedding.astype(np.float32), dim)
            writer.write_batch(pa.record_batch([pa.array([video]), values], schema=schema))
            num_rows += 1
    return num_rows


def search(
    path: str | Path, query: np.ndarray, weights_sha256: str, top: int
) -> list[tuple[str, float]]:
    """The videos nearest to a query, with their cosines, the best first.

    Reads `ROWS_AT_ONCE` rows at a time, so memory does not grow with the file.

    Args:
        path: a file of `write_embeddings`.
        query: [D] float32, of unit length.
        weights_sha256: digest of the weights that made the query.
        top: how many are returned.

    Raises:
        ListError: the file is missing, is not such a file, or another model made it.
    """
    try:
        file = parquet.ParquetFile(path, memory_map=True)
    except (OSError, pa.ArrowException) as error:
        raise ListError(f"{path}: cannot be read ({error}); `clipzoo embed` writes it") from error
    with file:
        metadata = file.schema_arrow.metadata or {}
        if WEIGHTS_KEY not in metadata or file.schema_arrow.names != ["video", "embedding"]:
            raise ListError(f"{path}: not a file of embeddings; `clipzoo embed` writes one")
        if (found := metadata[WEIGHTS_KEY].decode()) != weights_sha256:
            raise ListError(
                f"{path}: was written by another model (weights {found[:12]}, not "
                f"{weights_sha256[:12]}); give that with --model, or embed the videos again"
            )
        best: list[tuple[float, str]] = []
        for batch in file.iter_batches(ROWS_AT_ONCE):
            matrix = batch["embedding"].flatten().to_numpy().reshape(len(batch), -1)  # [n, D]
            cosines = matrix @ query  # [n]
            order = np.argsort(-cosines, kind="stable")[:top]
            found = [(float(cosines[i]), batch["video"][int(i)].as_py()) for i in order]
            best = sorted([*best, *found], key=lambda pair: -pair[0])[:top]
    return [(video, cosine) for cosine, video in best]

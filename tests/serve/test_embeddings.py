"""Files of embeddings, and search in them, against NumPy over the whole matrix."""

import importlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from clipzoo.files import ListError
from clipzoo.serve import embeddings
from clipzoo.serve.embeddings import Embedded, Found, search, write_embeddings

DIM, WEIGHTS = 6, "a" * 64


def matrix(num: int) -> np.ndarray:
    values = np.random.default_rng(0).standard_normal((num, DIM)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def write(path: Path, values: np.ndarray) -> Path:
    rows = (Embedded(video=f"v{i}", embedding=row) for i, row in enumerate(values))
    assert write_embeddings(rows, path, DIM, WEIGHTS) == len(values)
    return path


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row groups of 8 rows, and blocks of 3."""
    monkeypatch.setattr(embeddings, "GROUP_BYTES", 4 * DIM * 8)
    monkeypatch.setattr(embeddings, "BLOCK_BYTES", 4 * DIM * 3)


@pytest.mark.parametrize("num", [1, 3, 8, 9, 50])
def test_search_is_a_sort_of_all_cosines(small, tmp_path, num):
    values, query = matrix(num), matrix(1)[0] * np.float32(-1)
    path = write(tmp_path / "a.parquet", values)
    assert parquet.ParquetFile(path).num_row_groups == -(-num // 8)
    cosines = values @ query
    order = np.argsort(-cosines, kind="stable")
    for top in (1, 4, num, num + 5):
        found = search(path, query, WEIGHTS, top)
        assert [row.video for row in found] == [f"v{i}" for i in order[:top]]
        np.testing.assert_allclose([row.cosine for row in found], cosines[order[:top]], rtol=1e-6)


def test_of_equal_rows_the_first_in_the_file_comes_first(small, tmp_path):
    values = matrix(2)[[0, 1, 1, 0, 1, 1, 1, 0, 1, 1]]
    path = write(tmp_path / "a.parquet", values)
    found = search(path, matrix(2)[1], WEIGHTS, 4)
    assert [row.video for row in found] == ["v1", "v2", "v4", "v5"]


def test_windows_have_times_and_videos_have_none(tmp_path):
    first, second = matrix(2)
    rows = [
        Embedded(video="a, b.mp4", embedding=first, start=0.0, end=2.5),
        Embedded(video="ü.mp4", embedding=second),
    ]
    path = tmp_path / "a.parquet"
    write_embeddings(rows, path, DIM, WEIGHTS)
    for query, expected in (
        (first, Found("a, b.mp4", 1.0, 0.0, 2.5)),
        (second, Found("ü.mp4", 1.0, None, None)),
    ):
        (found,) = search(path, query, WEIGHTS, 1)
        assert found._replace(cosine=1.0) == expected
        assert found.cosine == pytest.approx(1)
    # As docs/use.md reads it.
    table = parquet.read_table(path)
    read = np.frombuffer(b"".join(table["embedding"].to_pylist()), "<f4").reshape(len(table), -1)
    np.testing.assert_array_equal(read, matrix(2))


def test_equal_rows_give_equal_bytes(small, tmp_path):
    first = write(tmp_path / "a.parquet", matrix(20)).read_bytes()
    assert write(tmp_path / "b.parquet", matrix(20)).read_bytes() == first


def broken(path: Path, kind: str) -> Path:
    """A file that is not one of embeddings of this model."""
    good = write(path, matrix(5))
    if kind == "cut":
        path.write_bytes(good.read_bytes()[:-20])
    elif kind == "text":
        path.write_text("video,embedding\n")
    elif kind == "empty file":
        path.write_bytes(b"")
    elif kind == "no rows":
        write_embeddings([], path, DIM, WEIGHTS)
    elif kind == "other columns":
        parquet.write_table(pa.table({"video": ["a"], "pos": [1]}), path)
    elif kind in ("lists", "null"):
        table = parquet.read_table(good)
        column = pa.array([[0.0] * DIM] * 5, pa.list_(pa.float32(), DIM))
        if kind == "null":
            column = pa.array([None] * 5, pa.binary(4 * DIM))
        parquet.write_table(table.set_column(3, "embedding", column), path)
    elif kind == "other size":
        rows = [Embedded(video="a", embedding=np.ones(DIM + 1, np.float32))]
        write_embeddings(rows, path, DIM + 1, WEIGHTS)
    elif kind == "missing":
        path.unlink()
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("cut", "cannot be read"),
        ("text", "cannot be read"),
        ("empty file", "cannot be read"),
        ("null", "an embedding is null"),
        ("no rows", "has no row"),
        ("other columns", "not a file of embeddings"),
        ("lists", "embedding: found fixed_size_list"),
        ("other size", "allowed: 24 bytes"),
        ("missing", "cannot be read"),
        ("folder", "is a folder"),
    ],
)
def test_what_is_not_such_a_file_is_refused(tmp_path, kind, message):
    path = broken(tmp_path / "a.parquet", kind)
    with pytest.raises(ListError) as caught:
        search(path, matrix(1)[0], WEIGHTS, 3)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_embeddings_of_another_model_are_refused(tmp_path):
    path = write(tmp_path / "a.parquet", matrix(2))
    with pytest.raises(ListError, match=r"another model \(weights aaaaaaaaaaaa, not bbbbbbbbbbbb"):
        search(path, matrix(1)[0], "b" * 64, 1)


def test_rows_that_fail_leave_the_earlier_file(tmp_path):
    path = write(tmp_path / "a.parquet", matrix(2))
    before = path.read_bytes()

    def rows():
        yield Embedded(video="a", embedding=matrix(1)[0])
        raise KeyError("stopped")

    with pytest.raises(KeyError):
        write_embeddings(rows(), path, DIM, WEIGHTS)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_benchmark_finds_the_same_rows_in_both_files(monkeypatch, capsys):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    module = importlib.import_module("search")
    monkeypatch.setattr(module, "AT_ONCE", 40)
    arguments = ["search", "--rows", "300", "--dims", "4", "8", "--rounds", "1"]
    monkeypatch.setattr("sys.argv", arguments)
    module.main()  # fails if they differ
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["300", "4"], ["300", "8"]]

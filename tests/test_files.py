"""Atomic writes, csv and JSON, and errors that list every fault."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from clipzoo.files import (
    ListError,
    NumberError,
    near,
    raise_all,
    read_rows,
    replacing,
    write_csv,
    write_json,
    write_metrics,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def linked(tmp_path: Path) -> tuple[Path, Path]:
    """A read-only file and a hard link to it, as DVC links an output to its cache."""
    cached, path = tmp_path / "cache" / "ab12", tmp_path / "out" / "test.json"
    cached.parent.mkdir()
    path.parent.mkdir()
    cached.write_text("old")
    cached.chmod(0o444)
    path.hardlink_to(cached)
    return cached, path


def test_replacing_makes_folders_and_leaves_the_file_alone(tmp_path: Path):
    with replacing(tmp_path / "a" / "b" / "x.txt") as part:
        part.write_text("new")
        assert part.parent == tmp_path / "a" / "b"
        assert str(os.getpid()) in part.name
        assert not (tmp_path / "a" / "b" / "x.txt").exists()
    assert names(tmp_path / "a" / "b") == ["x.txt"]
    assert (tmp_path / "a" / "b" / "x.txt").read_text() == "new"


def test_a_read_only_link_is_replaced_and_its_target_stays(linked: tuple[Path, Path]):
    cached, path = linked
    with replacing(path) as part:
        part.write_text("new")
    assert path.read_text() == "new"
    assert cached.read_text() == "old"
    assert stat.S_IMODE(cached.stat().st_mode) == 0o444
    assert names(path.parent) == ["test.json"]


def test_a_symbolic_link_is_replaced_and_its_target_stays(linked: tuple[Path, Path]):
    cached, path = linked
    path.unlink()
    path.symlink_to(cached)
    with replacing(path) as part:
        part.write_text("new")
    assert not path.is_symlink()
    assert path.read_text() == "new"
    assert cached.read_text() == "old"


@pytest.mark.parametrize("error", [ValueError("bad"), OSError(28, "full"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_file_and_nothing_else(
    error: BaseException, linked: tuple[Path, Path]
):
    _, path = linked

    def write() -> None:
        with replacing(path) as part:
            part.write_text("half of the n")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_text() == "old"
    assert names(path.parent) == ["test.json"]


def test_an_error_before_anything_is_written_is_passed_on(tmp_path: Path):
    with pytest.raises(ValueError, match="early"), replacing(tmp_path / "x"):
        raise ValueError("early")
    assert names(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no device that is always full")
def test_a_full_disk_leaves_the_old_file(linked: tuple[Path, Path]):
    _, path = linked

    def write() -> None:
        with replacing(path) as part:
            part.symlink_to("/dev/full")
            part.write_text("new")

    with pytest.raises(OSError, match="No space left"):
        write()
    assert path.read_text() == "old"
    assert names(path.parent) == ["test.json"]


def test_a_row_that_fails_leaves_no_csv(tmp_path: Path):
    rows = ([1 / (2 - i)] for i in range(4))
    with pytest.raises(ZeroDivisionError):
        write_csv(("x",), rows, tmp_path / "x.csv")
    assert names(tmp_path) == []


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_permissions_are_those_of_the_umask(umask: int, mode: int, tmp_path: Path):
    before = os.umask(umask)
    try:
        write_csv(("x",), [], tmp_path / "x.csv")
        write_metrics(tmp_path / "x.json", {"top1": 1.0})
    finally:
        os.umask(before)
    for name in ("x.csv", "x.json"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode


def test_two_processes_do_not_write_the_same_part(tmp_path: Path):
    path = tmp_path / "x.txt"
    other = (
        "import sys; from clipzoo.files import replacing\n"
        "with replacing(sys.argv[1]) as part: part.write_text('theirs')"
    )
    with replacing(path) as part:
        part.write_text("ours")
        subprocess.run([sys.executable, "-c", other, str(path)], check=True)
        assert path.read_text() == "theirs"
        assert part.read_text() == "ours"
    assert path.read_text() == "ours"
    assert names(tmp_path) == ["x.txt"]


def test_metrics_keep_their_order_and_precision(linked: tuple[Path, Path]):
    cached, path = linked
    write_metrics(path, {"top1": 100 / 3, "num_videos": 3, "protocol": "clips 1, größer"})
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == {
        "top1": 100 / 3,
        "num_videos": 3,
        "protocol": "clips 1, größer",
    }
    assert text.index("top1") < text.index("num_videos") < text.index("größer")
    assert text.endswith("}\n")
    assert cached.read_text() == "old"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1], None])
def test_metrics_that_are_no_number_are_refused(tmp_path: Path, value: object):
    with pytest.raises(NumberError, match=r"m\.json"):
        write_metrics(tmp_path / "m.json", {"top1": value})  # pyright: ignore[reportArgumentType]
    assert names(tmp_path) == []


def test_json_may_be_nested_and_must_be_finite(tmp_path: Path):
    write_json({"a": [1, None], "b": {"c": True}}, tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [1, None], "b": {"c": True}}
    with pytest.raises(NumberError, match=r"x\.json"):
        write_json({"a": [float("inf")]}, tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text())["a"] == [1, None]


def test_csv_round_trip_with_line_numbers(tmp_path: Path):
    path = tmp_path / "x.csv"
    write_csv(("name", "n"), [("c, with comma", 1), ('ü "q"', None), ("two\nlines", 3)], path)
    assert path.read_bytes().startswith(b'name,n\n"c, with comma",1\n')
    assert read_rows(path, ("n", "name"), ("extra",)) == [
        ["2", "1", "c, with comma", ""],
        ["3", "", 'ü "q"', ""],
        ["5", "3", "two\nlines", ""],
    ]


def test_rows_of_any_csv_dialect_of_a_spreadsheet(tmp_path: Path):
    path = tmp_path / "x.csv"
    path.write_bytes("\ufeffa,b\r\n1,2\r\n\r\n3,4\r\n".encode())
    assert read_rows(path, ("a", "b")) == [["2", "1", "2"], ["4", "3", "4"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a\n1\n", r"x\.csv:1: found header 'a'; allowed: a,b and optionally c"),
        (b"a,b,d\n", r"x\.csv:1: found header 'a,b,d'"),
        (b"a,b,b\n", r"x\.csv:1: found header"),
        (b"", r"x\.csv:1: found header ''"),
        (b"a,b\n1,2\n1\n1,2,3\n", r"2 bad lines\n.*x\.csv:3: found 1 .*\n.*x\.csv:4: found 3"),
        (b"a,b\n\xff,1\n", "is not UTF-8"),
    ],
)
def test_bad_csv_files_are_refused(text: bytes, message: str, tmp_path: Path):
    path = tmp_path / "x.csv"
    path.write_bytes(text)
    with pytest.raises(ListError, match=message):
        read_rows(path, ("a", "b"), ("c",))


def test_near():
    known = ("ViT-B-16", "ViT-B-32", "RN50")
    assert near("ViT-B-1", known) == " (did you mean ViT-B-16 or ViT-B-32?)"
    assert near("RN51", known) == " (did you mean RN50?)"
    assert near(8, [16, 80]) == " (did you mean 80?)"
    assert near("x", known) == ""


def test_raise_all_lists_all_faults():
    raise_all("no fault", [])
    with pytest.raises(ListError) as caught:
        raise_all("title", ["one", "two"])
    assert str(caught.value) == "title\n  one\n  two"
    with pytest.raises(OSError, match="fault 19") as many:
        raise_all("title", [f"fault {i}" for i in range(30)], OSError)
    assert "fault 20" not in str(many.value)
    assert str(many.value).endswith("... and 10 more")


def test_a_field_that_is_too_long_is_named_with_its_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,name\n0,x\n1," + "y" * 131_073 + "\n")
    with pytest.raises(ListError, match=r"a\.csv:3: field larger .* allowed: 131072 characters"):
        read_rows(path, ("id", "name"))
    path.write_text('id,name\n0,x\n1,"y\n' + "2,z\n" * 50_000)  # the quote is never closed
    with pytest.raises(ListError, match=r"a\.csv:3: field larger .*quote"):
        read_rows(path, ("id", "name"))


def test_a_nul_byte_is_named_with_its_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,name\n0,x\n1,a\0b\n")
    with pytest.raises(ListError, match=r"a\.csv:3: found a NUL byte"):
        read_rows(path, ("id", "name"))


def test_only_line_ends_of_csv_end_a_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes('id,name\r\n0,a\u2028b\r\n1,"c\nd"\n2,e'.encode())
    rows = [["2", "0", "a\u2028b"], ["4", "1", "c\nd"], ["5", "2", "e"]]
    assert read_rows(path, ("id", "name")) == rows

"""Atomic writes, csv and JSON, and errors that list every fault."""

import errno
import json
import os
import pickle
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from matplotlib.figure import Figure
from pyarrow import parquet
from safetensors.torch import save_file

from clipzoo import files
from clipzoo.files import (
    DiskError,
    ListError,
    NumberError,
    few,
    named_disk_errors,
    near,
    raise_all,
    read_rows,
    replacing,
    write_csv,
    write_json,
    write_metrics,
)
from clipzoo.tensors import write_safetensors

ROOT = Path(__file__).parents[1]


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


def write_with_torch(part: Path) -> None:
    with part.open("wb") as file:
        torch.save(torch.zeros(5000), file)


def write_picture(part: Path) -> None:
    figure = Figure()
    figure.subplots().imshow(np.random.default_rng(0).random((90, 90)))
    figure.savefig(part, format="png")


NUMBERS = list(range(5000))
WRITERS: dict[str, Callable[[Path], object]] = {
    "text": lambda part: part.write_text("x" * 20000),
    "torch": write_with_torch,
    "safetensors": lambda part: save_file({"x": torch.zeros(5000)}, part),
    "parquet": lambda part: parquet.write_table(pa.table({"x": NUMBERS}), part, compression="none"),
    "picture": write_picture,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_limit_is_named_whatever_writes(
    kind: str, linked: tuple[Path, Path], limit_file_size: Callable[[int], None]
):
    """Each library has errors of its own, for a limited size of files as for a full disk."""
    _, path = linked
    limit_file_size(6000)
    with pytest.raises(DiskError) as caught, replacing(path, num_bytes=20_000_000) as part:
        WRITERS[kind](part)
    text = str(caught.value)
    assert f"{path}: cannot be written (File too large): it needs 20.0 MB, and " in text
    assert " MB are free; raise the limit on the size of files" in text
    assert path.read_text() == "old"
    assert names(path.parent) == ["test.json"]
    assert str(pickle.loads(pickle.dumps(caught.value))) == text, "as from a worker of a pool"


FULL_DISK = """
import sys
from pathlib import Path
from clipzoo.files import DiskError, replacing, write_csv
full = Path("full")
write_csv(("x",), [[i] for i in range(1000)], full / "kept.csv")
for write in (
    lambda: write_csv(("x",), [[i] for i in range(999_999)], full / "kept.csv"),
    lambda: write_csv(("x",), [[i] for i in range(999_999)], full / "new" / "x.csv"),
):
    try:
        write()
    except DiskError as error:
        print(error)
print(len((full / "kept.csv").read_text().splitlines()), *sorted(p.name for p in full.iterdir()))
with replacing(full / "x.txt") as part:
    part.write_text("room again")
"""


def test_a_full_disk_is_named_and_gets_its_space_back(tmp_path: Path):
    """A file system of 1 MB, which this user may make for one process."""
    (tmp_path / "full").mkdir()
    mount = "mount -t tmpfs -o size=1m none full"
    sandbox = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    try:
        subprocess.run([*sandbox, mount], cwd=tmp_path, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system of its own: {error}")
    process = subprocess.run(
        [*sandbox, f"{mount} && exec '{sys.executable}' -c '{FULL_DISK}'"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    kept, new, rest = process.stdout.splitlines()
    fault = "cannot be written (No space left on device): it needs more than the 1.0 MB that were "
    free = "written, and 1.0 MB are free; free some space there"
    assert f"full/kept.csv: {fault}{free}" in kept
    assert f"full/new/x.csv: {fault}{free}" in new
    assert rest == "1001 kept.csv new"


def test_too_many_files_are_told_apart_from_too_little_space(tmp_path, monkeypatch):
    space = os.statvfs_result((4096, 4096, 1000, 500, 500, 1000, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: space)
    with (
        pytest.raises(DiskError, match=r"2\.0 MB are free \(but no inode"),
        replacing(tmp_path / "x"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(DiskError, match=r"quota -s"), named_disk_errors(tmp_path / "curves"):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")
    with pytest.raises(PermissionError), named_disk_errors(tmp_path / "curves"):
        raise PermissionError


def test_what_killed_processes_left_of_a_file_is_removed(tmp_path: Path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    node = os.uname().nodename
    kept = {
        f"x.csv.{node}.{os.getppid()}.part",  # lives
        f"x.csv.elsewhere.{dead.pid}.part",
        f"y.csv.{node}.{dead.pid}.part",
        f"x.csv.{node}.backup.part",
    }
    for name in (*kept, f"x.csv.{node}.{dead.pid}.part"):
        (tmp_path / name).touch()
    write_csv(("x",), [], tmp_path / "x.csv")
    assert set(names(tmp_path)) == {*kept, "x.csv"}


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch):
    synced = []

    def sync(handle: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        synced.append((path.suffix, (tmp_path / "x.json").exists()))

    monkeypatch.setattr(os, "fsync", sync)
    write_json({}, tmp_path / "x.json")
    assert synced == [(".part", False), ("", True)], "the file, and then the folder"
    write_csv(("x",), [], tmp_path / "x.csv")
    assert len(synced) == 2, "DVC would notice a csv that changed"


def test_a_row_that_fails_leaves_no_csv(tmp_path: Path):
    rows = ([1 / (2 - i)] for i in range(4))
    with pytest.raises(ZeroDivisionError):
        write_csv(("x",), rows, tmp_path / "x.csv")
    assert names(tmp_path) == []


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_permissions_are_those_of_the_umask(
    umask: int, mode: int, tmp_path: Path, set_umask: Callable[[int], int]
):
    set_umask(umask)
    write_csv(("x",), [], tmp_path / "x.csv")
    write_metrics(tmp_path / "x.json", {"top1": 1.0})
    write_safetensors({"x": torch.zeros(1)}, tmp_path / "x.safetensors", {})
    for kind in WRITERS.keys() - {"safetensors"}:
        with replacing(tmp_path / kind) as part:
            WRITERS[kind](part)
    assert len(names(tmp_path)) == 3 + len(WRITERS) - 1
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == mode, path.name


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


def test_metrics_keep_their_order_and_are_rounded(linked: tuple[Path, Path]):
    cached, path = linked
    write_metrics(path, {"top1": 100 / 3, "num_videos": 3, "protocol": "clips 1, größer"})
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == {
        "top1": 33.333333,
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
    assert near("demoo", ["demo", "demo"]) == " (did you mean demo?)"


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


@pytest.mark.parametrize(("count", "shown"), [(0, ""), (2, "0; 1"), (3, "0; 1; ...")])
def test_a_few_items_are_shown_and_that_there_are_more(count: int, shown: str):
    assert few([str(i) for i in range(count)], 2, "; ") == shown


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("ü 1 跳", "ü 1 跳"),
        ("\x1b[2Ja\x07", r"\x1b[2Ja\x07"),
        ("a\rb\nc\td", r"a\rb\nc\td"),
        ("\u202eabc\u200b", r"\u202eabc\u200b"),
        ("क्\u200dष", "क्\u200dष"),
        ("\x9b2J", r"\x9b2J"),
    ],
)
def test_what_a_terminal_obeys_is_shown(text, seen):
    assert files.shown(text) == seen
    assert files.shown(f"{text}\n", kept="\n").endswith("\n")
    assert files.few([text, "b"]) == f"{seen}, b"


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', '"\\ud800"', "[" * 99999, "", "{"])
def test_json_that_cannot_be_used_is_named(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(files.ListError, match=r"a\.json: is not JSON"):
        files.read_json(tmp_path / "a.json")

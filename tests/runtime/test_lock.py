"""Locks: one process at a time, whatever became of the ones before."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clipzoo.runtime.launch import run_stage
from clipzoo.runtime.lock import LOCK_DIR, LockError, only_one

ROOT = Path(__file__).parents[2]
HOLDER = """
import subprocess, sys, time
from clipzoo.runtime.lock import only_one
with only_one("train") as lock:
    if sys.argv[1] == "with a child":
        child = subprocess.Popen(["sleep", "60"], pass_fds=[lock])
        print(child.pid, flush=True)
    else:
        print("holds", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["stages/train.py"])
    for name in ("NNODES", "NODE_RANK", "RANK"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def start_holder(kind: str = "alone") -> tuple[subprocess.Popen, str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, kind],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def end(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def lock_error(name: str = "train") -> str:
    with pytest.raises(LockError) as caught, only_one(name):
        pass
    return str(caught.value)


def test_the_holder_is_named_and_never_blocks_when_it_is_dead():
    holder, _ = start_holder()
    text = lock_error()
    for words in (
        f"process {holder.pid} on {os.uname().nodename} holds .state/locks/train.lock",
        "train has been running since 20",
        f"`kill {holder.pid}`",
    ):
        assert words in text
    with only_one("test"):
        pass
    end(holder)
    with only_one("train"):
        assert str(os.getpid()) in (LOCK_DIR / "train.lock").read_text()
        assert f"process {os.getpid()} " in lock_error()
    with only_one("train"):
        pass


def test_a_child_that_outlives_the_holder_holds_the_lock():
    """As DVC does when `make zoo` is killed."""
    holder, child = start_holder("with a child")
    end(holder)
    assert f"a process that process {holder.pid} has left behind holds" in lock_error()
    os.kill(int(child), signal.SIGKILL)
    while True:
        try:
            with only_one("train"):
                return
        except LockError:  # it is dying
            continue


def test_a_holder_on_another_machine_may_be_lost():
    LOCK_DIR.mkdir(parents=True)
    path = LOCK_DIR / "train.lock"
    path.write_text("7,elsewhere,2025-01-31 10:00:00+01:00\n")
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        text = lock_error()
    assert "since 2025-01-31 10:00:00+01:00: process 7 on elsewhere" in text
    assert "if that machine is lost, remove .state/locks/train.lock" in text


def test_a_holder_that_has_not_written_its_name_yet():
    LOCK_DIR.mkdir(parents=True)
    with (LOCK_DIR / "train.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "has just been started" in lock_error()


def test_a_file_system_without_locks_is_noted(monkeypatch, capsys):
    def refuse(*_) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with only_one("train"):
        pass
    err = capsys.readouterr().err
    assert "note: .state/locks/train.lock: this file system has no locks (No locks" in err


def test_a_name_makes_one_file():
    with only_one("extract_frames a.b --shard 1/2"):
        assert [path.name for path in LOCK_DIR.iterdir()] == ["extract_frames-a.b---shard-1-2.lock"]


def test_a_stage_runs_once_at_a_time_and_others_beside_it(capsys, monkeypatch):
    runs = []
    with only_one("train"):
        with pytest.raises(SystemExit) as stopped:
            run_stage(lambda: runs.append("second"))
        assert stopped.value.code == 1
        assert "error: train has been running since" in capsys.readouterr().err
        monkeypatch.setattr(sys, "argv", ["stages/test.py", "ucf101"])
        run_stage(lambda: runs.append("other stage"))
        monkeypatch.setattr(sys, "argv", ["stages/train.py"])
        monkeypatch.setenv("NODE_RANK", "1")  # the launcher of the second machine of this run
        run_stage(lambda: runs.append("other machine"))
    monkeypatch.setenv("NODE_RANK", "0")
    run_stage(lambda: runs.append("again"))
    assert runs == ["other stage", "other machine", "again"]
    names = ["test-ucf101.lock", "train-machine-1.lock", "train.lock"]
    assert sorted(path.name for path in LOCK_DIR.iterdir()) == names


def test_ranks_need_no_lock(monkeypatch):
    """Their launcher holds it."""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("CLIPZOO_LAUNCHER", raising=False)
    runs = []
    with only_one("train"):
        run_stage(lambda: runs.append(1), distributed=True)
    assert runs == [1]

"""Processes that end with the one that started them: ranks, and the workers of a pool."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAUNCHER = """
import subprocess, sys, time
from clipzoo.runtime.parent import announce_launcher
announce_launcher()
rank = subprocess.Popen([sys.executable, "rank.py", sys.argv[1]])
print(rank.pid, flush=True)
time.sleep(60)
"""
RANK = """
import os, signal, sys, time
from pathlib import Path
if sys.argv[1] == "stopped":
    os.kill(os.getpid(), signal.SIGSTOP)
while sys.argv[1] == "importing" and not Path("imported").exists():
    time.sleep(0.01)
from clipzoo.runtime.parent import exit_with_launcher
exit_with_launcher()
Path("running").touch()
time.sleep(60)
"""
POOL = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from clipzoo.runtime.parent import exit_with_parent

def work(number):
    os.write(1, f"{os.getpid()}\\n".encode())  # at once, even if Python does not buffer
    while number == 1 or not Path("both").exists():  # one is busy when the parent dies, one waits
        time.sleep(0.01)
    return 1

if __name__ == "__main__":
    if sys.argv[1] == "extraction":
        from clipzoo.frames.executors import local_processes
        with local_processes(2) as workers:
            for number in range(2):
                workers.submit(work, number)
            time.sleep(60)
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(2, fork, initializer=exit_with_parent) as pool:
        list(pool.map(work, range(2)))
"""


def alive(pid: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts a script of this file; afterwards nothing of its process group is left."""
    processes = []

    def start(script: str, *arguments: str, **environment: str) -> subprocess.Popen:
        for name, text in (("launcher", LAUNCHER), ("rank", RANK), ("pool", POOL)):
            (tmp_path / f"{name}.py").write_text(text)
        process = subprocess.Popen(
            [sys.executable, f"{script}.py", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and prctl")
@pytest.mark.parametrize("state", ["importing", "stopped", "running"])
def test_no_rank_outlives_its_launcher(state, start, tmp_path):
    """Not even one that imports or is stopped while the launcher dies."""
    launcher = start("launcher", state)
    assert launcher.stdout is not None
    rank = int(launcher.stdout.readline())
    if state == "stopped":
        wait_until(lambda: ") T" in Path(f"/proc/{rank}/stat").read_text())
    if state == "running":
        wait_until((tmp_path / "running").exists)
    launcher.kill()
    launcher.wait()
    (tmp_path / "imported").touch()
    if state == "stopped":
        os.kill(rank, signal.SIGCONT)
    wait_until(lambda: not alive(rank))
    assert (tmp_path / "running").exists() is (state == "running")


def test_a_rank_whose_launcher_has_ended_says_so_and_runs_nothing(tmp_path):
    process = subprocess.run(
        [
            *(sys.executable, "-c"),
            "from clipzoo.runtime.launch import run_stage; run_stage(int, distributed=True)",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "RANK": "0", "CLIPZOO_LAUNCHER": "1"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 1
    assert process.stderr == "error: the launcher (process 1) has ended\n"


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("kind", [pytest.param("extraction", marks=pytest.mark.slow), "fork"])
def test_no_worker_of_a_pool_outlives_its_parent(kind, start, tmp_path):
    """Neither one that works nor one that waits for a task."""
    process = start("pool", kind)
    assert process.stdout is not None
    workers = set()
    for line in process.stdout:  # after the number of processes
        if line.strip().isdigit():
            workers.add(int(line))
        if len(workers) == 2:
            break
    assert len(workers) == 2
    assert all(alive(worker) for worker in workers)
    (tmp_path / "both").touch()
    time.sleep(0.1)  # until one of them waits for a task
    process.kill()
    process.wait()
    wait_until(lambda: not any(alive(worker) for worker in workers))

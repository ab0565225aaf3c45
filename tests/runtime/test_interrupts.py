"""Ctrl-C as a terminal sends it, to a process and all that it has started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAID = "\ninterrupted; run the same command again\n"
PRESS = "import os, signal; os.killpg(0, signal.SIGINT)"
BLOCK = """
import time
from clipzoo.runtime.ending import ending
with ending():
    {body}
"""
POOL = """
import os, signal, time
from pathlib import Path
from clipzoo.runtime.launch import run_stage
from clipzoo.runtime.pools import process_pool

def work(number):
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())  # so too in what it starts
    Path(str(number)).write_text(" ".join(signal.Signals(one).name for one in blocked))
    time.sleep(60)

def main():
    import multiprocessing
    context = multiprocessing.get_context("forkserver") if {server} else None
    with process_pool(2, context) as pool:
        for number in range(4):
            pool.submit(work, number)
        while sum(path.stat().st_size > 0 for path in Path().glob("[0-9]")) < 2:
            time.sleep(0.01)
        os.killpg(0, signal.SIGINT)
        time.sleep(60)

if __name__ == "__main__":
    run_stage(main)
"""
COMMAND = """
import sys
from clipzoo.runtime.ending import ending, run_command
with ending():
    run_command([sys.executable, "part.py"])
    print("done")
"""
PART = """
import time
from clipzoo.runtime.ending import ending
with ending():
    try:
        {press}
        time.sleep(60)
    finally:
        time.sleep(0.5)
        print("part has ended")
"""


def run(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    (folder / "program.py").write_text(program)
    return subprocess.run(
        [sys.executable, "program.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        start_new_session=True,
    )


@pytest.mark.parametrize(
    "body",
    [
        f"{PRESS}; time.sleep(60)",
        f"import atexit; atexit.register(lambda: exec({PRESS + '; time.sleep(60)'!r}))",
        "import swallowing; time.sleep(60)",
    ],
    ids=["block", "at exit", "import"],
)
def test_a_program_says_how_to_continue(tmp_path, body):
    """Also where a module that it imports catches whatever is raised."""
    swallowing = f"try:\n    {PRESS}; import time; time.sleep(60)\nexcept BaseException: pass\n"
    (tmp_path / "swallowing.py").write_text(swallowing)
    done = run(tmp_path, BLOCK.format(body=body))
    assert (done.returncode, done.stderr) == (130, SAID)


@pytest.mark.parametrize("server", [False, True])
def test_the_workers_of_a_pool_say_nothing_and_are_not_waited_for(tmp_path, server):
    """Nor does it reach an ffmpeg of theirs, whose video would seem to be broken."""
    done = run(tmp_path, POOL.format(server=server))
    assert (done.returncode, done.stderr) == (130, SAID)
    assert [(tmp_path / str(number)).read_text() for number in range(2)] == ["SIGINT", "SIGINT"]


@pytest.mark.parametrize("press", [PRESS, "import os, signal; os.kill(os.getpid(), signal.SIGINT)"])
def test_a_command_waits_for_its_part_and_alone_speaks(tmp_path, press):
    """Also if only the part was interrupted."""
    (tmp_path / "part.py").write_text(PART.format(press=press))
    done = run(tmp_path, COMMAND)
    assert (done.returncode, done.stdout, done.stderr) == (130, "part has ended\n", SAID)


def test_what_was_started_to_ignore_it_goes_on(tmp_path):
    program = "import signal, sys, subprocess\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    body = f"{PRESS}; print('done')"
    (tmp_path / "ignoring.py").write_text(BLOCK.format(body=body))
    program += "sys.exit(subprocess.run([sys.executable, 'ignoring.py']).returncode)"
    done = run(tmp_path, program)
    assert (done.returncode, done.stdout) == (0, "done\n")

"""Ctrl-C as a terminal sends it, to stages and to the commands that run them through DVC."""

import os
import shutil
import signal
import subprocess
import sys

import psutil
import pytest

pytestmark = pytest.mark.slow
SAID = "\ninterrupted; run the same command again\n"


def press(process: subprocess.Popen, when: str) -> str:
    """Interrupt a process and all that it has started, once a line begins with a text.

    Returns what it prints to its standard error until it ends; nothing of it may be left.
    """
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(when):
            break
    started = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert err.count(SAID.strip()) == 1
    assert err.endswith(SAID)
    _, alive = psutil.wait_procs(started, timeout=10)
    assert not alive
    return err


@pytest.mark.parametrize("processes", [1, 2])
def test_stages_say_how_to_continue(copy_of_demo, processes):
    copy_of_demo.set(runtime__processes=processes, train__epochs=60)
    press(copy_of_demo.start("train"), "train: ")


def test_a_stage_does_not_wait_for_its_workers(copy_of_demo):
    (copy_of_demo.path / "data/frames").unlink()
    press(copy_of_demo.start("extract_frames", "demo_shapes"), "extract_frames")


@pytest.mark.parametrize("shell", ["/bin/sh", "bash"])
@pytest.mark.parametrize("command", [["repro"], ["zoo", "demo", "demo/head-none"]])
def test_commands_end_after_the_stage_that_was_interrupted(fresh_workspace, command, shell):
    """Neither is the recipe called failed, nor is the next one begun.

    DVC runs stages through $SHELL; some shells die of the signal themselves.
    """
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"no {shell} here")
    fresh_workspace.git("init", "-q")
    process = subprocess.Popen(
        [sys.executable, "-m", "clipzoo", *command],
        cwd=fresh_workspace.path,
        env={**fresh_workspace.environment(), "SHELL": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    err = press(process, "make_demo ")
    assert "failed" not in err

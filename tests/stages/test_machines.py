"""train, test and zero_shot on two machines, that is, under two launchers on this one."""

import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import psutil
import pytest

from clipzoo.runtime.cluster_launch import TASK

ROOT = Path(__file__).parents[2]
STAGES = {"train": ("train",), "test": ("test",), "zero_shot": ("zero_shot", "demo_unseen")}
METRICS = {"train": "train", "test": "test", "zero_shot": "zero_shot_demo_unseen"}
DOCS = (ROOT / "docs/clusters.md").read_text(encoding="utf-8")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def metrics(workspace) -> dict[str, dict]:
    folder = workspace.path / "metrics/demo"
    return {stage: json.loads((folder / f"{METRICS[stage]}.json").read_text()) for stage in STAGES}


def curve(workspace) -> list[float]:
    path = workspace.path / "plots/demo/train/plots/metrics/loss.tsv"
    return pd.read_csv(path, sep="\t")["loss"].tolist()


class Machine:
    """A launcher; its output is read all the time."""

    def __init__(self, workspace, stage: str, number: int, port: int) -> None:
        self.process = workspace.start(
            *STAGES[stage],
            NNODES="2",
            NODE_RANK=str(number),
            RDZV_ENDPOINT=f"127.0.0.1:{port}",
            CLIPZOO_HEARTBEAT_SECONDS="15",
        )
        self.output = ""
        streams = (self.process.stdout, self.process.stderr)
        self._readers = [threading.Thread(target=self._read, args=(s,)) for s in streams]
        for reader in self._readers:
            reader.start()

    def _read(self, stream) -> None:
        with stream:
            for line in stream:
                self.output += line

    def wait(self) -> int:
        status = self.process.wait(timeout=400)
        for reader in self._readers:
            reader.join()
        return status


def run_on_two(workspace, stage: str, kill_when: Callable[[list[Machine]], bool] | None) -> str:
    """Run a stage; with `kill_when`, kill machine 1 then and start it again. Returns the output."""
    port = free_port()
    machines = [Machine(workspace, stage, number, port) for number in range(2)]
    if kill_when:
        deadline = time.monotonic() + 200
        while not kill_when(machines):
            assert time.monotonic() < deadline, [machine.output for machine in machines]
            assert [machine.process.poll() for machine in machines] == [None, None]
            time.sleep(0.01)
        machines[1].process.kill()
        assert machines[1].wait() == -9
        machines.append(Machine(workspace, stage, 1, port))
    output = "\n".join(machine.output for machine in machines)
    for machine in (machines[0], machines[-1]):
        assert machine.wait() == 0, output
    return "\n".join(machine.output for machine in machines)


@pytest.fixture
def two_processes(copy_of_demo) -> tuple[dict[str, dict], list[float]]:
    """Metrics and losses of the three stages with two processes on one machine."""
    copy_of_demo.set(runtime__processes=2)
    for command in STAGES.values():
        copy_of_demo.run(*command)
    values = metrics(copy_of_demo), curve(copy_of_demo)
    for name in ("metrics", "predictions", "plots"):
        shutil.rmtree(copy_of_demo.path / name)
    (copy_of_demo.path / "models/model.safetensors").unlink()
    copy_of_demo.set(runtime__processes=1, runtime__max_restarts=1)
    return values


@pytest.mark.slow
@pytest.mark.skipif("CLIPZOO_LONG" not in os.environ, reason="the next test shows it too")
def test_two_machines_give_what_two_processes_give(two_processes, copy_of_demo):
    for stage in STAGES:
        assert "processes 1 (2 in all, cpu)" in run_on_two(copy_of_demo, stage, None)
    assert curve(copy_of_demo) == pytest.approx(two_processes[1], rel=1e-5)
    assert metrics(copy_of_demo) == two_processes[0]


@pytest.mark.slow
def test_a_killed_machine_comes_back_and_the_result_is_the_same(two_processes, copy_of_demo):
    def at_a_resume_point(machines: list[Machine]) -> bool:
        return bool(list((copy_of_demo.path / ".state/train").glob("*/state.pt")))

    def encoding(machines: list[Machine]) -> bool:
        return any("runtime: processes" in machine.output for machine in machines)

    output = run_on_two(copy_of_demo, "train", at_a_resume_point)
    assert "resuming after step" in output
    for stage in ("test", "zero_shot"):
        output = run_on_two(copy_of_demo, stage, encoding)
        assert output.count("runtime: processes") == 2, "it starts over"
    assert curve(copy_of_demo) == pytest.approx(two_processes[1], rel=1e-5)
    assert metrics(copy_of_demo) == two_processes[0]


def code(heading: str) -> str:
    """The first block of code below a heading of docs/clusters.md."""
    block = re.search(rf"## {heading}\n.*?\n\n((?:    [^\n]*\n)+)", DOCS, re.DOTALL)
    assert block, heading
    lines = block[1].splitlines()
    return "\n".join(line.removeprefix("    ") for line in lines).replace(":29500", ":PORT")


@pytest.fixture
def repository(demo, tmp_path):
    """The demo with its history, for DVC."""
    shutil.copytree(demo.path, tmp_path / "repository", symlinks=True)
    return replace(demo, path=tmp_path / "repository")


def run_shell(workspace, command: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        ["bash", "-c", command],
        cwd=workspace.path,
        env=workspace.environment(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["train", "zero_shot"])
def test_the_commands_of_the_docs_run_by_hand(repository, stage):
    command = code("Several machines").replace("host0:PORT", f"127.0.0.1:{free_port()}")
    if stage == "zero_shot":
        command = command.replace("--single-item train", "--single-item zero_shot@demo_unseen")
        command = command.replace("stages/train.py", "stages/zero_shot.py --dataset demo_unseen")
    commands = [line for line in command.splitlines() if line.startswith("NNODES=2")]
    assert len(commands) == 2
    shells = [run_shell(repository, line) for line in commands]
    outputs = [shell.communicate(timeout=400)[0] for shell in shells]
    assert [shell.returncode for shell in shells] == [0, 0], outputs
    assert "processes 1 (2 in all, cpu)" in "".join(outputs)
    assert "Everything is up to date" not in outputs[0]


SRUN = r"""#!/bin/bash
# Starts its command on two machines, which are this one, and ends it after SIGTERM.
export SLURM_STEP_NUM_NODES=2 SLURM_STEP_NODELIST='127.0.0.[1-2]'
SLURM_NODEID=1 "$@" & one=$!
SLURM_NODEID=0 "$@" & zero=$!
trap 'kill -9 $one $zero; exit 143' TERM
wait $one && wait $zero
"""


@pytest.mark.slow
def test_dvc_repro_alone_runs_under_slurm_and_continues_after_a_kill(repository, tmp_path):
    srun = tmp_path / "bin/srun"
    srun.parent.mkdir()
    srun.write_text(SRUN)
    srun.chmod(0o755)
    repository.set(runtime__launcher="srun --ntasks-per-node=1")
    srun.write_text(SRUN.replace('"$@"', '"${@:2}"'))
    script = code("Slurm and others: one command")
    assert script.startswith("#!/bin/bash\n#SBATCH ")
    assert script.endswith("\ndvc repro")
    path = f"{srun.parent}:{repository.environment()['PATH']}"
    endpoint = f"127.0.0.1:{free_port()}"

    def job() -> subprocess.Popen:
        command = f"{script} --force --single-item train"
        return run_shell(repository, command, PATH=path, RDZV_ENDPOINT=endpoint)

    first, deadline = job(), time.monotonic() + 200
    while not list((repository.path / ".state/train").glob("*/state.pt")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    inside = psutil.Process(first.pid).children(recursive=True)
    (waiting,) = [p for p in inside if p.cmdline()[1:] == ["stages/train.py"] and is_outside(p)]
    waiting.kill()
    output, _ = first.communicate(timeout=100)
    assert first.returncode != 0, output
    assert not psutil.wait_procs(inside, timeout=60)[1]
    second = job()
    output, _ = second.communicate(timeout=400)
    assert second.returncode == 0, output
    assert "processes 1 (2 in all, cpu)" in output
    assert "resuming after step" in output


def is_outside(process: psutil.Process) -> bool:
    return TASK not in process.environ()

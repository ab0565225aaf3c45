"""Starting and ending processes, and reporting their errors, with a minimal stage script."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from clipzoo.runtime.launch import run_stage
from clipzoo.config import ConfigError
from clipzoo.runtime import cluster_launch, launch

ROOT = Path(__file__).parents[2]
SCRIPT = """
import os, signal, sys, time
from clipzoo.runtime.launch import run_stage

def main():
    from clipzoo.runtime.distributed import barrier, gather_objects, rank, say, start, world_size
    start("cpu")
    if sys.argv[1] == "fail":
        raise ValueError("a message for the user")
    say(f"{world_size()} processes: {gather_objects(os.environ['RANK'])}")
    open(os.environ["RANK"] + ".pid", "w").write(str(os.getpid()))
    if rank() == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        if sys.argv[1] == "sleep":
            time.sleep(300)
        if sys.argv[1] in ("SIGSTOP", "SIGKILL"):
            os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    barrier()
    say("end")

if __name__ == "__main__":
    run_stage(main, distributed=True)
"""


@pytest.mark.parametrize("distributed", [False, True])
@pytest.mark.parametrize(("variable", "threads"), [(None, 3), ("1", 2)])
def test_a_stage_of_one_process_has_a_thread_for_each_usable_core(
    project, monkeypatch, distributed: bool, variable: str | None, threads: int
):
    """Unless OMP_NUM_THREADS is set, which torch itself reads at its import."""
    monkeypatch.setattr(launch, "usable_cores", lambda: 3)
    monkeypatch.setattr(launch, "count_processes", lambda _: 1)
    monkeypatch.setenv("OMP_NUM_THREADS", variable or "")
    if variable is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    before, seen = torch.get_num_threads(), []
    try:
        torch.set_num_threads(2)
        run_stage(lambda: seen.append(torch.get_num_threads()), distributed=distributed)
        assert os.environ["OMP_NUM_THREADS"] == (variable or "3")
    finally:
        torch.set_num_threads(before)
    assert seen == [threads]


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a stage script, for two processes."""
    params = (ROOT / "params.yaml").read_text().replace("processes: 0", "processes: 2")
    (tmp_path / "params.yaml").write_text(params)
    (tmp_path / "stage.py").write_text(SCRIPT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["stage.py"])
    for name in ("NNODES", "NODE_RANK", "RDZV_ENDPOINT", "RANK"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "stage.py"


def start(script: Path, action: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, script.name, action],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def edit(script: Path, old: str, new: str) -> None:
    path = script.parent / "params.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.slow
def test_two_machines_are_one_run(script):
    edit(script, "processes: 2", "processes: 1")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{probe.getsockname()[1]}"
    agents = [
        start(script, "report", NNODES="2", NODE_RANK=str(i), RDZV_ENDPOINT=endpoint)
        for i in range(2)
    ]
    outputs = [agent.communicate(timeout=120) for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], outputs
    assert sorted(out for out, _ in outputs) == ["", "2 processes: ['0', '1']\nend\n"]


def test_several_machines_need_all_three_variables(script, monkeypatch, capsys):
    monkeypatch.setenv("NNODES", "2")
    monkeypatch.setenv("NODE_RANK", "0")
    with pytest.raises(SystemExit) as stopped:
        run_stage(pytest.fail, distributed=True)
    assert stopped.value.code == 1
    assert "RDZV_ENDPOINT is not" in capsys.readouterr().err


@pytest.mark.slow
def test_an_error_of_every_process_is_reported_once_and_without_a_traceback(script):
    process = start(script, "fail")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert err.count("a message for the user") == 1
    assert "Traceback" not in err


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()


@pytest.mark.slow
def test_a_slow_rank_is_named_and_no_process_outlives_a_killed_launcher(script):
    process = start(script, "sleep", CLIPZOO_HEARTBEAT_SECONDS="2")
    assert process.stderr is not None
    for line in process.stderr:
        if "rank 1" in line:
            break
    assert "which is at stage.py:14 (main)" in line
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=120)
    deadline = time.monotonic() + 60
    while any(alive(int((script.parent / f"{rank}.pid").read_text())) for rank in range(2)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_a_stopped_rank_is_named_and_the_run_ends(script):
    process = start(script, "SIGSTOP", CLIPZOO_HEARTBEAT_SECONDS="4")
    _, err = process.communicate(timeout=200)
    assert process.returncode == 1
    assert err.count("error: rank 1 (machine ") == 1
    assert "is lost" in err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGSTOP", "SIGKILL"])
def test_a_lost_process_is_replaced(script, name):
    edit(script, "max_restarts: 0", "max_restarts: 1")
    process = start(script, name, CLIPZOO_HEARTBEAT_SECONDS="4")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert out.splitlines()[1:] == [
        "restart 1 of 1 (runtime.max_restarts)",
        "2 processes: ['0', '1']",
        "end",
    ]


@pytest.mark.slow
def test_an_error_of_the_user_is_printed_once_whatever_the_restarts(script):
    edit(script, "max_restarts: 0", "max_restarts: 2")
    process = start(script, "fail")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 1
    assert err.count("a message for the user") == 1
    assert "restart" not in out


def test_an_endpoint_without_a_port_is_told(script, monkeypatch, capsys):
    for name, value in (("NNODES", "2"), ("NODE_RANK", "0"), ("RDZV_ENDPOINT", "host0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        run_stage(pytest.fail, distributed=True)
    assert "RDZV_ENDPOINT: found 'host0'; allowed: host:port" in capsys.readouterr().err


SLURM = {
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NODELIST": "gpu[03-05,09],login1",
}
SKYPILOT = {
    "SKYPILOT_NUM_NODES": "3",
    "SKYPILOT_NODE_RANK": "0",
    "SKYPILOT_NODE_IPS": "10.0.0.7\n10.0.0.8\n10.0.0.9",
}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (SLURM, ("2", "1", "gpu03:29500")),
        (SLURM | {"SLURM_STEP_NODELIST": "a1,a2"}, ("2", "1", "a1:29500")),
        (SLURM | {"SLURM_STEP_NODELIST": "a[7]-ib,b"}, ("2", "1", "a7-ib:29500")),
        (SLURM | {"RDZV_ENDPOINT": "x:5"}, ("2", "1", "x:5")),
        (SKYPILOT, ("3", "0", "10.0.0.7:29500")),
        (SLURM | {"SLURM_STEP_NUM_NODES": "1"}, ()),
        (SLURM | {"NNODES": "4"}, ()),
    ],
)
def test_a_task_knows_its_machines(environment: dict[str, str], expected: tuple[str, ...]):
    assert tuple(cluster_launch.machines_of_task(environment).values()) == expected


def test_a_launcher_that_names_no_machines_is_refused():
    with pytest.raises(ConfigError, match="none of SLURM_STEP_NUM_NODES, SKYPILOT_NUM_NODES and"):
        cluster_launch.machines_of_task({})


@pytest.mark.parametrize("launcher", ["no-such-program -n 2", "'unclosed"])
def test_a_launcher_that_cannot_be_started(script, monkeypatch, capsys, launcher):
    edit(script, "launcher: ''", f'launcher: "{launcher}"')
    with pytest.raises(SystemExit) as stopped:
        run_stage(pytest.fail, distributed=True)
    assert stopped.value.code == 1
    assert "error: runtime.launcher: found" in capsys.readouterr().err


@pytest.mark.parametrize("code", [pytest.param(0, marks=pytest.mark.slow), 7])
def test_a_stage_ends_as_its_launcher_does(script, tmp_path, code):
    """It runs the same script in the same way, which is then a task."""
    launcher = tmp_path / "start"
    launcher.write_text(f'#!/bin/bash\nSLURM_STEP_NUM_NODES=1 "$@"\nexit {code}\n')
    launcher.chmod(0o755)
    edit(script, "launcher: ''", f"launcher: {launcher}")
    process = start(script, "report")
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert out.splitlines()[-1] == "end"

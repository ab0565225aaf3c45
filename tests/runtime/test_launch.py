"""Starting and ending processes, and reporting their errors, with a minimal stage script."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clipzoo.runtime.launch import run_stage

ROOT = Path(__file__).parents[2]
SCRIPT = """
import os, sys, time
from clipzoo.runtime.launch import run_stage

def main():
    from clipzoo.runtime.distributed import gather_objects, say, start, world_size
    start("cpu")
    if sys.argv[1] == "fail":
        raise ValueError("a message for the user")
    say(f"{world_size()} processes: {gather_objects(os.environ['RANK'])}")
    if sys.argv[1] == "wait":
        open(os.environ["RANK"] + ".pid", "w").write(str(os.getpid()))
        time.sleep(300)

if __name__ == "__main__":
    run_stage(main, distributed=True)
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a stage script; `runtime.processes` is the default, 2."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "stage.py").write_text(SCRIPT)
    monkeypatch.chdir(tmp_path)
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


def test_two_machines_are_one_run(script):
    params = script.parent / "params.yaml"
    params.write_text(params.read_text().replace("processes: 2", "processes: 1"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{probe.getsockname()[1]}"
    agents = [
        start(script, "report", NNODES="2", NODE_RANK=str(i), RDZV_ENDPOINT=endpoint)
        for i in range(2)
    ]
    outputs = [agent.communicate(timeout=120) for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], outputs
    assert sorted(out for out, _ in outputs) == ["", "2 processes: ['0', '1']\n"]


def test_several_machines_need_all_three_variables(script, monkeypatch, capsys):
    monkeypatch.setenv("NNODES", "2")
    monkeypatch.setenv("NODE_RANK", "0")
    with pytest.raises(SystemExit) as stopped:
        run_stage(pytest.fail, distributed=True)
    assert stopped.value.code == 1
    assert "RDZV_ENDPOINT is not" in capsys.readouterr().err


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


def test_no_process_outlives_a_killed_launcher(script):
    process = start(script, "wait")
    files = [script.parent / f"{rank}.pid" for rank in range(2)]
    deadline = time.monotonic() + 120
    while not all(file.is_file() and file.read_text() for file in files):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=120)
    while any(alive(int(file.read_text())) for file in files):
        assert time.monotonic() < deadline
        time.sleep(0.05)

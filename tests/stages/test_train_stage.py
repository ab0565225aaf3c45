"""train through its script: DDP, kill and resume, several machines, one process against two."""

import json
import os
import signal
import socket
import time

import pandas as pd
import pytest
from safetensors.torch import load_file

from clipzoo.launch import run_stage


def curve(workspace, key: str = "loss") -> list[float]:
    path = workspace.path / f"plots/demo/train/plots/metrics/{key}.tsv"
    return pd.read_csv(path, sep="\t")[key].tolist()


def metrics(workspace, name: str) -> dict:
    return json.loads((workspace.path / f"metrics/demo/{name}.json").read_text())


def test_train_writes_model_metrics_and_curves(demo):
    values = metrics(demo, "train")
    assert values["steps"] == 36
    assert values["num_videos"] == 36
    assert len(curve(demo)) == 36
    assert (demo.path / "models/model.safetensors").is_file()
    assert not list((demo.path / ".state/train").glob("*"))


def test_one_process_trains_as_two_do(demo, copy_of_demo, capsys):
    copy_of_demo.run_here("train")
    assert "1 x cpu" in capsys.readouterr().out.splitlines()[0]
    assert curve(copy_of_demo) == pytest.approx(curve(demo), rel=1e-5)
    own = load_file(copy_of_demo.path / "models/model.safetensors")
    both = load_file(demo.path / "models/model.safetensors")
    for name, value in own.items():
        assert (value - both[name]).abs().max() < 1e-3, name


def test_kill_9_then_the_same_command_gives_the_same_curve(demo, copy_of_demo):
    process = copy_of_demo.start("train")
    state = copy_of_demo.path / ".state/train"
    deadline = time.monotonic() + 120
    while not list(state.glob("*/state.pt")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (copy_of_demo.path / "models/model.safetensors").exists()
    out = copy_of_demo.run("train")
    assert "resuming after step" in out
    assert curve(copy_of_demo) == curve(demo)
    assert curve(copy_of_demo, "val_top1") == curve(demo, "val_top1")


def test_two_machines_train_as_one_does(demo, copy_of_demo):
    copy_of_demo.set(runtime__processes=1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{probe.getsockname()[1]}"
    agents = [
        copy_of_demo.start("train", NNODES="2", NODE_RANK=str(i), RDZV_ENDPOINT=endpoint)
        for i in range(2)
    ]
    for agent in agents:
        out, err = agent.communicate(timeout=300)
        assert agent.returncode == 0, f"{out}\n{err}"
    assert curve(copy_of_demo) == pytest.approx(curve(demo), rel=1e-5)


def test_several_machines_need_all_three_variables(copy_of_demo, monkeypatch, capsys):
    monkeypatch.chdir(copy_of_demo.path)
    monkeypatch.setenv("NNODES", "2")
    monkeypatch.setenv("NODE_RANK", "0")
    with pytest.raises(SystemExit) as stopped:
        run_stage(pytest.fail, distributed=True)
    assert stopped.value.code == 1
    assert "RDZV_ENDPOINT is not" in capsys.readouterr().err


def test_an_error_of_every_process_is_told_once_and_without_a_traceback(copy_of_demo):
    copy_of_demo.set(model__arch="ViT-B/32")
    message = copy_of_demo.fail("train")
    assert message.count("models/clip.safetensors holds ViT-demo-16") == 1


def test_a_mistyped_architecture_is_told(copy_of_demo):
    copy_of_demo.set(model__arch="ViT-demo-61")
    with pytest.raises(ValueError, match="did you mean ViT-demo-16"):
        copy_of_demo.run_here("train")


def test_too_few_frames_in_every_video_is_told(copy_of_demo):
    copy_of_demo.set(data__min_frames=100000)
    with pytest.raises(ValueError, match=r"none of 36 training videos has data\.min_frames"):
        copy_of_demo.run_here("train")

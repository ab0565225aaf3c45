"""train through its script: DDP, kill and resume, one process against two."""

import json
import time

import pandas as pd
import pytest
from safetensors.torch import load_file


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


def kill_at_a_checkpoint(workspace) -> None:
    process = workspace.start("train")
    state = workspace.path / ".state/train"
    deadline = time.monotonic() + 120
    while not list(state.glob("*/state.pt")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert not (workspace.path / "models/model.safetensors").exists()


@pytest.mark.slow
def test_two_processes_go_on_where_one_was_killed(demo, copy_of_demo):
    kill_at_a_checkpoint(copy_of_demo)
    copy_of_demo.set(runtime__processes=2)
    out = copy_of_demo.run("train")
    assert "2 x cpu" in out
    assert "resuming after step" in out
    assert curve(copy_of_demo) == pytest.approx(curve(demo), rel=1e-5)
    both = load_file(copy_of_demo.path / "models/model.safetensors")
    for name, value in load_file(demo.path / "models/model.safetensors").items():
        assert (value - both[name]).abs().max() < 1e-3, name


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_kill_9_then_the_same_command_gives_the_same_curve(copy_of_demo, processes):
    copy_of_demo.set(runtime__processes=processes)
    copy_of_demo.run("train")
    loss, top1 = curve(copy_of_demo), curve(copy_of_demo, "val_top1")
    (copy_of_demo.path / "models/model.safetensors").unlink()
    kill_at_a_checkpoint(copy_of_demo)
    assert "resuming after step" in copy_of_demo.run("train")
    assert curve(copy_of_demo) == loss
    assert curve(copy_of_demo, "val_top1") == top1


def test_stand_in_weights_of_another_architecture_are_refused(copy_of_demo):
    copy_of_demo.set(model__arch="ViT-B/32")
    with pytest.raises(ValueError, match=r"models/clip\.safetensors holds ViT-demo-16"):
        copy_of_demo.run_here("train")


def test_a_mistyped_architecture_is_told(copy_of_demo):
    copy_of_demo.set(model__arch="ViT-demo-61")
    with pytest.raises(ValueError, match="did you mean ViT-demo-16"):
        copy_of_demo.run_here("train")


def test_too_few_frames_in_every_video_is_told(copy_of_demo):
    copy_of_demo.set(data__min_frames=100000)
    with pytest.raises(ValueError, match=r"data\.min_frames: none of 36 training videos"):
        copy_of_demo.run_here("train")

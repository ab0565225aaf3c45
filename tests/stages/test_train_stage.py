"""train through its script: DDP, kill and resume, one process against two."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

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
    assert values["steps"] == 24
    assert values["num_videos"] == 96
    assert len(curve(demo)) == 24
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


def wait_for_a_state(workspace) -> None:
    deadline = time.monotonic() + 200
    while not list((workspace.path / ".state/train").glob("*/state.pt")):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_second_training_is_refused_and_the_first_goes_on(demo, copy_of_demo, processes):
    copy_of_demo.set(runtime__processes=processes)
    first = copy_of_demo.start("train")
    wait_for_a_state(copy_of_demo)
    second = copy_of_demo.start("train")
    _, err = second.communicate(timeout=300)
    assert second.returncode == 1
    assert f"process {first.pid} on " in err
    assert "Traceback" not in err
    first.communicate(timeout=300)
    assert first.returncode == 0
    assert curve(copy_of_demo) == pytest.approx(curve(demo), rel=1e-5)


@pytest.mark.slow
def test_a_stage_that_outlives_a_killed_dvc_is_named_until_it_ends(demo, tmp_path):
    shutil.copytree(demo.path, tmp_path / "repository", symlinks=True)
    workspace = replace(demo, path=tmp_path / "repository")
    workspace.set(train__epochs=40)
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", "train"]

    def repro() -> subprocess.CompletedProcess:
        return subprocess.run(
            command,
            cwd=workspace.path,
            env=workspace.environment(),
            capture_output=True,
            text=True,
            timeout=400,
        )

    dvc = subprocess.Popen(
        command,
        cwd=workspace.path,
        env=workspace.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for_a_state(workspace)
    dvc.kill()
    dvc.wait()
    refused = repro()
    assert refused.returncode != 0
    message = re.search(r"error: train has been running since .*: process (\d+) on", refused.stderr)
    assert message, refused.stderr
    os.kill(int(message[1]), signal.SIGTERM)
    time.sleep(5)
    done = repro()
    assert done.returncode == 0, done.stderr
    assert "resuming after step" in done.stdout
    assert len(curve(workspace)) == 160


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "file", "room"), [(".state", "state.pt", 6_000_000), ("models", "model", 2_000_000)]
)
def test_a_full_disk_costs_no_step_that_was_saved(demo, copy_of_demo, folder, file, room):
    """A file system of its own, too small for the state or for the model."""
    content = copy_of_demo.path / "content"
    shutil.copytree(copy_of_demo.path / "models", content / "models")
    (content / ".state").mkdir()
    size = room + sum(path.stat().st_size for path in (content / folder).iterdir())
    (copy_of_demo.path / folder).mkdir(exist_ok=True)
    mount = f"mount -t tmpfs -o size={size} none {folder} && cp -r content/{folder}/. {folder}"
    sandbox = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*sandbox, mount], cwd=copy_of_demo.path, check=False).returncode:
        pytest.skip("no file system of its own")
    stage = f"{sys.executable} stages/train.py; status=$?; find . -name '*.part'; exit $status"
    process = subprocess.run(
        [*sandbox, f"{mount} && {stage}"],
        cwd=copy_of_demo.path,
        env=copy_of_demo.environment(),
        capture_output=True,
        text=True,
    )
    assert process.returncode == 1
    assert re.search(rf"error: {folder}/.*{file}.* \(No space left on device\)", process.stderr)
    assert "Traceback" not in process.stderr
    assert ".part" not in process.stdout
    out = copy_of_demo.run("train")
    assert ("resuming after step 24 of 24" in out) is (folder == "models")
    assert curve(copy_of_demo) == curve(demo)


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
    with pytest.raises(ValueError, match=r"data\.min_frames: none of 96 training videos"):
        copy_of_demo.run_here("train")

"""Own videos in folders of their class: scan, then what it printed, to metrics and the report."""

import csv
import json
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml

from clipzoo.__main__ import main
from clipzoo.report.tables import read_report
from videos import make_video

STAGES = (
    ("prepare_clip",),
    ("extract_frames", "mine"),
    ("build_lists", "mine"),
    ("embed_labels", "mine"),
    ("train",),
    ("test",),
    ("report",),
)
TINY = {
    "demo__pretrain_steps": 1,
    "train__epochs": 2,
    "train__batch_size": 3,
    "train__val_every": 1,
}


def scan(workspace, root: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """`clipzoo scan mine ROOT`; returns what it printed."""
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workspace.path)
        patch.delenv("CLIPZOO_DATA", raising=False)
        patch.setattr(sys, "argv", ["clipzoo", "scan", "mine", str(root)])
        main()
    return capsys.readouterr().out


def follow(workspace, printed: str) -> dict[str, object]:
    """Set the values that scan printed (`-S key=value`) and run all stages; returns the values."""
    (command,) = [line for line in printed.splitlines() if "dvc exp run" in line]
    changes = [word.split("=") for word in shlex.split(command) if "=" in word]
    values = {key: yaml.safe_load(value) for key, value in changes}
    workspace.set(**TINY)
    workspace.set(**{key.replace(".", "__"): value for key, value in values.items()})
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CLIPZOO_DATA", raising=False)
        for stage in STAGES:
            workspace.run_here(*stage)
    return values


def read_metrics(workspace, name: str) -> dict[str, object]:
    return json.loads((workspace.path / f"metrics/mine/{name}.json").read_text())


def reported_top1(workspace) -> float:
    """The recipe's top-1 in zoo.csv, of which `clipzoo results` prints a row too."""
    with (workspace.path / "zoo.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["recipe"] == row["dataset"] == "mine"]
    (row,) = [row for row in rows if row["metric"] == "top1"]
    section = read_report(workspace.path).run_markdown("mine")
    cells = [[cell.strip() for cell in line.split("|")] for line in section.splitlines()]
    (shown,) = [line[2] for line in cells if line[1:2] == ["top-1"]]
    value = float(row["value"])
    assert shown.startswith(f"{value:.1f}")
    return value


def list_ids(workspace, name: str) -> list[str]:
    with (workspace.path / f"lists/mine/{name}.csv").open() as file:
        return [row["video_id"] for row in csv.DictReader(file)]


def test_a_folder_of_classes_to_a_row_of_the_report(fresh_workspace, tmp_path, capsys):
    workspace, root = fresh_workspace, tmp_path / "my videos"
    names = ("one.mp4", "two ü.avi", "three.webm", "four.mkv", "five.mp4")
    for folder in ("run_fast", "sit", "a b"):
        for i, name in enumerate(names):
            make_video(root / folder / name, 10 + i)
    printed = scan(workspace, root, capsys)
    assert "15 videos" in printed
    values = follow(workspace, printed)
    assert values == {
        "data.dataset": "mine",
        "data.datasets": ["mine"],
        "data.demo": [],
        "data.zero_shot": [],
        "recipe": "mine",
    }
    labels = (workspace.path / "lists/mine/labels.csv").read_text()
    assert labels.splitlines() == ["id,name", "0,a b", "1,run fast", "2,sit"]
    train, val = list_ids(workspace, "train"), list_ids(workspace, "val")
    assert (len(train), len(val)) == (12, 3)  # val_fraction 0.2 of 5, in each class
    assert {video_id.partition("/")[0] for video_id in val} == {"a b", "run_fast", "sit"}
    expected = {f"{folder}/{Path(n).stem}" for folder in ("run_fast", "sit", "a b") for n in names}
    assert {*train, *val} == expected
    assert read_metrics(workspace, "train")["num_videos"] == 12
    assert read_metrics(workspace, "train")["steps"] == 8  # 2 epochs of 12 / 3
    test = read_metrics(workspace, "test")
    assert test["num_videos"] == 3
    assert test["top5"] == 100  # of 3 classes
    assert reported_top1(workspace) == test["top1"]


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--temp"], ["--queue"]])
def test_an_experiment_in_a_copy_finds_the_videos(fresh_workspace, tmp_path, capsys, options):
    """The link to them is not in git, and so not in DVC's copy."""
    workspace, root = fresh_workspace, tmp_path / "my videos"
    for folder in ("run", "sit"):
        for number in range(2):
            make_video(root / folder / f"{number}.avi", 10)
    workspace.git("init", "-q")
    scan(workspace, root, capsys)
    workspace.set(data__dataset="mine", data__datasets=["mine"], data__demo=[], data__zero_shot=[])
    workspace.git("add", ".")
    workspace.git("commit", "-q", "-m", "start")
    # of the pipeline only as far as the videos are read
    workspace.dvc("exp", "run", *options, "--name", "away", "build_lists")
    if options == ["--queue"]:
        workspace.dvc("exp", "run", "--run-all")
    git = partial(subprocess.check_output, cwd=workspace.path, text=True)
    (name,) = git(["git", "for-each-ref", "--format=%(refname)", "refs/exps/**/away"]).split()
    lines = git(["git", "show", f"{name}:lists/mine/val.csv"]).split()
    rows = [line.split(",")[1:] for line in lines]
    assert rows[1:] == [["10", "0"], ["10", "1"]]  # frames and label
    assert not (workspace.path / "lists/mine").exists()


@pytest.mark.slow
def test_one_video_a_class_is_evaluated_without_training(fresh_workspace, tmp_path, capsys):
    workspace, root = fresh_workspace, tmp_path / "videos"
    for folder, suffix in (("jump", ".mp4"), ("sit", ".avi")):
        make_video(root / folder / f"only{suffix}", 9)
    values = follow(workspace, scan(workspace, root, capsys))
    assert values["train.epochs"] == 0
    assert list_ids(workspace, "val") == ["jump/only", "sit/only"]
    assert read_metrics(workspace, "train")["steps"] == 0
    test = read_metrics(workspace, "test")
    assert test["num_videos"] == 2
    assert reported_top1(workspace) == test["top1"]

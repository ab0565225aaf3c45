"""What training logs, and what is left of it after a kill."""

import json
from pathlib import Path

import pytest
import torch
from dvclive.live import Live

from clipzoo.files import DiskError
from clipzoo.train.log import TrainingLog

CPU = torch.device("cpu")
ROWS = [{"step": i, "loss": 1 / (i + 1), "lr": i / 10} for i in range(7)]
ROWS[3]["val_top1"], ROWS[6]["val_top1"] = 50.0, 75.0


@pytest.fixture(autouse=True)
def no_repository(tmp_path, monkeypatch):
    """dvclive looks for a git repository, and leaves it open."""
    monkeypatch.chdir(tmp_path)


def run(folder: Path, history: list, rows: list) -> dict[str, str]:
    log = TrainingLog(folder, history, len(ROWS), CPU)
    for i in range(0, len(rows), 2):  # as if the losses were read after every second step
        log.add(rows[i : i + 2], num_clips=4, skipped_steps=0)
    log.close()
    return {path.name: path.read_text() for path in sorted(folder.rglob("*.*"))}


def test_every_step_is_logged(tmp_path):
    files = run(tmp_path, [], ROWS)
    assert sorted(files) == ["loss.tsv", "lr.tsv", "metrics.json", "val_top1.tsv"]
    assert files["val_top1.tsv"] == "step\tval_top1\n3\t50.0\n6\t75.0\n"
    losses = [line.split("\t") for line in files["loss.tsv"].splitlines()]
    assert losses == [["step", "loss"], *([str(r["step"]), str(r["loss"])] for r in ROWS)]
    summary = {"loss": 1 / 7, "lr": 0.6, "val_top1": 75.0, "step": 6}
    assert json.loads(files["metrics.json"]) == summary


@pytest.mark.parametrize("killed_after", [1, 4, 6, 7])
def test_a_resumed_run_leaves_the_files_of_a_whole_one(tmp_path, killed_after):
    whole = run(tmp_path / "whole", [], ROWS)
    killed = TrainingLog(tmp_path / "killed", [], len(ROWS), CPU)
    killed.add(ROWS[:5], num_clips=4, skipped_steps=0)  # some after the last resume point
    assert run(tmp_path / "killed", ROWS[:killed_after], ROWS[killed_after:]) == whole


def test_a_full_disk_names_the_folder(tmp_path, limit_file_size):
    rows = [{"step": step, "loss": 1 / 3, "lr": 0.1} for step in range(600)]
    limit_file_size(8000)  # less than the curve, more than the progress bar
    log = TrainingLog(tmp_path / "plots", [], len(rows), CPU)
    with pytest.raises(DiskError, match=r"plots: cannot be written \(File too large\)"):
        log.add(rows, num_clips=4, skipped_steps=0)
    with pytest.raises(DiskError, match=r"plots: cannot be written \(File too large\)"):
        TrainingLog(tmp_path / "plots", rows, len(rows), CPU)


def test_dvclive_reads_its_history_once(tmp_path, monkeypatch):
    """Every sync reads all rows again: one a step took half an hour of 28,000 steps."""
    syncs, original = [], Live.sync
    monkeypatch.setattr(Live, "sync", lambda self: syncs.append(self.step) or original(self))
    log = TrainingLog(tmp_path, [], 2000, CPU)
    for step in range(1100):
        log.add([{"step": step, "loss": 1.0, "lr": 0.1}], num_clips=1, skipped_steps=0)
    assert json.loads((tmp_path / "metrics.json").read_text())["step"] == 999
    log.close()
    assert syncs == [1099]

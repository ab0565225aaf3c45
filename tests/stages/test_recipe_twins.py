"""Every recipe, made tiny, runs through the stages that its values reach."""

import json
import shutil
from pathlib import Path

import pytest
from shrinking import ROOT, different_twins, shrunken

from clipzoo.config import load_params
from clipzoo.data.records import SPLIT_COLUMNS, read_list
from clipzoo.files import write_csv
from clipzoo.report.recipes import recipe_settings

QUICK = {
    "ablation-lda-classifier",
    "ablation-infonce-trained",
    "base-to-novel",
    "zero-shot-ucf101-vitl14-f8",
}
"""Run by default: what no other test trains."""


def without_training_videos_but_with_splits(lists: Path) -> None:
    """Lists like those of datasets that are only tested: Kinetics-600's new classes, UCF101."""
    shared = lists.readlink()
    lists.unlink()
    shutil.copytree(shared, lists)
    (lists / "demo_shapes/train.csv").unlink()
    records = read_list(lists / "demo_unseen/val.csv", 12)
    rows = [(record.video_id, 1 + i % 3) for i, record in enumerate(records)]
    write_csv(SPLIT_COLUMNS, rows, lists / "demo_unseen/splits.csv")


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(name, marks=() if name.split("/")[-1] in QUICK else pytest.mark.slow)
        for name in different_twins()
    ],
)
def test_a_recipe_made_tiny_runs_to_its_metrics(recipe, copy_of_demo, monkeypatch):
    values = {**recipe_settings(recipe, ROOT), **shrunken(recipe)}
    copy_of_demo.set(**{key.replace(".", "__"): value for key, value in values.items()})
    monkeypatch.chdir(copy_of_demo.path)
    params = load_params()
    if not params.train.epochs:
        without_training_videos_but_with_splits(copy_of_demo.path / "lists")
    for dataset in params.data.datasets:
        copy_of_demo.run_here("embed_labels", dataset)
    copy_of_demo.run_here("train")
    copy_of_demo.run_here("test")
    for dataset in params.data.zero_shot:
        copy_of_demo.run_here("zero_shot", dataset)
    folder = copy_of_demo.path / "metrics" / params.recipe
    written = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    expected = {"train", "test", *(f"zero_shot_{name}" for name in params.data.zero_shot)}
    assert set(written) == expected
    assert 0 <= written["test"]["top1"] <= 100
    if not params.train.epochs and params.data.zero_shot:
        found = written["zero_shot_demo_unseen"].keys()
        assert ("splits_top1_mean" in found) == ("splits" in params.zero_shot.protocols)
    assert ("novel_top1" in written["test"]) == (params.data.classes == "base")
    assert written["train"]["steps"] > 0 or params.train.epochs == 0

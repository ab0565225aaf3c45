"""Every recipe, made tiny, runs through the stages that its values reach."""

import json

import pytest
from shrinking import ROOT, different_twins, shrunken

from clipzoo.config import load_params
from clipzoo.recipes import recipe_settings

QUICK = {
    "ablation-lda-classifier",
    "ablation-infonce-trained",
    "base-to-novel",
    "zero-shot-ucf101-vitl14-f8",
}
"""Run by default: what no other test trains."""


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
    assert ("novel_top1" in written["test"]) == (params.data.classes == "base")
    assert written["train"]["steps"] > 0 or params.train.epochs == 0

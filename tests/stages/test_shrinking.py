"""The twins of the recipes are valid, small, and still their recipes' own."""

import pytest
from shrinking import ROOT, different_twins, shrunken

from clipzoo.config import load_params, replace
from clipzoo.report.recipes import recipe_names, recipe_settings

# What a twin keeps of its recipe.
KEPT = (
    "text4vis.head",
    "text4vis.temporal_module",
    "text4vis.joint",
    "text4vis.loss",
    "text4vis.text_tower",
    "data.classes",
    "text.classifier",
    "train.schedule",
    "train.select",
    "train.lr",
    "train.update_every",
    "test.clips",
    "test.crops",
    "zero_shot.protocols",
)


def test_recipes_with_equal_twins_need_one_run():
    names = different_twins()
    assert 10 < len(names) < len(recipe_names(ROOT))
    assert "demo" in names


@pytest.mark.parametrize("name", recipe_names(ROOT))
def test_twins_are_valid_and_keep_what_matters(name):
    full = recipe_settings(name, ROOT)
    flat = full | shrunken(name)
    assert flat.keys() == full.keys()
    assert all(flat[key] == full[key] for key in KEPT)
    assert (flat["train.epochs"] > 0) == (full["train.epochs"] > 0)
    assert (flat["data.shots"] > 0) == (full["data.shots"] > 0)
    params = replace(load_params(ROOT / "params.yaml"), flat)
    assert params.data.datasets == ["demo_shapes", "demo_unseen"]
    assert params.model.arch == "ViT-demo-16"
    assert params.model.num_segments * params.model.input_px <= 4 * 32

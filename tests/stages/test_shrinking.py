"""The twins of the recipes are valid, small, and still their recipes' own."""

import pytest
from shrinking import ROOT, different_twins, shrunken

from clipzoo.config import Params, build
from clipzoo.report.recipes import NO_RUNTIME, recipe_names, recipe_settings

# What a twin keeps of its recipe.
KEPT = (
    "model.head",
    "model.temporal_module",
    "model.joint",
    "data.classes",
    "text.classifier",
    "train.loss",
    "train.text_tower",
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


def nested(flat: dict) -> dict:
    values: dict = {}
    for key, value in flat.items():
        *sections, last = key.split(".")
        section = values
        for name in sections:
            section = section.setdefault(name, {})
        section[last] = value
    return values


@pytest.mark.parametrize("name", recipe_names(ROOT))
def test_twins_are_valid_and_keep_what_matters(name):
    full = recipe_settings(name, ROOT)
    flat = full | shrunken(name)
    assert flat.keys() == full.keys()
    assert all(flat[key] == full[key] for key in KEPT)
    assert (flat["train.epochs"] > 0) == (full["train.epochs"] > 0)
    assert (flat["data.shots"] > 0) == (full["data.shots"] > 0)
    params = build(Params, {**nested(flat), "runtime": NO_RUNTIME}, name)
    assert params.data.datasets == ["demo_shapes", "demo_unseen"]
    assert params.model.arch == "ViT-demo-16"
    assert params.model.num_segments * params.model.input_px <= 4 * 32

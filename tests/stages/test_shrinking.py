"""The twins of the recipes are valid, small, and still their recipes' own."""

import pytest
from shrinking import ROOT, different_twins, short_template, shrunken

from clipzoo.config import load_params, replace
from clipzoo.report.recipes import recipe_names, recipe_settings

# All that a twin may change; the rest, of every method, is its recipe's.
SHRUNKEN = {
    "recipe",
    "data.dataset",
    "data.datasets",
    "data.demo",
    "data.zero_shot",
    "data.class_names",
    "data.classes",  # a list of another dataset's classes becomes base
    "data.split",
    "data.shots",
    "frames.size",
    "frames.shard_videos",
    "model.arch",
    "model.weights",
    "model.checkpoint",
    "text4vis.head_layers",
    "bike.head_layers",
    "mote.head_layers",
    "actionclip.head_layers",
    "actionclip.authors_test_batch",
    *(f"attributes.{key}" for key in ("datasets", "arch", "weights", "template")),
    *(f"attributes.{key}" for key in ("train_json", "val_json")),
    *(f"bike_attributes.{key}" for key in ("prefix", "num_attributes")),
    "fusion.with",
    "model.num_segments",
    "model.input_px",
    "text.templates",
    "augment.short_side_px",
    "train.epochs",
    "train.warmup_epochs",
    "train.batch_size",
    "train.milestones",
    "train.precision",
    "train.val_precision",
    "train.val_every",
    "train.average_epochs",
    "train.checkpoint_every",
    "test.short_side_px",
    "test.precision",
    "zero_shot.interpolation",
}
# Of these a twin may make less, but not nothing of something, nor something of nothing.
STILL_THERE = (
    "data.zero_shot",
    "data.shots",
    "train.epochs",
    "train.average_epochs",
    "zero_shot.interpolation",
    "augment.short_side_px",
    "actionclip.authors_test_batch",
)


@pytest.mark.slow  # shrinks every recipe
def test_recipes_with_equal_twins_need_one_run():
    names = different_twins()
    assert 10 < len(names) < len(recipe_names(ROOT))
    assert "demo" in names


@pytest.mark.parametrize(
    ("template", "short"),
    [
        ("{}", "{}"),
        ("a video of a person {}.", "person {}."),
        ("{}, a video", "{}, a video"),
    ],
)
def test_short_templates_keep_their_last_word(template, short):
    assert short_template(template) == short


@pytest.mark.parametrize("name", recipe_names(ROOT))
def test_twins_are_valid_and_keep_what_matters(name):
    full = recipe_settings(name, ROOT)
    flat = full | shrunken(name)
    assert flat.keys() == full.keys()
    changed = {key for key in full if flat[key] != full[key]}
    assert {key for key in changed if not key.startswith("demo.")} <= SHRUNKEN
    assert (flat["data.classes"] == "all") == (full["data.classes"] == "all")
    for key in STILL_THERE:
        assert bool(flat.get(key)) == bool(full.get(key)), key
    short = dict.fromkeys(short_template(template) for template in full["text.templates"])
    assert flat["text.templates"] == list(short)
    params = replace(load_params(ROOT / "params.yaml"), flat)
    assert params.recipe == f"twin/{name}"
    assert params.data.datasets == ["demo_shapes", "demo_unseen"]
    assert params.model.arch == "ViT-demo-16"
    assert params.model.num_segments * params.model.input_px <= 4 * 32
    assert params.train.epochs <= 2

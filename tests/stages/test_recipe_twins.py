"""Every recipe, made tiny, runs through the stages that its values reach."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from shrinking import EVAL_BATCH, ROOT, different_twins, shrunken

from clipzoo.config import load_params
from clipzoo.data.records import SPLIT_COLUMNS, read_list
from clipzoo.files import write_csv
from clipzoo.report.recipes import recipe_settings

QUICK = {
    "demo/base-to-novel",
    "bike/zero-shot-hmdb51-vitl14-f8",
}
"""Run by default; the others are slow."""
TWINS = different_twins()


def without_training_videos_but_with_splits(lists: Path) -> None:
    """Lists like those of datasets that are only tested: Kinetics-600's new classes, UCF101."""
    shared = lists.readlink()
    lists.unlink()
    shutil.copytree(shared, lists)
    (lists / "demo_shapes/train.csv").unlink()
    records = read_list(lists / "demo_unseen/val.csv", 24)
    rows = [(record.video_id, 1 + i % 3) for i, record in enumerate(records)]
    write_csv(SPLIT_COLUMNS, rows, lists / "demo_unseen/splits.csv")


HEADS = {"mote": "Transf"}
"""Heads of methods without an option for it."""
PLAIN_HEADS = (None, "None", "meanP")
ROWS = {"mote": (2 + 5,)}
"""What the features of a method have between views and D, but for frames: of MoTE the classes
nearest to the video too."""
NUM_VAL, NUM_UNSEEN, NUM_CLASSES, DIM = 48, 24, 48, 128
NUM_TRAIN = {("all", 0): 96, ("all", 2): 96, ("base", 0): 48, ("base", 2): 48}
"""By data.classes and data.shots; all are whole steps of 12."""
DESCRIBED = {"dataset", "protocol", "num_videos", "num_expected", "videos_sha256"}
DESCRIBED |= {"settings_sha256", "training_sha256", "model_sha256"}
DESCRIBED |= {"environment", "missing_sha256"}
TOP1_KEYS = {"top1", "top1_ci95_low", "top1_ci95_high"}
TEST_KEYS = {*TOP1_KEYS, "top5", "mean_class_accuracy", "map"}
BASE_TO_NOVEL_KEYS = {"base_top1", "novel_top1", "base_to_novel_hmean"}
PROTOCOL_KEYS = {
    "full": {f"full_{key}" for key in (*TOP1_KEYS, "top5")},
    "half": {"half_top1_mean", "half_top1_std"},
    "splits": {f"splits_top{k}_{part}" for k in (1, 5) for part in ("mean", "std")},
    "listed": {f"listed_{key}" for key in (*TOP1_KEYS, "top5", "num_videos")},
    "fixed_halves": {"fixed_half_top1_mean", "fixed_half_top1_std"},
}
INTERVAL = ("", "_ci95_low", "_ci95_high")
INTERPOLATED_KEYS = {f"interpolated_{key}" for key in ("alpha", *TOP1_KEYS)}


def check_training(values: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    videos = NUM_TRAIN[values["data.classes"], values["data.shots"]]
    if not values["train.epochs"]:
        videos = 0
    assert found["num_videos"] == videos
    assert found["steps"] == values["train.epochs"] * videos // 12
    names, method = load_file("models/model.safetensors").keys(), values["model.method"]
    attributes = method == "bike_attributes"  # without a vision tower, with the text tower
    head = attributes or values.get(f"{method}.head", HEADS.get(method)) not in PLAIN_HEADS
    assert any(name.startswith("fusion_model.") for name in names) == head
    trained = values.get(f"{method}.text_tower") == "trained"
    trained |= values.get("vificlip.trained") in ("both", "text")
    assert any(name.startswith("text.") for name in names) == (attributes or trained)
    assert any(name.startswith("visual.") for name in names) != attributes


def check_classifier(values: Mapping[str, Any], class_names: torch.Tensor) -> None:
    """Against the embeddings [K, D] of the class names alone, by the raw CLIP."""
    rows = load_file("models/classifier.safetensors")["given_embeddings"]
    num_classes = NUM_CLASSES // 2 if values["data.classes"] == "base" else NUM_CLASSES
    assert rows.shape == (len(values["text.templates"]), num_classes, DIM)
    own, kind = rows[0], values["text.classifier"]
    orthogonal = torch.allclose(own @ own.T, torch.eye(num_classes), atol=1e-5)
    assert orthogonal == (kind == "orthogonal")
    plain = values["text.templates"] == ["{}"]
    # For more than 25 rows torch would take a faster way, with errors of 3e-4.
    distances = torch.cdist(own, class_names, compute_mode="donot_use_mm_for_euclid_dist")
    distance, class_id = distances.min(dim=1)
    is_names = bool((distance < 1e-4).all()) and class_id.tolist() == sorted(set(class_id.tolist()))
    assert is_names == (kind == "text" and plain)


def check_test(values: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    method, num_views = values["model.method"], values["test.clips"] * values["test.crops"]
    expected = DESCRIBED | TEST_KEYS
    if method == "bike":
        expected |= {"authors_map"}
    if values.get("actionclip.authors_test_batch"):
        expected |= {f"authors_{key}" for key in (*TOP1_KEYS, "top5")}
        expected |= {"authors_num_videos"}
        assert found["authors_num_videos"] == NUM_VAL // EVAL_BATCH * EVAL_BATCH
    if method == "bike_attributes":
        num_views = 1  # a sentence
    if num_views > 1 and not values["test.dense"]:
        expected |= {f"single_view_{key}" for key in TEST_KEYS}
    if values["data.classes"] == "base":
        expected |= BASE_TO_NOVEL_KEYS
    assert found.keys() == expected
    assert (found["dataset"], found["num_videos"]) == ("demo_shapes", NUM_VAL)
    drawn = values.get("vificlip.test_sampler") == "random"
    how = "dense" if values["test.dense"] else "random" if drawn else "uniform"
    how = "windows" if f"{method}.windows" in values else how
    assert found["protocol"] == f"clips {values['test.clips']}, crops {values['test.crops']}, {how}"
    tensors = load_file("predictions/test.safetensors")
    frames = (values["model.num_segments"],) if values.get("bike.interaction") == "VCS" else ()
    rows = frames or ROWS.get(method, ())
    assert tensors["features"].shape == (NUM_VAL, num_views, *rows, DIM)
    if values.get("bike.saliency"):
        weights = tensors["saliency"].float()
        assert weights.shape == (NUM_VAL, NUM_CLASSES, *frames)
        torch.testing.assert_close(
            weights.sum(-1), torch.ones(NUM_VAL, NUM_CLASSES), rtol=0, atol=0.01
        )
    if values.get(f"{method}.score_training"):
        assert tensors["train_probabilities"].shape == (NUM_TRAIN["all", 0], NUM_CLASSES)
    right = (tensors["probabilities"].argmax(1) == tensors["labels"]).sum().item()
    assert found["top1"] == round(100 * right / NUM_VAL, 6)


def check_zero_shot(values: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    protocols = values["zero_shot.protocols"]
    own = set().union(*(PROTOCOL_KEYS[name] for name in protocols))
    expected = DESCRIBED | own | {f"raw_{key}" for key in own}
    if "full" in protocols:
        expected |= {"gain", "gain_ci95_low", "gain_ci95_high"}
    recalls = {f"class_to_video_recall{rank}{end}" for rank in (1, 5, 10) for end in INTERVAL}
    expected |= recalls | {f"raw_{key}" for key in recalls} | {"class_to_video_num_queries"}
    if values["zero_shot.interpolation"]:
        expected |= INTERPOLATED_KEYS
        assert found["interpolated_alpha"] in values["zero_shot.interpolation"]
    assert found.keys() == expected
    assert (found["dataset"], found["num_videos"]) == ("demo_unseen", NUM_UNSEEN)
    num_views = values["zero_shot.clips"] * values["zero_shot.crops"]
    tensors = load_file("predictions/zero_shot_demo_unseen.safetensors")
    vcs = (
        values.get("bike.interaction") == "VCS" or values.get("bike.zero_shot_scoring") == "frames"
    )
    rows = (values["model.num_segments"],) if vcs else ROWS.get(values["model.method"], ())
    assert tensors["features"].shape == (NUM_UNSEEN, num_views, *rows, DIM)
    assert tensors["raw_features"].shape == (NUM_UNSEEN, num_views, DIM)


def test_the_quick_ones_are_among_the_twins():
    assert set(TWINS) >= QUICK


@pytest.mark.parametrize(
    "recipe",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in TWINS],
)
def test_a_recipe_made_tiny_runs_to_its_metrics(recipe, copy_of_demo, monkeypatch):
    values = {**recipe_settings(recipe, ROOT), **shrunken(recipe)}
    copy_of_demo.set(**{key.replace(".", "__"): value for key, value in values.items()})
    monkeypatch.chdir(copy_of_demo.path)
    params = load_params()
    class_names = load_file("data/text/demo_shapes.safetensors")["class_embeddings"][0]
    if not params.train.epochs:
        without_training_videos_but_with_splits(copy_of_demo.path / "lists")
    for dataset in params.data.datasets:
        copy_of_demo.run_here("embed_labels", dataset)
    for dataset in values.get("attributes.datasets", []):
        copy_of_demo.run_here("attributes", dataset)
    copy_of_demo.run_here("train")
    copy_of_demo.run_here("test")
    if params.data.zero_shot:
        copy_of_demo.run_here("interpolation")
    for dataset in params.data.zero_shot:
        copy_of_demo.run_here("zero_shot", dataset)
    folder = copy_of_demo.path / "metrics" / params.recipe
    written = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    expected = {"train", "test", *(f"zero_shot_{name}" for name in params.data.zero_shot)}
    assert set(written) == expected
    check_training(values, written["train"])
    check_classifier(values, class_names)
    check_test(values, written["test"])
    if params.data.zero_shot:
        check_zero_shot(values, written["zero_shot_demo_unseen"])
    for stem in expected - {"train"}:  # what the report compares with the recipe
        settings = copy_of_demo.path / "plots" / params.recipe / stem / "settings.json"
        assert json.loads(settings.read_text()) == values

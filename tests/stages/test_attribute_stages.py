"""BIKE's attributes branch through its stages: attributes, train, test, fuse; and DVC's graph."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clipzoo.clips.attributes import attributes_path
from clipzoo.config import ConfigError
from clipzoo.data.records import read_labels, read_list
from clipzoo.evaluate.fusion import FusionError
from clipzoo.files import ListError
from clipzoo.report.kept import kept_predictions, take_predictions
from clipzoo.tensors import WeightsError

BRANCH = {
    "model__method": "bike_attributes",
    "model__inputs": "attributes",
    "attributes__datasets": ["demo_shapes"],
    "attributes__template": "{}",
    "bike_attributes__prefix": "",
    "bike_attributes__num_attributes": 2,
}


@pytest.fixture
def branch(copy_of_demo, monkeypatch):
    """The tiny demo with the attributes branch as its method."""
    copy_of_demo.set(**BRANCH, data__zero_shot=[], train__epochs=2)
    monkeypatch.chdir(copy_of_demo.path)
    return copy_of_demo


def keep_as(recipe: str) -> None:
    """The active predictions for those of another recipe, as `zoo --parent` takes them."""
    shutil.copy("metrics/demo/test.json", "predictions/test.json")
    take_predictions(recipe, Path("predictions/test.safetensors"))


def test_the_branch_runs_from_frames_to_fused_metrics(branch, capsys):
    branch.set(bike_attributes__score_training=True)
    branch.run_here("attributes", "demo_shapes")
    names = read_labels("lists/demo_shapes/labels.csv")
    for name, count in (("train", 96), ("val", 48)):
        entries = json.loads(attributes_path("demo_shapes", name).read_text())
        records = read_list(f"lists/demo_shapes/{name}.csv", 48)
        assert list(entries) == [record.video_id for record in records]
        assert len(entries) == count
        for record in records:
            entry = entries[record.video_id]
            assert entry["video_label_id"] == record.label
            assert len(set(entry["classname_topk"])) == 5
            assert set(entry["classname_topk"]) <= set(names)
    # No frame is read from here on.
    shutil.copytree(branch.path / "data/frames/demo_shapes", branch.path / "kept")
    branch.path.joinpath("data/frames").unlink()
    branch.run_here("train")
    tensors = load_file("models/model.safetensors")
    assert "fusion_model.sentence_fc.2.weight" in tensors
    assert not any(key.startswith("visual.") for key in tensors)
    branch.run_here("test")
    found = load_file("predictions/test.safetensors")
    assert found["features"].shape == (48, 1, 128)
    assert found["train_probabilities"].shape == (96, 48)
    labels = torch.tensor([r.label for r in read_list("lists/demo_shapes/train.csv", 48)])
    assert torch.equal(found["train_labels"], labels)
    keep_as("demo/other")
    branch.run_here("fuse", "demo/other")
    fused = json.loads((branch.path / "metrics/demo/fused.json").read_text())
    tested = json.loads((branch.path / "metrics/demo/test.json").read_text())
    # A branch fused with itself is itself, and all weights are equally good.
    assert fused["fused_top1"] == fused["video_top1"] == fused["attributes_top1"] == tested["top1"]
    assert fused["fused_weight"] == fused["fused_best_weight"] == 0.7
    assert fused["fused_gain_over_video"] == 0
    for key in ("dataset", "num_videos", "num_expected", "videos_sha256", "environment"):
        assert fused[key] == tested[key], key
    lines = (branch.path / "plots/demo/fused/weights.csv").read_text().splitlines()
    assert lines[0] == "weight,validation_top1,training_top1"
    assert len(lines) == 102
    assert (branch.path / "plots/demo/fused/pictures/weights.png").is_file()


def test_the_authors_files_are_copied_if_their_keys_are_the_lists_ids(branch):
    files = {}
    for name in ("train", "val"):
        records = read_list(f"lists/demo_shapes/{name}.csv", 48)
        files[name] = {r.video_id: {"classname_topk": [f"{r.label}", "x"]} for r in records}
        (branch.path / f"{name}.json").write_text(json.dumps(files[name]))
    branch.set(
        attributes__train_json="train.json",
        attributes__val_json="val.json",
        attributes__top_k=2,
    )
    branch.run_here("attributes", "demo_shapes")
    for name, entries in files.items():
        path = attributes_path("demo_shapes", name)
        written = json.loads(path.read_text())
        assert list(written) == list(entries)
        assert written == {
            key: {**entry, "video_label_id": int(entry["classname_topk"][0])}
            for key, entry in entries.items()
        }
    first, *_ = files["val"]
    files["val"]["other"] = files["val"].pop(first)
    (branch.path / "val.json").write_text(json.dumps(files["val"]))
    with pytest.raises(ListError, match=rf"val\.json: missing {first}"):
        branch.run_here("attributes", "demo_shapes")


def test_a_fusion_needs_the_other_recipe_first(branch):
    branch.set(fusion__with=["demo/head-none"])
    message = r"head-none/test\.safetensors is missing; `clipzoo zoo demo` runs demo/head"
    with pytest.raises(ConfigError, match=message):
        branch.run_here("check_names")
    *files, about = kept_predictions("demo/head-none")
    about.parent.mkdir(parents=True)
    for path in files:
        path.touch()
    about.write_text("{}")  # kept by an earlier version, or damaged
    with pytest.raises(ConfigError, match=r"settings\.json is not that of demo/head-none and of"):
        branch.run_here("check_names")
    about.write_text('{"source": "video.safetensors"}')  # of a user
    branch.run_here("check_names")
    branch.set(fusion__with=["demo/other"])
    with pytest.raises(ConfigError, match="found demo/other; allowed: a recipe"):
        branch.run_here("check_names")


@pytest.mark.slow
def test_a_model_of_other_settings_is_not_fused(branch):
    branch.run_here("attributes", "demo_shapes")
    branch.run_here("train")
    branch.run_here("test")
    keep_as("demo/other")
    branch.set(train__lr=0.5)
    with pytest.raises(WeightsError, match=r"model\.safetensors: the run demo .*train\.lr: "):
        branch.run_here("fuse", "demo/other")
    branch.run_here("train")
    with pytest.raises(FusionError, match="by another model than"):
        branch.run_here("fuse", "demo/other")

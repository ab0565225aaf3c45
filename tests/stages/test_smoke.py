"""`zoo RECIPE --smoke`: every stage of a recipe on a few videos, and no result written."""

import os
from pathlib import Path

import pytest
import yaml

from clipzoo.commands import planned, smoke
from clipzoo.config import load_params
from clipzoo.data.ledger import read_ledger
from clipzoo.files import read_rows
from clipzoo.frames.manifest import manifest_path, read_manifest

OWN = {
    "data": {"demo": []},
    "demo": {"pretrain_steps": 3},
    "model": {"weights": "random", "num_segments": 2, "input_px": 32},
    "train": {"batch_size": 256, "precision": "fp16"},
    "test": {"clips": 4, "crops": 3},
    "zero_shot": {"interpolation": [0.5, 1.0]},
}
"""A recipe on official lists and videos that are there: the demo's."""


def add_recipe(folder: Path, params: dict) -> None:
    text = yaml.safe_dump({"about": "a test", "params": params})
    (folder / "recipes/own.yaml").write_text(text)


def files_of(folder: Path) -> dict[str, int]:
    """Every file but those in .state/ and .dvc/, with the time of its last change."""
    return {
        os.path.join(root, name): os.lstat(os.path.join(root, name)).st_mtime_ns
        for root, _, names in os.walk(folder)
        for name in names
        if not {".state", ".dvc", "__pycache__"} & set(Path(root).parts)
    }


@pytest.mark.slow
def test_a_smoke_run_reaches_the_last_stage_and_leaves_nothing(copy_of_demo):
    add_recipe(copy_of_demo.path, OWN)
    before = files_of(copy_of_demo.path)
    out = copy_of_demo.dvc("zoo", "own", "--smoke", "-S", "train.lr=0.001", module="clipzoo")
    assert "all 12 stages ran; no result is written" in out
    assert "train: 2 steps" in out
    assert "train.batch_size: 256 -> 2" in out
    assert "test.clips: 4 -> 1" in out
    assert "train.lr" not in out  # set by hand, as in the run
    assert "zero_shot demo_unseen: 12 videos" in out
    assert files_of(copy_of_demo.path) == before
    assert not list((copy_of_demo.path / ".state/smoke").iterdir())


def test_the_videos_are_a_few_and_the_annotations_whole(copy_of_demo, monkeypatch):
    monkeypatch.chdir(copy_of_demo.path)
    add_recipe(copy_of_demo.path, OWN)
    params, notes = smoke.smoke_params(planned.plan("own"))
    assert (params.train.epochs, params.train.batch_size, params.test.crops) == (1, 2, 3)
    assert params.zero_shot.interpolation == [0.5]
    assert params.train.precision == "fp32"  # without a GPU
    assert "train.precision: 'fp16' -> 'fp32'" in notes
    folder = Path(".state/smoke/own")
    num_all = len(read_manifest(manifest_path("demo_shapes")))
    assert smoke.link_dataset(params, "demo_shapes", folder) == 2 * smoke.TRAINED
    with monkeypatch.context() as inside:
        inside.chdir(folder)
        ledger = read_ledger("demo_shapes")
        videos = read_manifest(manifest_path("demo_shapes"))
        assert len(ledger) == num_all - len(videos)
        assert set(ledger.values()) == {smoke.LEFT_OUT}
        assert all((Path("data/raw/demo_shapes") / video.path).is_file() for video in videos)
    names = {path.name for path in Path("data/annotations/demo_shapes").iterdir()}
    linked = {path.name for path in (folder / "data/annotations/demo_shapes").iterdir()}
    assert linked == names | {"missing.csv"}
    assert read_rows(manifest_path("demo_shapes"), ("video_id", "path", "size"))


def test_a_parent_that_is_not_there_is_said(copy_of_demo, monkeypatch):
    monkeypatch.chdir(copy_of_demo.path)
    path = "models/zoo/demo.safetensors"
    add_recipe(copy_of_demo.path, OWN | {"model": {**OWN["model"], "checkpoint": path}})
    params, notes = smoke.smoke_params(planned.plan("own"))
    assert params.model.checkpoint == ""
    assert f"model.checkpoint: '{path}' -> ''" in notes
    Path(path).parent.mkdir()
    Path(path).touch()
    params, _ = smoke.smoke_params(planned.plan("own"))
    assert params.model.checkpoint == str(Path(path).resolve())


def test_rendered_videos_and_folders_of_classes_are_refused(copy_of_demo, monkeypatch):
    monkeypatch.chdir(copy_of_demo.path)
    with pytest.raises(ValueError, match="--smoke: demo renders its videos"):
        smoke.smoke("demo", planned.UNCHANGED)
    add_recipe(copy_of_demo.path, OWN)
    Path("datasets/demo_shapes.yaml").write_text("about: x\nformat: folder\n")
    with pytest.raises(ValueError, match="--smoke: demo_shapes is in folders of classes"):
        smoke.smoke("own", planned.UNCHANGED)
    assert load_params().recipe == "demo"
    assert not Path(".state/smoke/own").exists()

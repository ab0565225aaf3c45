"""Open-VCLIP through the stages: a released file evaluated, and a training."""

import json

import numpy as np
import pytest
import torch
from pyarrow import parquet
from safetensors.torch import load_file

from clipzoo import methods
from clipzoo.config import load_params
from clipzoo.data.spec import raw_root
from clipzoo.data.store import open_store
from clipzoo.methods.parts.similarity import scaled_cosines
from clipzoo.models.clip import load_clip
from clipzoo.serve.folder import model_of_run
from clipzoo.serve.model import VideoModel

SHORT = {"openvclip__window_stride": 2, "test__clips": 3, "zero_shot__clips": 3}
"""Clips of about half a second, as the demo's videos are short."""


@pytest.mark.slow
def test_a_released_file_is_mixed_with_clip_and_evaluated_without_training(
    copy_of_demo, monkeypatch
):
    copy_of_demo.set(
        **SHORT,
        model__method="openvclip",
        model__checkpoint="swa_2_22.pth",
        train__epochs=0,
        train__raw_clip_share=0.25,
        zero_shot__protocols=["full", "listed", "fixed_halves"],
    )
    monkeypatch.chdir(copy_of_demo.path)
    raw = load_clip()[0].state_dict()
    torch.manual_seed(1)
    trained = {
        name: value + 0.05 * torch.randn_like(value) if name.startswith("visual.") else value
        for name, value in raw.items()
    } | {"logit_scale": torch.tensor(4.5)}
    state = {f"model.{name}": value for name, value in trained.items()}
    torch.save({"model_state": state}, "swa_2_22.pth")
    for dataset in ("demo_shapes", "demo_unseen"):
        copy_of_demo.run_here("embed_labels", dataset)
    copy_of_demo.run_here("train")
    saved = load_file("models/model.safetensors")
    names = {name for name in raw if name.startswith("visual.")} | {"logit_scale"}
    assert saved.keys() == names
    for name, value in saved.items():
        torch.testing.assert_close(value, 0.25 * raw[name] + 0.75 * trained[name])
    copy_of_demo.run_here("test")
    copy_of_demo.run_here("zero_shot", "demo_unseen")
    found = {p.stem: json.loads(p.read_text()) for p in copy_of_demo.path.glob("metrics/demo/*")}
    assert (found["train"]["steps"], found["test"]["num_videos"]) == (0, 48)
    assert found["test"]["protocol"] == "clips 3, crops 1, windows"
    values = found["zero_shot_demo_unseen"]
    assert values["listed_top1"] == values["full_top1"]
    assert values["listed_num_videos"] == values["num_videos"] == 24
    assert 0 <= values["fixed_half_top1_mean"] <= 100
    predictions = load_file("predictions/test.safetensors")
    features = predictions["features"]  # [N, V, D]
    assert features.shape == (48, 3, 128)
    longest = saved["logit_scale"].exp()
    assert 0.3 * longest < features.norm(dim=-1).max() <= longest * (1 + 1e-5)
    classes = load_file("data/text/demo_shapes.safetensors")["class_embeddings"]
    mean = features.mean(dim=1)  # [N, V, D] -> [N, D]
    logits = scaled_cosines(mean, classes, 1.0) * mean.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(predictions["probabilities"], logits.softmax(dim=-1))


@pytest.mark.slow
def test_it_trains_with_a_second_gradient_and_is_averaged_and_mixed(copy_of_demo, monkeypatch):
    copy_of_demo.set(
        **SHORT,
        model__method="openvclip",
        augment__crop="random_short_side",
        augment__short_side_px=32,
        train__epochs=2,
        train__tower_lr_ratio=1.0,
        train__lr=1e-4,
        train__interpolated_loss_weight=0.5,
        train__average_epochs=2,
        train__raw_clip_share=0.5,
        train__decay_vectors=False,
        train__grad_clip=1.0,
    )
    monkeypatch.chdir(copy_of_demo.path)
    for dataset in ("demo_shapes", "demo_unseen"):
        copy_of_demo.run_here("embed_labels", dataset)
    copy_of_demo.run_here("train")
    copy_of_demo.run_here("test")
    metrics = json.loads((copy_of_demo.path / "metrics/demo/train.json").read_text())
    assert metrics["steps"] == 8
    saved, raw = load_file("models/model.safetensors"), load_clip()[0].state_dict()
    moved = {n: float((saved[n] - raw[n]).abs().max()) for n in saved}
    assert min(moved.values()) > 0
    assert max(moved.values()) < 0.01
    predicted_as_tested()


def predicted_as_tested() -> None:
    """A prediction reads the frames of the video's windows, and gives what the test did."""
    model = VideoModel(model_of_run(load_params()), "cpu")
    windows = methods.load_model(load_params()).windows
    assert windows is not None
    rows = parquet.read_table("predictions/test.parquet", columns=["video_id"])
    ids = rows.column("video_id").to_pylist()
    tested = load_file("predictions/test.safetensors")["probabilities"]
    videos = open_store(load_params(), "demo_shapes").videos
    for position in (0, 20):
        info = videos[ids[position]]
        (path,) = raw_root(load_params(), "demo_shapes").glob(f"{ids[position]}.*")
        found = model.predict(path, top=1)
        counts = (info.num_frames, info.fps, load_params().model.num_segments, 3)
        assert found.frames == np.unique(windows.test(*counts)).tolist()
        assert found.probabilities[0] == pytest.approx(float(tested[position].max()), abs=1e-4)

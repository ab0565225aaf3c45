"""test and zero_shot through their scripts, with models whose embeddings are known."""

import csv
import json
from collections.abc import Callable

import pytest
import torch
from pyarrow import parquet
from torch import Tensor
from torch.nn import functional

from clipzoo.clips.transforms import ViewTransform
from clipzoo.config import load_params
from clipzoo.data.store import open_store
from clipzoo.models.clip import load_clip
from clipzoo.tensors import WeightsError, read_safetensors, write_safetensors
from tiny import normalize

SIDE, NUM_SEGMENTS = 32, 4  # as in conftest.TINY
UNSEEN = "zero_shot_demo_unseen"


@pytest.fixture
def workspace(copy_of_demo, monkeypatch):
    """models/model.safetensors is the raw CLIP, frames averaged: its embeddings are known."""
    monkeypatch.chdir(copy_of_demo.path)
    copy_of_demo.set(text4vis__head="None", train__epochs=0)
    copy_of_demo.run_here("train")
    return copy_of_demo


def predictions(workspace, name: str) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors of a prediction file, and the ids of its rows."""
    path = workspace.path / f"predictions/{name}.safetensors"
    ids = parquet.read_table(path.with_suffix(".parquet")).column("video_id").to_pylist()
    return read_safetensors(path)[0], ids


def metrics(workspace, name: str) -> dict:
    return json.loads((workspace.path / f"metrics/demo/{name}.json").read_text())


def videos(workspace, name: str) -> list[list[str]]:
    """Rows of the set's videos.csv, with its header."""
    path = workspace.path / f"plots/demo/{name}/videos.csv"
    return list(csv.reader(path.read_text(encoding="utf-8").splitlines()))


def columns(*values: list[str] | Tensor) -> list[list[str]]:
    """Rows of text of these columns."""
    lists = [v.tolist() if isinstance(v, Tensor) else v for v in values]
    return [[str(value) for value in row] for row in zip(*lists, strict=True)]


def first_frames(num_frames: int) -> list[list[int]]:
    """One clip: the first frame of each segment."""
    return [[i * num_frames // NUM_SEGMENTS for i in range(NUM_SEGMENTS)]]


def dense_windows(num_frames: int) -> list[list[int]]:
    """Two clips of every 32nd frame, in videos shorter than 128: both start at 0 and wrap."""
    assert num_frames < 128
    return [[32 * i % num_frames for i in range(NUM_SEGMENTS)]] * 2


def raw_embeddings(dataset: str, clips_of: Callable[[int], list[list[int]]]) -> dict[str, Tensor]:
    """Embeddings [V, D] of every video by models/clip.safetensors, on frames chosen by hand."""
    clip, _ = load_clip()
    store = open_store(load_params(), dataset)
    transform = ViewTransform(SIDE, 36, 1)
    found = {}
    for video_id, video in store.videos.items():
        views = [
            transform(store.read(video_id, torch.tensor(indices).numpy())).flatten(0, 1)
            for indices in clips_of(video.num_frames)
        ]
        with torch.no_grad():
            pixels = normalize(torch.cat(views))  # [V * T, 3, S, S]
            frames = clip.encode_image(pixels)  # pyright: ignore[reportCallIssue]
        found[video_id] = frames.unflatten(0, (len(views), -1)).mean(dim=1)
    return found


def probabilities(features: Tensor, class_embeddings: Tensor) -> Tensor:
    """softmax(100 cos) [N, K] of features [N, V, D] averaged over views and embeddings [K, D]."""
    videos = functional.normalize(features.mean(dim=1), dim=-1)
    return (100 * videos @ class_embeddings.T).softmax(dim=1)


def top1(scores: Tensor, labels: Tensor) -> float:
    return round(100 * int((scores.argmax(dim=1) == labels).sum()) / len(labels), 6)


def change_tensor(path: str, name: str, change: Callable[[Tensor], Tensor]) -> None:
    tensors, metadata = read_safetensors(path)
    write_safetensors({**tensors, name: change(tensors[name]).contiguous()}, path, metadata)


@pytest.mark.parametrize("stage", ["test", "zero_shot"])
def test_a_model_of_other_settings_is_not_measured(workspace, stage):
    """As after `use`, or an edit, without a training."""
    workspace.set(recipe="other", test__clips=2, zero_shot__clips=2)  # which no training reads
    workspace.set(text4vis__head_layers=2)
    with pytest.raises(WeightsError, match=r"run demo trained .*text4vis\.head_layers: 1 -> 2"):
        workspace.run_here(stage, *["demo_unseen"] * (stage == "zero_shot"))
    assert not (workspace.path / "metrics/other").exists()


def test_zero_shot_keeps_the_raw_and_the_tuned_model_apart(workspace):
    """Classes lie where the raw CLIP sees their only video; the tuned model sees its opposite."""
    raw = raw_embeddings("demo_unseen", first_frames)
    with open("lists/demo_unseen/val.csv", encoding="utf-8", newline="") as file:
        label_of = {row["video_id"]: int(row["label"]) for row in csv.DictReader(file)}
    assert sorted(label_of.values()) == list(range(24))
    at = sorted(label_of, key=label_of.__getitem__)
    classes = functional.normalize(torch.cat([raw[video_id] for video_id in at]), dim=-1)
    change_tensor("data/text/demo_unseen.safetensors", "class_embeddings", lambda _: classes[None])
    change_tensor("models/model.safetensors", "visual.proj", torch.neg)
    workspace.run_here("zero_shot", "demo_unseen")

    tensors, ids = predictions(workspace, UNSEEN)
    expected = torch.stack([raw[video_id] for video_id in ids])
    torch.testing.assert_close(tensors["raw_features"], expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(tensors["features"], -expected, atol=1e-5, rtol=1e-4)
    labels = torch.tensor([label_of[video_id] for video_id in ids])
    assert torch.equal(tensors["labels"], labels)
    for prefix, sign in (("raw_", 1), ("", -1)):
        scores = probabilities(sign * expected, classes)
        torch.testing.assert_close(tensors[f"{prefix}probabilities"], scores, atol=1e-4, rtol=1e-3)
    predicted = [tensors[f"{prefix}probabilities"].argmax(dim=1) for prefix in ("", "raw_")]
    header, *rows = videos(workspace, UNSEEN)
    assert header == ["video_id", "label", "predicted", "raw_predicted"]
    assert rows == columns(ids, labels, *predicted)
    values = metrics(workspace, UNSEEN)
    assert values["raw_full_top1"] == top1(tensors["raw_probabilities"], labels) == 100
    assert values["full_top1"] == top1(tensors["probabilities"], labels) == 0
    assert values["gain"] == values["gain_ci95_low"] == -100
    assert (values["raw_half_top1_mean"], values["half_top1_mean"]) == (100, 0)
    assert values["num_videos"] == len(ids) == 24


@pytest.mark.parametrize("dense", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_test_takes_dense_windows_where_it_is_told_to(workspace, dense):
    workspace.set(test__dense=dense, test__clips=2)
    workspace.run_here("test")
    tensors, ids = predictions(workspace, "test")
    raw = raw_embeddings("demo_shapes", dense_windows)
    expected = torch.stack([raw[video_id] for video_id in ids])
    assert tensors["features"].shape == expected.shape
    off = (tensors["features"] - expected).abs().amax(dim=(1, 2))
    assert (off < 1e-4).all() if dense else (off > 1e-3).any()
    classes = read_safetensors("models/classifier.safetensors")[0]["given_embeddings"][0]
    scores = probabilities(tensors["features"], classes)
    torch.testing.assert_close(tensors["probabilities"], scores, atol=1e-5, rtol=1e-4)
    header, *rows = videos(workspace, "test")
    single = probabilities(tensors["features"][:, :1], classes)  # clip 0
    several = [] if dense else [single.argmax(dim=1)]  # a window is no view of the whole video
    assert header == ["video_id", "label", "predicted", *["single_view_predicted"] * len(several)]
    assert rows == columns(ids, tensors["labels"], scores.argmax(dim=1), *several)
    values = metrics(workspace, "test")
    assert values["top1"] == top1(scores, tensors["labels"])
    assert values["protocol"].endswith("dense" if dense else "uniform")
    assert ("single_view_top1" in values) is not dense, "a window is no view of the whole video"
    assert values["num_videos"] == len(ids) == 48


@pytest.mark.slow
def test_two_processes_measure_what_one_does(demo, copy_of_demo, monkeypatch):
    """5 clips at once, so that the batches of neither stage are shared evenly."""
    workspace = copy_of_demo
    monkeypatch.chdir(workspace.path)
    for name in ("model", "classifier"):
        source = demo.path / f"models/{name}.safetensors"
        (workspace.path / f"models/{name}.safetensors").symlink_to(source)
    workspace.set(runtime__micro_batch=5, zero_shot__interpolation=[0.0, 0.5])
    stages = {"test": ("test",), UNSEEN: ("zero_shot", "demo_unseen")}
    for command in (("interpolation",), *stages.values()):
        workspace.run_here(*command)
    one = {name: (*predictions(workspace, name), metrics(workspace, name)) for name in stages}
    curve = (workspace.path / "predictions/interpolation.csv").read_text()
    for folder in ("predictions", "metrics"):
        (workspace.path / folder).rename(workspace.path / f"{folder}-of-one")

    workspace.set(runtime__processes=2)
    assert "2 in all" in workspace.run("interpolation")
    for name, command in stages.items():
        assert "2 x cpu" in workspace.run(*command)
        tensors, ids, values = one[name]
        both, both_ids = predictions(workspace, name)
        assert both_ids == ids
        assert metrics(workspace, name) == values
        assert both.keys() == tensors.keys()
        for key, value in tensors.items():
            torch.testing.assert_close(both[key], value, atol=1e-5, rtol=0, msg=key)
    assert (workspace.path / "predictions/interpolation.csv").read_text() == curve

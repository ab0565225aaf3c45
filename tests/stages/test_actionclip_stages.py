"""ActionCLIP through the scripts of the stages: templates, center frames, both towers trained."""

import json
from pathlib import Path

import pytest
import torch
from test_evaluation_stages import NUM_SEGMENTS, UNSEEN, metrics, predictions, raw_embeddings, top1
from torch import Tensor
from torch.nn import functional

from clipzoo.config import ConfigError
from clipzoo.tensors import read_safetensors

TEMPLATES = ["{}", "{}, an action"]


@pytest.fixture
def workspace(copy_of_demo, monkeypatch):
    monkeypatch.chdir(copy_of_demo.path)
    copy_of_demo.set(
        model__method="actionclip",
        actionclip__head="meanP",
        actionclip__authors_test_batch=10,
        text__templates=TEMPLATES,
        test__clips=1,
        train__epochs=0,
    )
    for dataset in ("demo_shapes", "demo_unseen"):
        copy_of_demo.run_here("embed_labels", dataset)
    return copy_of_demo


def center_frames(num_frames: int) -> list[list[int]]:
    """One clip, of videos with more frames than segments."""
    part = num_frames / NUM_SEGMENTS
    return [[int(i * num_frames / NUM_SEGMENTS + (part - 1) / 2) for i in range(NUM_SEGMENTS)]]


def probabilities(videos: Tensor, classes: Tensor) -> Tensor:
    """Mean over templates of softmax(100 cos) [N, K], of videos [N, D] and classes [P, K, D]."""
    cosines = torch.einsum("nd,pkd->npk", functional.normalize(videos, dim=-1), classes)
    return (100 * cosines).softmax(dim=-1).mean(dim=1)


def test_without_training_it_is_the_raw_clip_on_center_frames_with_all_templates(workspace):
    workspace.run_here("train")
    workspace.run_here("test")
    workspace.run_here("zero_shot", "demo_unseen")
    for name, dataset in (("test", "demo_shapes"), (UNSEEN, "demo_unseen")):
        raw = raw_embeddings(dataset, center_frames)
        tensors, ids = predictions(workspace, name)
        expected = torch.cat([raw[video_id] for video_id in ids])  # [N, D]
        torch.testing.assert_close(tensors["features"][:, 0], expected, atol=1e-5, rtol=1e-4)
        classes = read_safetensors(f"data/text/{dataset}.safetensors")[0]["class_embeddings"]
        assert classes.shape[0] == len(TEMPLATES)
        scores = probabilities(expected, classes)
        torch.testing.assert_close(tensors["probabilities"], scores, atol=1e-4, rtol=1e-3)
    tensors, _ = predictions(workspace, "test")
    values = metrics(workspace, "test")
    assert (values["num_videos"], values["authors_num_videos"]) == (48, 40)
    whole = (tensors["probabilities"], tensors["labels"])
    assert values["top1"] == top1(*whole)
    assert values["authors_top1"] == top1(*(tensor[:40] for tensor in whole))


def test_training_changes_both_towers(workspace):
    workspace.set(
        actionclip__head="LSTM",
        augment={
            "randaugment_n": 2,
            "randaugment_m": 9,
            "short_side_px": 0,
            "crop": "multi_scale",
            "min_area": 1.0,
            "max_area": 1.0,
            "min_aspect": 1.0,
            "max_aspect": 1.0,
            "flip": 0.5,
            "color_jitter": 0.8,
            "grayscale": 0.2,
            "mixup_alpha": 0.0,
            "cutmix_alpha": 0.0,
            "mix_group": 4,
            "label_smoothing": 0.0,
        },
        train__epochs=1,
        train__warmup_epochs=0,
    )
    workspace.run_here("train")
    values = json.loads(Path("metrics/demo/train.json").read_text())
    assert values["steps"] == 4
    written = read_safetensors("data/text/demo_shapes.safetensors")[0]["class_embeddings"]
    given = read_safetensors("models/classifier.safetensors")[0]["given_embeddings"]
    assert torch.equal(given, written)
    clip = read_safetensors("models/clip.safetensors")[0]
    model = read_safetensors("models/model.safetensors")[0]
    assert not torch.equal(clip["visual.proj"], model["visual.proj"])
    assert not torch.equal(clip["text_projection"], model["text.tower.text_projection"])


@pytest.mark.parametrize("key", ["test", "zero_shot"])
def test_more_clips_than_centers_are_refused_before_training(workspace, key):
    workspace.set(**{f"{key}__clips": 2})
    with pytest.raises(ConfigError, match=rf"{key}\.clips: found 2; allowed: 1"):
        workspace.run_here("train")

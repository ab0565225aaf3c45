"""Recall of class-to-video retrieval, against rankings that were counted by hand or by a loop."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from clipzoo.evaluate import retrieval
from clipzoo.evaluate.intervals import wilson_interval
from clipzoo.evaluate.scoring import Scored
from parity.inputs import class_text


def no_score(features: Tensor, text: object) -> Tensor:
    raise AssertionError("retrieval does not need probabilities")


def scored(features: Tensor, embeddings: Tensor, labels: list[int]) -> Scored:
    return Scored(
        score=no_score,
        features=features,
        view_names=["clip0-center"],
        labels=torch.tensor(labels),
        text=class_text(embeddings),
    )


def on_a_circle(degrees: list[float]) -> Tensor:
    """Embeddings in the plane, so that cosines are seen at once."""
    angles = [math.radians(value) for value in degrees]
    return torch.tensor([[math.cos(a), math.sin(a)] for a in angles])


def test_recall_counted_by_hand():
    # The query of class 0 is at 0 degrees; its nearest video of its own is the second one. That of
    # class 1 is at 90 degrees, and its own video is the nearest. Class 2 has no video, no query.
    videos = on_a_circle([5, 10, 80, 40])
    text = on_a_circle([0, 90, 5])[None]  # [1, K, D]
    values = retrieval.evaluate_retrieval(scored(3 * videos[:, None], text, [1, 0, 1, 0]))
    assert values["class_to_video_recall1"] == 50
    assert values["class_to_video_recall5"] == values["class_to_video_recall10"] == 100
    low, high = wilson_interval(1, 2)
    assert values["class_to_video_recall1_ci95_low"] == low
    assert values["class_to_video_recall1_ci95_high"] == high
    assert len(values) == 9


def test_recall_equals_a_loop_over_sorted_videos():
    torch.manual_seed(0)
    labels = torch.randint(12, (90,)).tolist()
    features, text = torch.randn(90, 2, 3, 6), functional.normalize(torch.randn(2, 12, 6), dim=-1)
    values = retrieval.evaluate_retrieval(scored(features.half(), text, labels))
    videos = functional.normalize(features.half().float().mean(dim=(1, 2)), dim=-1)
    for k in retrieval.RANKS:
        hits = []
        for label in sorted(set(labels)):
            query = functional.normalize(text[:, label].mean(dim=0), dim=0)
            nearest = (videos @ query).argsort(descending=True)[:k]
            hits.append(any(labels[i] == label for i in nearest.tolist()))
        assert values[f"class_to_video_recall{k}"] == pytest.approx(100 * sum(hits) / len(hits))
    assert 0 < values["class_to_video_recall1"] < values["class_to_video_recall10"] < 100


def test_equal_cosines_are_no_hit():
    """A model that gives every video the same embedding finds the first video for each query."""
    features = torch.ones(40, 1, 2)
    values = retrieval.evaluate_retrieval(
        scored(features, on_a_circle([0, 30, 60, 90])[None], sorted([0, 1, 2, 3] * 10))
    )
    assert values["class_to_video_recall1"] == values["class_to_video_recall10"] == 25


def test_videos_in_parts_are_embedded_as_at_once(monkeypatch: pytest.MonkeyPatch):
    features = torch.randn(10, 2, 3, 4)
    whole = retrieval.video_embeddings(features)
    monkeypatch.setattr(retrieval, "SCORED_AT_ONCE", 3)
    assert torch.equal(retrieval.video_embeddings(features), whole)
    torch.testing.assert_close(whole.norm(dim=-1), torch.ones(10))


def test_the_raw_model_is_beside_the_trained_one():
    videos, text = on_a_circle([5, 85]), on_a_circle([0, 90])[None]
    right, wrong = (
        scored(videos[:, None], text, [0, 1]),
        scored(videos.flip(0)[:, None], text, [0, 1]),
    )
    values = retrieval.compare_retrieval(right, wrong)
    assert values["class_to_video_num_queries"] == 2
    assert values["class_to_video_recall1"] == 100
    assert values["raw_class_to_video_recall1"] == 0
    assert values["raw_class_to_video_recall5"] == 100

"""From features to probabilities, and the class text of a model."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from clipzoo import methods
from clipzoo.evaluate import scoring
from clipzoo.methods.parts.method import Method
from clipzoo.models.text import ClassText
from parity.inputs import class_text
from tiny import Towers

CPU, DIM = torch.device("cpu"), 5


class MeanOfViews(Method):
    """Doubles the class embeddings; its weights have no effect."""

    def __init__(self) -> None:
        super().__init__(Towers(nn.Identity()))
        self.layer = nn.Linear(1, 1)

    def class_text(self, text: ClassText) -> ClassText:
        assert torch.is_grad_enabled() is False
        return replace(text, class_embeddings=2 * text.class_embeddings)

    def score(self, features: Tensor, text: ClassText) -> Tensor:
        assert features.dtype == torch.float32
        return (features.mean(dim=1) @ text.class_embeddings[0].T).softmax(dim=1)


def test_scoring_in_parts_equals_scoring_at_once(monkeypatch: pytest.MonkeyPatch):
    features, text = torch.randn(10, 2, DIM).half(), class_text(torch.randn(1, 4, DIM))
    monkeypatch.setattr(scoring, "SCORED_AT_ONCE", 3)
    parts = scoring.score_videos(MeanOfViews(), features, text)
    torch.testing.assert_close(parts, MeanOfViews().score(features.float(), text))


def test_the_class_text_is_that_of_the_model_from_what_training_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written, given = class_text(torch.ones(1, 4, DIM)), 3 * torch.ones(1, 4, DIM)
    methods.save_classifier(given)
    text = methods.trained_text(written, num_trained=4)
    assert torch.equal(text.class_embeddings, given)
    found = scoring.class_text(MeanOfViews(), text, CPU)
    assert torch.equal(found.class_embeddings, 2 * given)
    # A training on some of the classes has no row for the others.
    assert methods.trained_text(written, num_trained=2) is written


def test_without_saliency_there_is_none():
    text = class_text(torch.randn(1, 4, DIM))
    scored = scoring.Scored(
        score=partial(scoring.score_videos, MeanOfViews()),
        features=torch.randn(3, 1, 2, DIM),
        view_names=["clip0-center"],
        labels=torch.zeros(3, dtype=torch.int64),
        text=text,
    )
    assert scoring.saliency(MeanOfViews(), scored) is None

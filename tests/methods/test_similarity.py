"""`Method.similarity`: cosines of every view, by hand."""

from dataclasses import replace
from typing import Any

import pytest
import torch

import tiny
from clipzoo.methods.parts.method import Method
from parity.inputs import class_text, noise

X, Y, DIAGONAL = (1.0, 0.0), (0.0, 1.0), (0.6, 0.8)


def method(name: str, **changes: Any) -> Method:
    return tiny.method(name, 2, "stem", **changes)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("raw", {"fusion": "mean"}),
        ("text4vis", {}),
        ("bike", {"interaction": "DP"}),
        ("bike_attributes", {}),
        ("actionclip", {}),
    ],
)
def test_each_view_is_compared_with_each_class(name: str, changes: dict[str, Any]):
    views = torch.tensor([[[3.0, 4.0], [-5.0, 0.0]]])  # [N = 1, V = 2, D = 2]
    text = class_text(torch.tensor([[X, Y, DIAGONAL]]))  # [P = 1, K = 3, D]
    found = method(name, **changes).similarity(views, text)
    torch.testing.assert_close(found, torch.tensor([[[0.6, 0.8, 1.0], [-1.0, 0.0, -0.6]]]))


def test_templates_are_averaged_before_the_cosine_but_after_it_in_actionclip():
    views = torch.tensor([[DIAGONAL]])
    text = class_text(torch.tensor([[X], [Y]]))  # [P = 2, K = 1, D]
    for name in ("raw", "text4vis", "bike_attributes"):
        found = method(name).similarity(views, text)
        assert float(found) == pytest.approx((0.6 + 0.8) / 2**0.5), name
    assert float(method("actionclip").similarity(views, text)) == pytest.approx((0.6 + 0.8) / 2)


def test_frames_are_averaged_after_the_cosine_if_their_probabilities_are():
    views = torch.tensor([[[(3.0, 4.0), (-2.0, 0.0)], [X, X]]])  # [N = 1, V = 2, T = 2, D]
    found = method("raw", fusion="softmax").similarity(views, class_text(torch.tensor([[X, Y]])))
    torch.testing.assert_close(found, torch.tensor([[[(0.6 - 1) / 2, 0.8 / 2], [1.0, 0.0]]]))


def test_spotted_frames_are_weighted_by_the_words_of_each_class():
    views = torch.tensor([[[X, Y]]])  # [N = 1, V = 1, T = 2, D]
    text = class_text(torch.tensor([[X, DIAGONAL]]))
    # Words of class 0 fit frame 0 with 1 and frame 1 with 0; the second class has none of either.
    text = replace(text, token_embeddings=torch.tensor([[X, X], [(1.0, 1.0), (-1.0, -1.0)]]))
    found = method("bike", temperature=0.5).similarity(views, text)
    weight = 1 / (1 + torch.tensor(-1 / 0.5).exp())  # of frame 0 for class 0
    torch.testing.assert_close(found, torch.tensor([[[weight, (0.6 + 0.8) / 2]]]))


@pytest.mark.parametrize("name", ["bike", "bike_attributes"])
def test_scores_without_a_scale_are_softmaxes_of_it(name: str):
    text = replace(class_text(noise(1, 1, 5, 8)), token_embeddings=noise(2, 5, 4, 8))
    features = noise(3, 6, 3, *((2,) if name == "bike" else ()), 8)  # [N, V, T, D] or [N, V, D]
    model = method(name)
    cosines = model.similarity(features, text)
    assert cosines.shape == (6, 3, 5)
    assert torch.equal(model.score(features, text), cosines.softmax(dim=-1).mean(dim=1))

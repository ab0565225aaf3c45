"""Attention in training: the numbers of nn.MultiheadAttention, by fewer operations."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import tiny
from clipzoo.train.attention import unbind_projections


def step(method: Any, clips: Tensor, precision: torch.dtype | None) -> list[Tensor]:
    """The features and all gradients."""
    method.zero_grad(set_to_none=True)
    with torch.autocast("cpu", precision, enabled=precision is not None):
        features = method.encode(clips)
    features.float().square().sum().backward()
    return [features, *(p.grad for p in method.parameters() if p.grad is not None)]


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_features_and_gradients_are_equal_bit_for_bit(precision):
    method: Any = tiny.method("text4vis", num_segments=3).train()
    side = tiny.INPUT_PX
    clips = torch.randint(0, 256, (2, 3, 3, side, side), dtype=torch.uint8)
    expected = step(method, clips, precision)
    unbind_projections(method)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        found = step(method, clips, precision)
    assert len(found) == len(expected) > 20
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    counts = Counter({event.key: event.count for event in profiler.key_averages()})
    assert counts["aten::stack"] >= 2, "of the tower's layer and of the head's"
    assert counts["aten::select_backward"] <= 1, "of the class token"


def test_all_other_calls_are_those_of_the_parent_class():
    """Masks, cross-attention, evaluation; and modules with options that `_attend` does not have."""
    torch.manual_seed(0)
    plain: Any = nn.MultiheadAttention(8, 2, batch_first=True)
    x, mask = torch.randn(3, 4, 8), torch.ones(4, 4, dtype=torch.bool).triu(1)
    for training, key, options in (
        (True, x, {"need_weights": False, "attn_mask": mask}),
        (True, x.flip(1), {"need_weights": False}),
        (True, x, {}),
        (False, x, {"need_weights": False}),
    ):
        plain.train(training)
        plain.__class__ = nn.MultiheadAttention
        expected = plain(x, key, key, **options)
        unbind_projections(plain)
        assert type(plain).__name__ == "Attention"
        for found, other in zip(plain(x, key, key, **options), expected, strict=True):
            assert (found is other is None) or torch.equal(found, other)
    changes: list[dict[str, Any]]
    changes = [{"dropout": 0.1}, {"kdim": 4}, {"bias": False}, {"add_bias_kv": True}]
    for changed in changes:
        other = nn.MultiheadAttention(8, 2, batch_first=True, **changed)
        unbind_projections(other)
        assert type(other) is nn.MultiheadAttention

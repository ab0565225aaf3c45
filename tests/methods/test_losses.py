"""The losses against the reference's numbers and their definitions."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from clipzoo.methods.parts.losses import nce_loss, soft_cross_entropy

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/nce.json").read_text())


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"])
def test_nce_meets_the_reference(case):
    loss = nce_loss(torch.tensor(case["batch_logits"]), torch.tensor(case["labels"]))
    assert float(loss) == pytest.approx(case["nce"], rel=1e-5)


def test_texts_of_the_same_class_are_positives():
    labels = torch.tensor([0, 0, 1])
    right = torch.tensor([[9.0, 9.0, 0.0], [9.0, 9.0, 0.0], [0.0, 0.0, 9.0]])
    only_same_video = 9 * torch.eye(3)
    assert nce_loss(right, labels) < 0.05 * nce_loss(only_same_video, labels)


def test_nce_is_symmetric_in_its_directions():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(5, 5, generator=generator), torch.tensor([0, 1, 1, 2, 0])
    torch.testing.assert_close(nce_loss(logits, labels), nce_loss(logits.T, labels))


def test_soft_cross_entropy_of_labels_is_the_cross_entropy():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(6, 4, generator=generator) * 5, torch.tensor([0, 3, 1, 1, 2, 0])
    hard = functional.cross_entropy(logits, labels)
    torch.testing.assert_close(soft_cross_entropy(logits, functional.one_hot(labels, 4)), hard)
    targets = (functional.one_hot(labels, 4) + functional.one_hot(labels.flip(0), 4)) / 2
    both = (hard + functional.cross_entropy(logits, labels.flip(0))) / 2
    torch.testing.assert_close(soft_cross_entropy(logits, targets), both)


def test_soft_cross_entropy_is_float32_under_autocast():
    logits = torch.tensor([[30.0, 0.0]], dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        loss = soft_cross_entropy(logits, torch.tensor([[0.9, 0.1]]))
    assert float(loss) == pytest.approx(3.0)
    assert loss.dtype == torch.float32

"""The losses against the reference's numbers and their definitions."""

import json
from pathlib import Path

import pytest
import torch

from clipzoo.methods.parts.losses import nce_loss

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

"""The stand-in CLIP: it learns, the same way every time, from captions that are the labels."""

import math
from pathlib import Path

import pytest
import torch
from open_clip import get_tokenizer

from clipzoo.config import load_params, replace
from clipzoo.demo import pretraining, world
from clipzoo.demo.pretraining import Budget, contrastive_loss, draw_stills, pretrain_budget

PX = 32
TINY = Budget(steps=80, batch=32, lr=1e-3)
TINIER = Budget(steps=4, batch=8, lr=1e-3)


@pytest.fixture(scope="module")
def trained() -> tuple[dict[str, torch.Tensor], dict[str, float | int]]:
    return stand_in(seed=1, budget=TINY)


def stand_in(
    seed: int, budget: Budget = TINIER
) -> tuple[dict[str, torch.Tensor], dict[str, float | int]]:
    model, metrics = pretraining.stand_in_clip("ViT-demo-16", PX, ["{}"], budget, seed)
    assert not model.training
    return model.state_dict(), metrics


def test_pretraining_lowers_the_loss(trained: tuple):
    _, metrics = trained
    untrained = math.log(TINY.batch)
    assert metrics["steps"] == TINY.steps
    assert metrics["loss"] < 0.7 * untrained


def test_pretraining_learns_more_than_chance(trained: tuple):
    _, metrics = trained
    chance = 100 / len(world.ALL_CLASSES)
    assert metrics["num_stills"] == 4 * len(world.ALL_CLASSES)
    assert metrics["image_to_text_top1"] > 5 * chance
    assert metrics["text_to_image_top1"] <= 100


def test_pretraining_is_deterministic_under_its_seed():
    weights, metrics = stand_in(seed=1)
    again, same_metrics = stand_in(seed=1)
    assert metrics == same_metrics
    assert all(torch.equal(again[name], value) for name, value in weights.items())
    other, _ = stand_in(seed=2)
    assert not torch.equal(other["text_projection"], weights["text_projection"])


def test_stills_are_fixed_by_their_seed_and_go_through_the_classes():
    stills, classes = draw_stills(150, PX, (1, 2))
    assert stills.shape == (150, 3, PX, PX)
    assert stills.dtype == torch.uint8
    assert classes.tolist() == [i % len(world.ALL_CLASSES) for i in range(150)]
    again, _ = draw_stills(150, PX, (1, 2))
    assert torch.equal(stills, again)
    assert not torch.equal(draw_stills(150, PX, (1, 3))[0], stills)


def test_captions_are_the_labels_of_both_datasets():
    model = torch.nn.Module()
    model.context_length = 12  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    tokens = pretraining.caption_tokens(model, "ViT-demo-16", ["{}", "see {}"])
    assert tokens.shape == (2, len(world.ALL_CLASSES), 12)
    rows = {tuple(row) for row in tokens[0].tolist()}
    assert len(rows) == len(world.ALL_CLASSES)
    for classes in world.DATASETS.values():
        names = get_tokenizer("ViT-demo-16", context_length=12)([a.name for a in classes])
        assert {tuple(row) for row in names.tolist()} < rows


def test_identical_captions_are_positives_of_each_other():
    """Worked by hand: scale 1, two captions at right angles, three images that match perfectly."""
    images, texts = torch.eye(2)[[0, 0, 1]], torch.eye(2)
    positions = torch.tensor([0, 0, 1])
    e = math.e
    to_text = -math.log(e / (e + 1))
    first, second = -math.log(e / (2 * e + 1)), -math.log(e / (2 + e))
    expected = (to_text + (first + second) / 2) / 2
    loss = contrastive_loss(images, texts, positions, torch.tensor(1.0))
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_lengths_of_embeddings_do_not_matter():
    images, texts = torch.randn(4, 8), torch.randn(2, 8)
    args = torch.tensor([0, 1, 1, 0]), torch.tensor(3.0)
    scaled = contrastive_loss(7 * images, texts / 5, *args)
    torch.testing.assert_close(scaled, contrastive_loss(images, texts, *args))


def test_other_architectures_have_their_own_budget():
    demo = load_params(Path(__file__).parents[2] / "params.yaml").demo
    default = pretrain_budget("ViT-demo-16", demo)
    assert (default.steps, default.batch) == (demo.pretrain_steps, demo.pretrain_batch)
    other = pretrain_budget("ViT-L/14", replace(demo, {"other_pretrain_steps": 7}))
    assert (other.steps, other.batch) == (7, demo.other_pretrain_batch)
    assert other.lr < default.lr


def test_a_loss_that_is_not_finite_names_the_step():
    wild = Budget(steps=20, batch=8, lr=1e30)
    with pytest.raises(ValueError, match=r"the loss is .* at step \d+; lower demo.pretrain_lr"):
        pretraining.stand_in_clip("ViT-demo-16", PX, ["{}"], wild, 1)

"""The stand-in CLIP: it learns, the same way every time, from captions that are the labels."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip import get_tokenizer
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from clipzoo.config import load_params, replace
from clipzoo.demo import pretraining, world
from clipzoo.demo.pretraining import Budget, contrastive_loss, draw_stills, pretrain_budget
from clipzoo.models.clip import build_clip
from tiny import Towers, normalize

ARCH, PX = "ViT-demo-16", 32
TINY = Budget(steps=80, batch=32, lr=1e-3)
TINIER = Budget(steps=10, batch=8, lr=1e-3)
NUM_CLASSES = len(world.ALL_CLASSES)
CHANCE = 100 / NUM_CLASSES


def fresh_clip(seed: int) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(seed)
    model = build_clip(ARCH, PX)
    return model, pretraining.caption_tokens(model, ARCH, ["{}"])


def stand_in(seed: int) -> tuple[dict[str, Tensor], dict[str, float | int]]:
    model, metrics = pretraining.stand_in_clip(ARCH, PX, ["{}"], TINIER, seed)
    assert not model.training
    return model.state_dict(), metrics


@pytest.mark.slow
def test_pretraining_learns_what_the_captions_say():
    model, token_ids = fresh_clip(seed=1)
    before = pretraining.retrieval(model.eval(), token_ids, PX, seed=1)
    losses = pretraining.pretrain(model, token_ids, PX, TINY, seed=1)
    after = pretraining.retrieval(model, token_ids, PX, seed=1)
    assert len(losses) == TINY.steps
    assert np.mean(losses[-8:]) < 0.5 * losses[0]
    assert np.mean(losses[:8]) > np.mean(losses[36:44]) > np.mean(losses[-8:])
    for metric in ("image_to_text_top1", "text_to_image_top1"):
        assert before[metric] < 3 * CHANCE, metric
        assert after[metric] > 10 * CHANCE, metric


def test_a_seed_fixes_weights_and_metrics():
    weights, metrics = stand_in(seed=1)
    model, token_ids = fresh_clip(seed=1)
    losses = pretraining.pretrain(model, token_ids, PX, TINIER, seed=1)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in weights.items())
    accuracies = pretraining.retrieval(model, token_ids, PX, seed=1)
    assert metrics == {"steps": 10, "loss": losses[-1], **accuracies}, "the last tenth of 10 is 1"
    assert metrics["num_stills"] == 4 * NUM_CLASSES
    other, other_metrics = stand_in(seed=2)
    assert other_metrics["loss"] != metrics["loss"]
    assert not torch.equal(other["text_projection"], weights["text_projection"])


def test_the_learning_rate_rises_to_its_peak_and_falls_to_nothing():
    rates: list[float] = []

    def record(optimizer: Optimizer, args: object, options: object) -> None:
        rates.append(optimizer.param_groups[0]["lr"])

    hook = register_optimizer_step_pre_hook(record)
    model, token_ids = fresh_clip(seed=1)
    pretraining.pretrain(model, token_ids, PX, Budget(steps=20, batch=2, lr=1e-4), 1)
    hook.remove()
    falling = [0.5 * (1 + math.cos(math.pi * i / 18)) for i in range(18)]
    assert rates == pytest.approx([1e-4 * share for share in [0.5, 1.0, *falling]])
    assert rates[-1] < 0.01 * max(rates)


def test_batches_mirror_stills_at_random_and_put_captions_into_templates(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(pretraining, "MAX_STILLS", 40)
    templates, classes = torch.arange(3), torch.arange(NUM_CLASSES)
    token_ids = torch.cartesian_prod(templates, classes).view(3, NUM_CLASSES, 2)
    stills, labels = draw_stills(40, PX, (5, 2))
    drawn: list[tuple[int, bool]] = []  # still, and whether mirrored
    used: Counter[int] = Counter()
    budget = Budget(steps=10, batch=16, lr=1.0)
    for shown, captions, positions in pretraining._batches(token_ids, PX, budget, seed=5):
        assert len(captions) == len(captions.unique(dim=0)), "each caption is encoded once"
        used.update(captions[:, 0].tolist())
        for still, position in zip(shown, positions.tolist(), strict=True):
            plain, mirrored = (
                (stills == image).flatten(1).all(1) for image in (still, still.flip(-1))
            )
            (which,) = (plain | mirrored).nonzero().flatten().tolist()
            assert captions[position, 1] == labels[which], "its own caption"
            drawn.append((which, not plain[which]))
    rounds = [sorted(which for which, _ in drawn[i : i + 40]) for i in range(0, 160, 40)]
    assert rounds == [list(range(40))] * 4, "all stills are seen once before any is seen again"
    assert [which for which, _ in drawn[:40]] != [which for which, _ in drawn[40:80]]
    assert 60 < sum(flipped for _, flipped in drawn) < 100
    assert set(used) == {0, 1, 2}
    assert min(used.values()) > sum(used.values()) / 5


class KnownClip(Towers):
    """A CLIP that gives embeddings made by hand: of images in turn, of texts by their token."""

    def __init__(self, images: Tensor, texts: Tensor) -> None:
        super().__init__(nn.Identity())
        self.images, self.texts = images, texts
        self.seen = torch.empty(0, 3, PX, PX)

    def encode_image(self, pixels: Tensor) -> Tensor:
        start = len(self.seen)
        self.seen = torch.cat([self.seen, pixels])
        return self.images[start : len(self.seen)]

    def encode_text(self, token_ids: Tensor) -> Tensor:
        return self.texts[token_ids[:, 0]]


def test_retrieval_counts_what_finds_its_own():
    """Every still lies near its own caption, but for three: two lie on caption 7, one on caption 9.

    So three stills find a wrong caption, and two captions a wrong still.
    """
    num_stills = 4 * NUM_CLASSES
    texts = torch.eye(NUM_CLASSES + 1)[:NUM_CLASSES]
    labels = torch.arange(num_stills) % NUM_CLASSES
    images = 0.9 * texts[labels]
    images[:, -1] = math.sqrt(1 - 0.9**2)
    images[[0, NUM_CLASSES + 3]] = texts[7]
    images[NUM_CLASSES - 1] = texts[9]
    lengths = torch.linspace(1, 50, num_stills)[:, None]  # which must not matter
    clip = KnownClip(lengths.flip(0) * images, lengths[:NUM_CLASSES] * texts)
    right = torch.arange(NUM_CLASSES).view(1, -1, 1)
    token_ids = torch.cat([right, right.flip(1)])  # the second template would be all wrong
    accuracies = pretraining.retrieval(clip, token_ids, PX, seed=3)
    assert accuracies == {
        "image_to_text_top1": pytest.approx(100 * (num_stills - 3) / num_stills),
        "text_to_image_top1": pytest.approx(100 * (NUM_CLASSES - 2) / NUM_CLASSES),
        "num_stills": num_stills,
    }
    assert clip.seen.shape == (num_stills, 3, PX, PX)
    trained_on = {still.numpy().tobytes() for still in normalize(draw_stills(600, PX, (3, 2))[0])}
    held_out = {still.numpy().tobytes() for still in clip.seen}
    assert len(held_out - trained_on) == num_stills, "none is a training still"


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
    other = pretrain_budget("ViT-L/14", replace(demo, {"other_archs.pretrain_steps": 7}))
    assert (other.steps, other.batch) == (7, demo.other_archs.pretrain_batch)
    assert other.lr < default.lr


@pytest.mark.parametrize(
    ("avx512", "avx512_bf16", "supported", "faster"),
    [
        (True, True, True, True),
        (True, False, True, False),  # oneDNN converts to float32
        (False, False, False, False),  # AVX2
        (False, False, True, True),  # Arm
    ],
)
def test_large_models_use_bfloat16_only_where_it_is_faster(
    monkeypatch: pytest.MonkeyPatch,
    avx512: bool,
    avx512_bf16: bool,
    supported: bool,
    faster: bool,
):
    monkeypatch.setattr(torch.cpu, "_is_avx512_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    model = nn.Linear(2, 2)
    with pretraining._precision(model):
        assert model(torch.ones(2)).dtype == torch.float32, "a small model"
    monkeypatch.setattr(pretraining, "LARGE_MODEL", 1)
    with pretraining._precision(model):
        assert model(torch.ones(2)).dtype == (torch.bfloat16 if faster else torch.float32)


def test_a_loss_that_is_not_finite_names_the_step():
    wild = Budget(steps=20, batch=8, lr=1e30)
    with pytest.raises(ValueError, match=r"the loss is .* at step \d+; lower demo.pretrain_lr"):
        pretraining.stand_in_clip("ViT-demo-16", PX, ["{}"], wild, 1)

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import tiny
from clipzoo.evaluate.retrieval import video_embeddings
from clipzoo.methods.mote import TEMPERATURES, Mote, draw_choices, merge_shares, modulation
from clipzoo.methods.parts.experts import Experts
from clipzoo.methods.parts.method import Batch, StepClips
from clipzoo.models.text import ClassText
from clipzoo.serve.classifier import Classifier
from parity.inputs import class_text, fill, noise
from parity.mote import mote_options

T, D = 3, tiny.DIM


def text(classes: int, seed: int = 5) -> ClassText:
    """Classes that are as alike as those of a CLIP: their cosines are about 0.9."""
    rows = 4 * noise(4, D) + noise(seed, 2, classes, D)  # [P, K, D]
    return class_text(functional.normalize(rows, dim=-1))


def model(trained: int = 9, **options: Any) -> Mote:
    """A small model that was trained on some classes, or on none yet."""
    found = tiny.method("mote", T, "stem", **options)
    assert isinstance(found, Mote)
    fill(found.fusion_model, "fusion_model.")
    found.fusion_model.spe_cls_feature = torch.zeros(0, D)
    if trained:
        found.start_training(text(trained, seed=6))
    return found


def frames(clips: int) -> Tensor:
    shape = (clips, T, 3, tiny.INPUT_PX, tiny.INPUT_PX)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.manual_seed(1))


def plain_modulation(video: Tensor, classes: Tensor, trained: Tensor, nearest: int) -> float:
    """The formula for one video [D], by sorting."""
    unit = video / video.norm()
    ours = sorted(classes, key=lambda c: -float(c @ unit))[:nearest]
    theirs = sorted(trained, key=lambda d: -float(d @ unit))[:nearest]
    mean = sum(max(float(c @ d) for d in theirs) for c in ours) / len(ours)
    return math.exp(-(1 - mean) / 0.05)


@pytest.mark.parametrize(("classes", "trained"), [(9, 7), (3, 7), (9, 2), (1, 1)])
@torch.no_grad()
def test_the_modulation_follows_the_nearest_classes(classes: int, trained: int):
    mote, competing = model(trained), text(classes)
    features = mote.features(noise(7, 4, T, D))
    assert features.shape == (4, 2 + min(5, trained), D)
    known = mote.fusion_model.spe_cls_feature
    expected = [plain_modulation(f[0], competing.ensemble(), known, 5) for f in features]
    shares = modulation(features[:, 0], features[:, 2:], competing.ensemble(), mote.options)
    torch.testing.assert_close(shares[:, 0], torch.tensor(expected), rtol=1e-4, atol=1e-7)
    assert len({round(share, 4) for share in expected}) > 1 or trained == 1
    videos = features[:, 0] + shares * features[:, 1]
    cosines = functional.normalize(videos, dim=-1) @ competing.ensemble().T
    torch.testing.assert_close(mote.similarity(features[:, None], competing)[:, 0], cosines)


@torch.no_grad()
def test_on_the_classes_trained_on_nothing_is_modulated():
    mote = model(trained=9)
    features = mote.encode(frames(3))
    parts = mote.embedding_parts(features)
    torch.testing.assert_close(parts, features[:, 0] + features[:, 1])
    torch.testing.assert_close(mote.videos(features, text(9, seed=6)), parts)
    assert (mote.videos(features, text(9)) - parts).abs().max() > 0.1
    untrained = model(trained=0)
    assert untrained.encode(frames(3)).shape == (3, 2, D)
    torch.testing.assert_close(untrained.videos(features[:, :2], text(9)), parts)


@torch.no_grad()
def test_the_embedding_has_no_part_in_which_classes_are_known():
    mote, clips = model(), frames(2)
    features = mote.encode(clips)
    expected = functional.normalize(features[:, 0] + features[:, 1], dim=-1)
    found = Classifier(mote)(clips, text(4).class_embeddings)["embedding"]
    torch.testing.assert_close(found, expected)
    stored = mote.embedding_parts(features[:, None].half())  # as predictions over 2 GB have them
    assert stored.dtype == torch.float32
    torch.testing.assert_close(video_embeddings(stored), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("fusion", ["softmax", "cosines"])
@torch.no_grad()
def test_views_are_fused_as_the_option_says(fusion: str):
    mote, competing = model(view_fusion=fusion), text(4)
    features = mote.encode(frames(6)).unflatten(0, (2, 3))  # [N, V, 2 + n, D]
    cosines = mote.similarity(features, competing)  # [N, V, K]
    expected = cosines.softmax(-1).mean(1)
    if fusion == "cosines":
        expected = (100 * cosines.mean(1)).softmax(-1)
    torch.testing.assert_close(mote.score(features, competing), expected)


@torch.no_grad()
def test_merged_experts_are_one_mlp_of_mean_weights():
    experts, x = Experts(D, 3), noise(2, 4, D)
    fill(experts)
    shares = experts.mote_fusion_weight.softmax(0).tolist()
    assert len({round(share, 3) for share in shares}) == 3
    mlp = Experts(D, 1)
    for ours, theirs in ((experts.fc_up, mlp.fc_up), (experts.fc_dn, mlp.fc_dn)):
        for name, value in theirs[0].named_parameters():
            parts = [share * e.get_parameter(name) for share, e in zip(shares, ours, strict=True)]
            value.copy_(torch.stack(parts).sum(0))
    torch.testing.assert_close(experts(x), mlp(x, 0))
    torch.testing.assert_close(experts(x, (0.0, 1.0, 0.0)), experts(x, 1))
    outputs = sum(share * experts(x, e) for e, share in enumerate(shares))
    assert (experts(x) - outputs).abs().max() > 0.01  # not the mean of outputs


def test_experts_are_initialized_apart_and_alike():
    """Each is drawn from N(0, 0.02): equal experts would stay equal under merging."""
    mlp = "fusion_model.transformer.resblocks.0.mlp"
    experts: Any = tiny.method("mote", T, "stem").get_submodule(mlp)
    weights = torch.stack([expert.weight for expert in experts.fc_up])
    assert (weights[0] - weights[1]).abs().max() > 0.01
    assert weights.std().item() == pytest.approx(0.02, rel=0.05)
    assert not any(expert.bias.any() for expert in [*experts.fc_up, *experts.fc_dn])
    assert not experts.mote_fusion_weight.any()


def test_draws_have_the_published_probabilities():
    options, number = mote_options(head_layers=2), 4000
    draws = [draw_choices((1024, step, 0), options) for step in range(number)]
    experts = torch.tensor([d.experts for d in draws])  # [number, 2]
    for expert, share in enumerate((0.0321, 0.0871, 0.2369, 0.6439)):
        found = (experts == expert).float().mean(0)
        assert ((found - share).abs() < 4 * math.sqrt(share * (1 - share) / number)).all()
    candidates = [merge_shares(tau, 4) for tau in TEMPERATURES]
    taus = torch.tensor([[candidates.index(s) for s in d.shares] for d in draws])
    counts = torch.bincount(taus.flatten(), minlength=11) / (2 * number)
    assert ((counts - 1 / 11).abs() < 0.015).all()
    assert (taus[:, 0] != taus[:, 1]).float().mean() > 0.85  # each block has its own
    assert draws[7] == draw_choices((1024, 7, 0), options)
    others = [(1025, 7, 0), (1024, 8, 0), (1024, 7, 1)]
    assert all(
        draw_choices(seed, mote_options(head_layers=30))
        != draw_choices((1024, 7, 0), mote_options(head_layers=30))
        for seed in others
    )


def test_shares_of_the_merge():
    assert merge_shares(math.inf, 4) == (0.25,) * 4
    expected = torch.tensor([1.0, 2, 3, 4]).div(-0.6).softmax(0)
    torch.testing.assert_close(torch.tensor(merge_shares(-0.6, 4)), expected)


@torch.no_grad()
def test_what_is_drawn_depends_on_places_alone():
    """Not on the processes and micro-batches over which the places of a step are dealt."""
    mote, clips = model(draw_group=2, head_layers=3).train(), frames(6)
    whole = mote.encode_training(clips, StepClips(seed=1, step=4, places=list(range(6))))
    assert whole.shape == (6, 3, D)
    parts = torch.zeros_like(whole)
    for places in ([0, 2, 4], [5, 1], [3]):
        parts[places] = mote.encode_training(
            clips[places], StepClips(seed=1, step=4, places=places)
        )
    torch.testing.assert_close(parts, whole)
    other = mote.encode_training(clips, StepClips(seed=1, step=5, places=list(range(6))))
    assert (other - whole).abs().amax((1, 2)).min() > 1e-3
    # Each pair has its own draws: the first two clips, as the last pair, come out differently.
    moved = mote.encode_training(clips[:2], StepClips(seed=1, step=4, places=[4, 5]))
    assert (moved - whole[:2]).abs().max() > 1e-3
    at_once = model(draw_group=0, head_layers=3).train()
    twice = at_once.encode_training(clips[[0, 0]], StepClips(seed=1, step=4, places=[0, 5]))
    torch.testing.assert_close(twice[0], twice[1])


def test_the_loss_is_the_weighted_sum_over_single_clips():
    mote, classes = model(merged_loss_weight=0.7, residual_loss_weight=0.2), text(4)
    features = noise(3, 5, 3, D)
    labels = torch.tensor([0, 3, 1, 1, 2])
    batch = Batch(labels=labels, texts=labels)
    drawn, merged, square = mote.losses(features, batch, classes)
    cosines = functional.normalize(features[:, :2], dim=-1) @ classes.ensemble().T
    logits = mote.logit_scale.exp() * cosines
    torch.testing.assert_close(drawn, functional.cross_entropy(logits[:, 0], labels))
    torch.testing.assert_close(merged, functional.cross_entropy(logits[:, 1], labels))
    torch.testing.assert_close(square, features[:, 2].mean())
    loss = mote.loss(features, batch, classes)
    torch.testing.assert_close(loss, drawn + 0.7 * merged + 0.2 * square)
    parts = [
        mote.loss(features[i : i + 1], replace(batch, texts=labels[i : i + 1]), classes)
        for i in range(5)
    ]
    torch.testing.assert_close(torch.stack(parts).mean(), loss)
    assert not mote.compares_videos


def test_every_parameter_has_a_gradient_in_every_step():
    """DistributedDataParallel would wait for one without."""
    mote, classes = model(head_layers=2).train(), text(4)
    clips = StepClips(seed=3, step=0, places=[0, 1])
    labels = torch.tensor([0, 3])
    features = mote.encode_training(frames(2), clips)
    mote.loss(features, Batch(labels=labels, texts=labels), classes).backward()
    without = [name for name, p in mote.named_parameters() if p.grad is None]
    assert not without

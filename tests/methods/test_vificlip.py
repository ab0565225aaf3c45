"""ViFi-CLIP's model, its features and scores; against the authors' code in tests/parity."""

import inspect
import json
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional

import tiny
from clipzoo.clips.transforms import ViewTransform
from clipzoo.methods.parts.method import Batch, Method
from clipzoo.methods.vificlip import Options, ViFiClip
from clipzoo.models.pixels import PIXELS
from clipzoo.models.text import ClassText
from parity import vificlip as golden
from parity.inputs import class_text

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/vificlip_model.json").read_text())[0]
T, B, V, P, K = 3, 4, 2, 2, 5


def model(trained: str = "both") -> ViFiClip:
    """With the logit scale that CLIP is trained to."""
    method = tiny.method("vificlip", T, trained=trained)
    assert isinstance(method, ViFiClip)
    method.logit_scale.data.fill_(math.log(100))
    return method


def clips(seed: int = 0) -> Tensor:
    """uint8 [B, T, 3, S, S]."""
    torch.manual_seed(seed)
    return torch.randint(0, 256, (B, T, 3, tiny.INPUT_PX, tiny.INPUT_PX), dtype=torch.uint8)


def prompts() -> ClassText:
    torch.manual_seed(2)
    embeddings = functional.normalize(torch.randn(P, K, tiny.DIM), dim=-1)
    tokens = torch.randint(1, tiny.WORDS, (P, K, tiny.CONTEXT))
    return replace(class_text(embeddings), token_ids=tokens)


def test_scores_are_those_of_the_authors_evaluation():
    inputs = {name: GOLDEN[name] for name in inspect.signature(golden.model).parameters}
    found = golden.model(**inputs)["summed_probabilities"]
    expected = torch.tensor(GOLDEN["summed_probabilities"])
    assert 0.2 < expected.max() < 0.999 * V  # of neither nothing nor all
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_length_of_the_features_is_the_trained_scale():
    """So that features and class text are all that `score` needs."""
    method, text = model(), prompts()
    features = method.encode(clips())  # [B, D]
    torch.testing.assert_close(features.norm(dim=-1), torch.full((B,), 100.0))
    method.logit_scale.data.fill_(math.log(7))
    torch.testing.assert_close(method.encode(clips()), 0.07 * features)
    cosines = method.similarity(features[:, None], text)  # [B, 1, K]
    torch.testing.assert_close(method.logits(features, text), 100 * cosines[:, 0])
    torch.testing.assert_close(
        cosines[:, 0], functional.normalize(features, dim=-1) @ text.ensemble().T
    )


@torch.no_grad()
def test_frames_are_averaged_before_they_are_normalized():
    method = model()
    by_frame = method.encode(clips().flatten(0, 1)[:, None])  # each frame a clip: [B T, D]
    mean = by_frame.unflatten(0, (B, T)).mean(dim=1)
    features = functional.normalize(method.encode(clips()), dim=-1)
    assert not torch.allclose(features, functional.normalize(mean, dim=-1), atol=1e-4)


@torch.no_grad()
def test_views_are_averaged_after_the_softmax():
    method, text = model(), prompts()
    features = torch.stack([method.encode(clips(seed)) for seed in range(V)], dim=1)  # [B, V, D]
    by_view = method.logits(features, text).softmax(dim=-1)  # [B, V, K]
    found = method.score(features, text)
    torch.testing.assert_close(found, (by_view[:, 0] + by_view[:, 1]) / 2)
    torch.testing.assert_close(found.sum(dim=-1), torch.ones(B))
    mean = method.logits(features.mean(dim=1), text).softmax(dim=-1)
    assert not torch.allclose(found, mean, atol=1e-4)


@torch.no_grad()
def test_the_class_text_is_that_of_the_own_tower_unless_the_vision_tower_alone_is_trained():
    text = prompts()
    for trained in ("both", "text"):
        method = model(trained)
        assert method.text is not None
        found = method.class_text(text)
        torch.testing.assert_close(found.class_embeddings, method.text(text.token_ids))
        assert not torch.allclose(found.class_embeddings, text.class_embeddings, atol=0.1)
    image = model("image")
    assert image.class_text(text) is text
    assert not any(name.startswith("text.") for name in image.state_dict())


@pytest.mark.parametrize("trained", ["both", "image", "text"])
def test_what_is_trained_has_gradients_and_nothing_else(trained: str):
    method = model(trained).train()
    text = method.class_text(prompts())
    labels = torch.tensor([0, 2, 4, 2])
    method.loss(method.encode(clips()), Batch(labels=labels, texts=labels), text).backward()
    given = {n for n, p in method.named_parameters() if p.grad is not None and p.grad.any()}
    parts = {"visual": ("both", "image"), "text": ("both", "text"), "logit_scale": ("both",)}
    expected = {
        name
        for name, _ in method.named_parameters()
        if trained in parts[name.split(".")[0]] and not name.endswith("token_embedding.weight")
    }
    assert given == expected
    assert {n for n, p in method.named_parameters() if p.requires_grad} == expected


def test_the_loss_takes_soft_targets():
    method, text = model(), prompts()
    features, labels = method.encode(clips()).detach(), torch.tensor([0, 2, 4, 2])
    hard = Batch(labels=labels, texts=labels)
    one_hot = functional.one_hot(labels, K).float()
    same = replace(hard, targets=one_hot)
    torch.testing.assert_close(method.loss(features, hard, text), method.loss(features, same, text))
    mixed = replace(hard, targets=0.7 * one_hot + 0.3 * one_hot.flip(0))
    other = replace(hard, labels=labels.flip(0), texts=labels.flip(0))
    expected = 0.7 * method.loss(features, hard, text) + 0.3 * method.loss(features, other, text)
    torch.testing.assert_close(method.loss(features, mixed, text), expected)


def test_samplers_and_options():
    method: Method = model()
    assert (method.train_sampler, method.test_sampler) == ("tsn", "midpoints")
    assert tiny.method("vificlip", T, test_sampler="random").test_sampler == "random"
    with pytest.raises(ValidationError, match="trained"):
        Options.model_validate({"trained": "vision", "test_sampler": "midpoints"})


def test_activations_are_recomputed_in_both_towers():
    method = model()
    method.set_grad_checkpointing()
    assert method.text is not None
    assert method.visual.transformer.grad_checkpointing  # pyright: ignore[reportAttributeAccessIssue]
    assert method.text.tower.transformer.grad_checkpointing  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("height", [60, 64])
def test_frames_of_tests_that_are_not_shrunk_are_those_of_opencv(height: int):
    """As the authors resize: 60 px to 64 on the short side, then the center."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, height, 90, 3), dtype=np.uint8)
    width = int(90 * 64 / height + 0.5)
    left, top = (width - 56) // 2, (64 - 56) // 2
    expected = [
        cv2.resize(frame, (width, 64), interpolation=cv2.INTER_LINEAR)[top:, left:][:56, :56]
        for frame in frames
    ]
    found = ViewTransform(56, 64, 1, PIXELS["imagenet-bilinear"])(frames)[0]  # [T, 3, 56, 56]
    difference = found.movedim(1, -1).numpy().astype(int) - np.stack(expected)
    assert np.abs(difference).max() <= 1

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from clipzoo.methods import METHODS
from clipzoo.methods.bike import Bike, Options
from clipzoo.methods.parts import similarity
from clipzoo.methods.parts.heads import TemporalHead
from clipzoo.methods.parts.losses import ds_loss, nce_loss
from clipzoo.methods.parts.method import AuthorsMap, Batch
from clipzoo.methods.parts.raw import FrameSoftmax
from clipzoo.models.clip import build_clip
from clipzoo.models.text import ClassText
from clipzoo.sections import build
from clipzoo.yaml_files import ConfigError
from parity.inputs import class_text, fill, noise
from parity.model import bike_options

T, D, L, K = 4, 128, 12, 3


def model(**options: Any) -> Bike:
    torch.manual_seed(0)
    return Bike(build_clip("ViT-demo-16", 32), bike_options(head_layers=1, **options), T).eval()


def text() -> ClassText:
    embeddings = functional.normalize(noise(5, 1, K, D), dim=-1)
    return replace(class_text(embeddings), token_embeddings=noise(6, K, L, D))


def plain_vcs(frames: Tensor, classes: Tensor, words: Tensor) -> Tensor:
    """The formula of the authors' code, with one tensor [K, L, B, T]."""
    h, c, w = (x / x.norm(dim=-1, keepdim=True) for x in (frames, classes, words))
    weights = (torch.einsum("kld,btd->klbt", w, h) / 0.01).softmax(-1).mean(1)  # [K, B, T]
    pooled = torch.einsum("kbt,btd->kbd", weights, h)  # [K, B, D]
    return torch.einsum("kbd,kd->bk", pooled, c)


# Measured with the authors' code: T = 4, D = 64, 3 videos, 5 classes of 77 tokens.
MEASURED = {
    ("None", "DP"): [
        [-0.1495054, -0.09914681, -0.009455383, -0.03995366, 0.2037889],
        [-0.1695951, -0.1273096, 0.05004571, 0.01303909, -0.2061465],
        [0.2620925, -0.1107843, 0.1078817, -0.07834788, 0.05989712],
    ],
    ("None", "VCS"): [
        [-0.05428178, -0.04457696, 0.02085843, -0.02157818, 0.1106579],
        [-0.09473278, -0.07910074, 0.008234404, 0.01114337, -0.1413904],
        [0.1176897, -0.05636808, 0.06285906, -0.04493788, 0.03378106],
    ],
    ("Transf", "DP"): [
        [0.2649057, 0.3067411, -0.1024418, -0.1843198, 0.1428559],
        [0.017403, -0.1891073, 0.08841094, -0.09605352, 0.06768259],
        [0.1897842, -0.06858023, 0.07728469, -0.08842807, 0.1705834],
    ],
    ("Transf", "VCS"): [
        [0.1990522, 0.2362474, -0.06013741, -0.1234932, 0.1129719],
        [0.006250353, -0.1543951, 0.06565196, -0.07759537, 0.01272548],
        [0.1388254, -0.05315687, 0.06442813, -0.07304178, 0.1467748],
    ],
}


@pytest.mark.parametrize(("head", "interaction"), MEASURED)
def test_scores_are_those_of_the_authors(head: str, interaction: str):
    bike = model(head=head, interaction=interaction)
    bike.fusion_model = TemporalHead(head, width=64, heads=1, layers=6, positions=77)
    fill(bike.fusion_model, "fusion_model.")
    x, words, sentences = noise(91, 3, 4, 64), noise(92, 5, 77, 64), noise(93, 5, 64)
    classes = replace(class_text(sentences[None]), token_embeddings=words)
    features = bike.fusion_model.frames(x) if interaction == "VCS" else bike.fusion_model(x)
    expected = torch.tensor(MEASURED[head, interaction])
    torch.testing.assert_close(bike.cosines(features, classes), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("videos", "block"), [(2, 1), (3, 10**9), (256, 700)])
def test_blocks_change_neither_scores_nor_gradients(monkeypatch, videos: int, block: int):
    monkeypatch.setattr(similarity, "VIDEOS_AT_ONCE", videos)
    monkeypatch.setattr(similarity, "BLOCK", block)
    classes, words, weights = noise(2, 7, 16), noise(3, 7, L, 16), noise(4, 5, 7)
    ours, plain = noise(1, 5, T, 16).requires_grad_(), noise(1, 5, T, 16).requires_grad_()
    scores = similarity.spotted_cosines(ours, classes, words, 0.01)
    expected = plain_vcs(plain, classes, words)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)
    (found,) = torch.autograd.grad((scores * weights).sum(), ours)
    (gradient,) = torch.autograd.grad((expected * weights).sum(), plain)
    torch.testing.assert_close(found, gradient, rtol=1e-4, atol=1e-5)


def test_no_tensor_has_a_number_for_every_class_video_word_and_frame(monkeypatch):
    monkeypatch.setattr(similarity, "BLOCK", 2000)
    largest = 0

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                largest = max(largest, result.numel())
            return result

    frames, classes, words = noise(1, 8, T, 8), noise(2, 40, 8), noise(3, 40, 30, 8)
    with Watch():
        similarity.spotted_cosines(frames.requires_grad_(), classes, words, 0.01).sum().backward()
    assert 1000 < largest <= 2000


def test_weights_are_those_that_the_scores_use():
    bike, classes = model(saliency=True), text()
    features = noise(7, 2, 3, T, D)  # [N, V, T, D]
    weights = bike.saliency(features, classes)
    assert weights is not None
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, K))
    unit = functional.normalize(features, dim=-1)
    cosines = torch.einsum("nvkt,nvtd,kd->nvk", weights, unit, classes.class_embeddings[0])
    torch.testing.assert_close(bike.cosines(features[:, 1], classes), cosines[:, 1])
    assert (model().stores_saliency, bike.stores_saliency) == (False, True)
    unstored = model().saliency(features, classes)
    assert unstored is not None
    assert torch.equal(unstored, weights)
    without_words = replace(classes, token_embeddings=None)
    assert model(saliency=True, interaction="DP").saliency(features, without_words) is None


@pytest.mark.parametrize("interaction", ["VCS", "DP"])
def test_views_are_averaged_after_one_softmax(interaction: str):
    bike, classes = model(interaction=interaction), text()
    features = noise(8, *((2, 3, T, D) if interaction == "VCS" else (2, 3, D)))
    per_view = torch.stack([bike.cosines(features[:, v], classes) for v in range(3)], 1)
    probabilities = bike.score(features, classes)
    torch.testing.assert_close(probabilities, per_view.softmax(-1).mean(1))


@pytest.mark.parametrize(("loss", "function"), [("nce", nce_loss), ("ds", ds_loss)])
@torch.no_grad()
def test_the_loss_sets_videos_against_the_texts_of_the_step(loss: str, function: Any):
    bike, classes, features = model(loss=loss), text(), noise(9, 4, T, D)
    labels, columns = torch.tensor([7, 2, 7, 4]), torch.tensor([2, 0, 2, 1])
    bike.logit_scale.data = torch.tensor(math.log(3.0))
    logits = 3 * bike.cosines(features, classes)[:, columns]
    value = bike.loss(features, Batch(labels=labels, texts=columns), classes)
    assert float(value) == pytest.approx(float(function(logits, labels)), rel=1e-6)
    assert float(value) != pytest.approx(float(function(logits / 3, labels)), rel=1e-3)


def test_dual_softmax_by_hand():
    logits = [[30.0, 10.0], [-20.0, 50.0]]
    by_video, by_text = [[0.0] * 2, [0.0] * 2], [[0.0] * 2, [0.0] * 2]
    for i in (0, 1):
        for j in (0, 1):
            column = sum(math.exp(logits[k][j] / 1000) for k in (0, 1))
            row = sum(math.exp(logits[i][k] / 1000) for k in (0, 1))
            part = math.exp(logits[i][j] / 1000)
            by_video[i][j] = logits[i][j] * 2 * part / column
            by_text[j][i] = logits[i][j] * 2 * part / row
    targets = torch.tensor([[10.0, 0.0], [0.0, 10.0]]).softmax(1)
    losses = [
        (targets * (targets.log() - torch.tensor(s).log_softmax(1))).sum() / 2
        for s in (by_video, by_text)
    ]
    found = ds_loss(torch.tensor(logits), torch.tensor([0, 1]))
    assert float(found) == pytest.approx(float(sum(losses)) / 2, rel=1e-5)


def test_frames_before_the_head_are_the_path_of_zero_shot():
    frames = torch.randint(0, 256, (2, T, 3, 32, 32), dtype=torch.uint8)
    assert model().for_zero_shot().encode(frames).shape == (2, T, D)
    bike = model(zero_shot_scoring="frames")
    alone = bike.for_zero_shot()
    assert isinstance(alone, FrameSoftmax)
    with torch.no_grad():
        features = alone.encode(frames)  # [2, T, D]
        assert not torch.allclose(features, bike.encode(frames), atol=1e-3)
    expected = (100 * features @ text().ensemble().T).softmax(-1).mean(1)
    torch.testing.assert_close(alone.score(features[:, None], text()), expected)


def test_a_batch_of_the_running_map_must_divide_among_the_authors_processes():
    values = bike_options().model_dump() | {"authors_running_map_batch": 30}
    with pytest.raises(
        ConfigError, match=r"bike\.authors_running_map_batch: found 30.*a multiple of 8"
    ):
        build(Options, values, "params.yaml", "bike")


def test_what_the_options_ask_for():
    module = METHODS["bike"]
    assert module.needs_tokens(bike_options())
    assert not module.needs_tokens(bike_options(interaction="DP"))
    bike = model(
        authors_map_softmaxes=3,
        authors_running_map_batch=64,
        train_sampler="ticks",
        val_min_frames=5,
    )
    assert bike.authors_map == AuthorsMap(softmaxes=3, running_batch=64)
    assert (bike.train_sampler, bike.val_min_frames) == ("ticks", 5)
    assert model(authors_map_softmaxes=1).authors_map is None
    assert not any(name.startswith("text") for name, _ in bike.named_parameters())

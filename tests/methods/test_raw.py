"""The untrained CLIP as a method, against its formulas."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from clipzoo.clips.sampling import SINGLE_CLIP_SAMPLERS
from clipzoo.clips.transforms import ViewTransform
from clipzoo.config import ConfigError
from clipzoo.methods import raw
from clipzoo.methods.parts.method import Batch
from clipzoo.models.clip import build_clip
from clipzoo.models.pixels import PIXELS
from parity.inputs import class_text
from tiny import normalize

T, PX = 3, 32


def method(fusion: str):
    torch.manual_seed(0)
    clip = build_clip("ViT-demo-16", PX)
    options = raw.Options.model_validate({"fusion": fusion, "test_sampler": "linspace"})
    return raw.build(clip, options, T), clip


def frames() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (2, T, 3, PX, PX), generator=generator, dtype=torch.uint8)


def by_frame_of(clip) -> torch.Tensor:
    """Frame embeddings [2, T, D], one frame after the other."""
    pixels = normalize(frames().flatten(0, 1))  # [2 T, 3, PX, PX]
    return torch.cat([clip.visual(frame[None]) for frame in pixels]).unflatten(0, (2, T))


@torch.no_grad()
def test_mean_averages_frames_and_views_and_then_normalizes():
    model, clip = method("mean")
    by_frame = clip.get_submodule("visual")(normalize(frames().flatten(0, 1))).unflatten(
        0, (2, T)
    )  # [2, T, D]
    features = model.encode(frames())
    torch.testing.assert_close(features, by_frame.mean(dim=1))
    text = functional.normalize(torch.randn(1, 4, 128), dim=-1)
    views = torch.stack([features, 2 * features.flip(0)], dim=1)  # [2, V = 2, D]
    cosines = functional.normalize(views.mean(dim=1), dim=-1) @ text[0].T
    expected = (100 * cosines).softmax(dim=-1)
    torch.testing.assert_close(model.score(views, class_text(text)), expected)


@torch.no_grad()
def test_normalized_mean_lets_every_frame_count_the_same():
    """Also a gray one beside a bright one, whose plain mean is nearly the bright one."""
    model, clip = method("normalized_mean")
    by_frame = functional.normalize(by_frame_of(clip), dim=-1)  # [2, T, D]
    features = model.encode(frames())
    torch.testing.assert_close(features, by_frame.mean(dim=1))
    model.visual = nn.Flatten()  # frames of one pixel: their 3 colors are the embedding
    pixels = torch.tensor([[120, 120, 120], [255, 0, 255]], dtype=torch.uint8)
    pixels = pixels[None, :, :, None, None]  # [b = 1, T = 2, 3, 1, 1]
    gray, bright = normalize(pixels).flatten(2)[0]
    assert bright.norm() > 9 * gray.norm()
    expected = (gray / gray.norm() + bright / bright.norm()) / 2
    torch.testing.assert_close(model.encode(pixels)[0], expected)


@torch.no_grad()
def test_normalized_mean_orders_the_classes_as_the_mean_of_the_frames_cosines():
    """The rule of Open-VCLIP, over the frames of all views."""
    model, clip = method("normalized_mean")
    text = functional.normalize(torch.randn(1, 20, 128), dim=-1)
    features = model.encode(frames())
    views = torch.stack([features, features.flip(0)], dim=1)  # [2, V = 2, D]
    by_frame = functional.normalize(by_frame_of(clip), dim=-1)
    every = torch.cat([by_frame, by_frame.flip(0)], dim=1)  # [2, V T, D]
    order = (every @ text[0].T).mean(dim=1).argsort(dim=-1)
    assert torch.equal(model.score(views, class_text(text)).argsort(dim=-1), order)


@pytest.mark.parametrize("fusion", raw.FUSIONS)
def test_the_frames_of_a_test_are_those_of_the_option(fusion):
    assert method(fusion)[0].test_sampler == "linspace"


@torch.no_grad()
def test_softmax_averages_the_probabilities_of_frames_as_they_are():
    model, clip = method("softmax")
    by_frame = by_frame_of(clip)
    features = model.encode(frames())
    torch.testing.assert_close(features, by_frame)
    text = functional.normalize(torch.randn(1, 4, 128), dim=-1)
    views = torch.stack([features, features.flip(0)], dim=1)  # [2, V = 2, T, D]
    every = torch.cat([features, features.flip(0)], dim=1)  # [2, V T, D]
    expected = (100 * every @ text[0].T).softmax(dim=-1).mean(dim=1)  # not normalized
    torch.testing.assert_close(model.score(views, class_text(text)), expected)


@torch.no_grad()
def test_pe_core_s_rows_are_scored_as_by_its_authors():
    """From the frames of a video to probabilities, with PIL and torch alone on the other side."""
    size, count = 64, 30
    torch.manual_seed(0)
    clip = build_clip("PE-Core-T-16-384", size, pixels=PIXELS["pe"])
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)) for _ in range(count)]
    video = np.stack([np.asarray(image.resize((160, 120))) for image in noise])  # [n, H, W, 3]
    templates = functional.normalize(torch.randn(28, 5, 512), dim=-1)  # [P, K, D]

    squashed = [
        np.asarray(Image.fromarray(video[int(i * (count - 1) / 7)]).resize((size, size), 2))
        for i in range(8)
    ]
    pixels = (torch.tensor(np.stack(squashed)).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    embedding = functional.normalize(
        clip.get_submodule("visual")(pixels).mean(dim=0), dim=-1
    )  # [8, D] -> [D]
    classes = functional.normalize(templates.mean(dim=0), dim=-1)  # [K, D]
    expected = (100 * classes @ embedding).softmax(dim=-1)

    options = raw.Options.model_validate({"fusion": "mean", "test_sampler": "linspace"})
    model = raw.build(clip, options, 8)
    indices = SINGLE_CLIP_SAMPLERS[model.test_sampler](count, 8)
    views = ViewTransform(size, size, 1, model.pixels)(video[indices])  # [1, 8, 3, S, S]
    scores = model.score(model.encode(views)[None], class_text(templates))[0]
    torch.testing.assert_close(scores, expected, rtol=0, atol=2e-3)


def test_it_cannot_be_trained():
    model, _ = method("mean")
    labels = torch.tensor([0, 1])
    batch, text = Batch(labels=labels, texts=labels), class_text(torch.eye(2)[None])
    with pytest.raises(ConfigError, match=r"train\.epochs: the method raw .*; allowed: 0"):
        model.loss(torch.zeros(2, 128), batch, text)

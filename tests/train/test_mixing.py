"""Mixed clips and their targets; the numbers of the authors are in tests/golden."""

import numpy as np
import pytest
import torch

from clipzoo.config import AugmentConfig
from clipzoo.methods.parts.method import StepClips
from clipzoo.train.mixing import Mix, cut_box, draw_mix, mix_clips, mix_rows, smooth_targets

K, SIDE = 5, 16


def settings(**changes) -> AugmentConfig:
    values = {"mixup_alpha": 0.0, "cutmix_alpha": 0.0, "mix_group": 4, "label_smoothing": 0.0}
    return AugmentConfig.model_construct(**values | changes)


def step(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips of two frames whose pixels are all 10 i, and labels i modulo K."""
    clips = torch.arange(size, dtype=torch.uint8)[:, None, None, None, None] * 10
    return clips.expand(size, 2, 3, SIDE, SIDE), torch.arange(size) % K


def apply(
    size: int, places: list[int], number: int = 0, **changes: float
) -> tuple[torch.Tensor, torch.Tensor]:
    clips, labels = step(size)
    of_step = StepClips(seed=3, step=number, places=places)
    return mix_clips(clips[places], labels[places], of_step, K, settings(**changes))


@pytest.mark.parametrize("key", ["mixup_alpha", "cutmix_alpha", "label_smoothing"])
def test_each_of_three_options_makes_targets_soft(key):
    assert not settings().softens_targets
    assert settings(**{key: 0.1}).softens_targets


def test_smoothing_alone_leaves_the_frames():
    frames, targets = apply(6, [4, 5], label_smoothing=0.1)
    assert frames.dtype == torch.uint8
    expected = torch.full((2, K), 0.02)
    expected[0, 4] = expected[1, 0] = 0.92
    torch.testing.assert_close(targets, expected)


@pytest.mark.parametrize("alphas", [{"mixup_alpha": 0.8}, {"cutmix_alpha": 1.0}])
def test_targets_hold_as_much_of_each_class_as_the_pixels(alphas):
    """The mean pixel of clip i is that of its own and its partner's, by their shares."""
    for number in range(20):
        frames, targets = apply(4, [0, 1, 2, 3], number, **alphas)
        assert frames.dtype == torch.float32
        torch.testing.assert_close(targets.sum(dim=1), torch.ones(4))
        expected = targets[:, :4] @ torch.tensor([0.0, 10.0, 20.0, 30.0])
        torch.testing.assert_close(frames.mean(dim=(1, 2, 3, 4)), expected, atol=1e-4, rtol=0)


def test_a_group_is_mixed_alike_wherever_it_is_encoded():
    alphas = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "mix_group": 2, "label_smoothing": 0.1}
    frames, targets = apply(7, list(range(7)), 9, **alphas)
    for places in ([0, 1], [4, 5, 2, 3], [6]):
        some, some_targets = apply(7, places, 9, **alphas)
        assert torch.equal(some, frames[places])
        assert torch.equal(some_targets, targets[places])
    another, _ = apply(7, list(range(7)), 10, **alphas)
    assert not torch.equal(another, frames), "each step draws again"


def test_clips_are_mixed_within_their_group_only():
    for number in range(10):
        _, targets = apply(5, [0, 1, 2, 3, 4], number, mixup_alpha=0.8, mix_group=2)
        assert float(targets[:2, 2:].sum() + targets[2:4, :2].sum()) == 0
        assert float(targets[2:4, 4].sum()) == 0
        assert targets[4].tolist() == [0, 0, 0, 0, 1], "the last one has no partner"


def test_mixup_and_cutmix_are_drawn_alike_and_by_their_betas():
    rng = np.random.default_rng(0)
    both = settings(mixup_alpha=0.8, cutmix_alpha=1.0)
    mixes = [draw_mix(4, SIDE, SIDE, both, rng) for _ in range(4000)]
    shares = [mix.share for mix in mixes if mix.box is None]
    assert len(shares) == pytest.approx(2000, abs=130)
    # Beta(a, a) has the mean 1/2 and the variance 1 / (4 (2 a + 1)).
    assert np.mean(shares) == pytest.approx(0.5, abs=0.03)
    assert np.var(shares) == pytest.approx(1 / 10.4, rel=0.08)
    first = [mix.partners[0] for mix in mixes]
    assert np.bincount(first) == pytest.approx([1000] * 4, abs=130)
    assert all(draw_mix(4, 8, 8, settings(mixup_alpha=1.0), rng).box is None for _ in range(9))
    assert all(draw_mix(4, 8, 8, settings(cutmix_alpha=1.0), rng).box for _ in range(9))


@pytest.mark.parametrize(
    ("width", "height", "share", "center", "box"),
    [
        (224, 224, 0.75, (10, 112), (0, 56, 66, 168)),
        (224, 224, 0.0, (112, 112), (0, 0, 224, 224)),
        (224, 224, 1.0, (5, 5), (5, 5, 5, 5)),
        (40, 20, 0.75, (39, 10), (29, 5, 40, 15)),
    ],
)
def test_boxes_are_cut_off_at_the_borders(width, height, share, center, box):
    assert cut_box(width, height, share, center) == box


def test_rows_are_mixed_with_their_partners():
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
    mixed = mix_rows(rows, Mix(partners=[1, 2, 0], share=0.75, box=None))
    assert mixed.tolist() == [[0.75, 0.25], [1.25, 2.0], [4.0, 3.75]]


def test_one_hot_targets_without_smoothing():
    assert smooth_targets(torch.tensor([1]), 3, 0.0).tolist() == [[0, 1, 0]]

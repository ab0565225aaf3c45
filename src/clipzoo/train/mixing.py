"""Mixup, CutMix and label smoothing: clips are mixed with each other, and so are their targets.

Papers: mixup (Zhang et al., arXiv 1710.09412), CutMix (Yun et al., arXiv 1905.04899). A group of
clips that follow each other in a step shares one draw. With the shares `lam` of clip i and of its
partner p(i), a permutation within the group, and y the smoothed targets:

    mixup:  x_i <- lam x_i + (1 - lam) x_p(i)      lam ~ Beta(alpha, alpha)
    CutMix: a box of x_i <- that of x_p(i)         lam ~ Beta, then the share outside the box
    both:   y_i <- lam y_i + (1 - lam) y_p(i)
    y_ik = 1 - smoothing + smoothing / K at the label, smoothing / K elsewhere

All frames of a clip share the box. As in ViFi-CLIP's code (datasets/blending.py, after MMAction2),
where the group is the micro-batch of a process. Deviations: a group is one of the step, so that
nothing depends on processes and micro-batches; the random numbers are NumPy's; pixels are mixed
before their normalization, which a weighted mean commutes with.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from clipzoo.config import AugmentConfig
from clipzoo.methods.parts.method import StepClips
from clipzoo.tensors import send_indices

_MIXING = 3
"""Fourth number of the seed of a group's draw, so that no other draw has the same seed."""


@dataclass(frozen=True, kw_only=True)
class Mix:
    """How the clips of a group are mixed."""

    partners: list[int]
    """The partner of each clip: a permutation of 0 .. clips - 1."""
    share: float
    """The share of each clip itself in its target, and in its pixels without a box; 0 to 1."""
    box: tuple[int, int, int, int] | None
    """CutMix: the pixels x0 <= x < x1 and y0 <= y < y1 of (x0, y0, x1, y1) are the partner's."""


def draw_mix(
    num_clips: int, width: int, height: int, settings: AugmentConfig, rng: np.random.Generator
) -> Mix:
    """Draw how a group of clips of these sizes (px) is mixed; one of the two alphas is not 0."""
    cut = settings.cutmix_alpha > 0
    if cut and settings.mixup_alpha:
        cut = rng.random() < 0.5
    alpha = settings.cutmix_alpha if cut else settings.mixup_alpha
    share = float(rng.beta(alpha, alpha))
    partners = rng.permutation(num_clips).tolist()
    if not cut:
        return Mix(partners=partners, share=share, box=None)
    center = int(rng.integers(width)), int(rng.integers(height))
    box = cut_box(width, height, share, center)
    left, top, right, bottom = box
    outside = 1 - (right - left) * (bottom - top) / (width * height)
    return Mix(partners=partners, share=outside, box=box)


def cut_box(
    width: int, height: int, share: float, center: tuple[int, int]
) -> tuple[int, int, int, int]:
    """The box (x0, y0, x1, y1) of CutMix, cut off at the borders of the frame.

    Its sides are sqrt(1 - share) of the frame's, rounded down to even numbers of px.

    Example: 224x224, share 0.75, center (10, 112): sides 112, so (0, 56, 66, 168).
    """
    cut = (1 - share) ** 0.5
    half_width, half_height = int(width * cut) // 2, int(height * cut) // 2
    x, y = center
    return (
        max(x - half_width, 0),
        max(y - half_height, 0),
        min(x + half_width, width),
        min(y + half_height, height),
    )


def smooth_targets(labels: Tensor, num_classes: int, smoothing: float) -> Tensor:
    """Targets [b, K] float32 of labels [b] int64: rows sum to 1."""
    off = smoothing / num_classes
    targets = torch.full((len(labels), num_classes), off, device=labels.device)
    return targets.scatter_(1, labels[:, None], 1 - smoothing + off)


def mix_rows(rows: Tensor, mix: Mix) -> Tensor:
    """lam x + (1 - lam) x of the partner, of float rows [n, ...] of one group, or with the box of
    frames [n, T, 3, S, S] replaced."""
    partners = send_indices(mix.partners, rows.device)
    if mix.box is None:
        return mix.share * rows + (1 - mix.share) * rows[partners]
    left, top, right, bottom = mix.box
    mixed = rows.clone()
    mixed[..., top:bottom, left:right] = rows[partners][..., top:bottom, left:right]
    return mixed


def mix_clips(
    inputs: Tensor, labels: Tensor, clips: StepClips, num_classes: int, settings: AugmentConfig
) -> tuple[Tensor, Tensor]:
    """Mixed clips and their targets.

    Args:
        inputs: uint8 frames [b, T, 3, S, S], on the device.
        labels: [b] int64, on the device.
        clips: which ones of the step they are; whole groups of it.
        num_classes: K.
        settings: how clips are mixed; one of these options is on.

    Returns:
        float32 frames in 0 .. 255 (uint8 if only labels are smoothed), and [b, K] float32.
    """
    targets = smooth_targets(labels, num_classes, settings.label_smoothing)
    if not settings.mixes:
        return inputs, targets
    mixed_frames, mixed_targets = [], []
    height, width = inputs.shape[-2:]
    for rows, rng in _groups(clips, settings.mix_group):
        mix = draw_mix(rows.stop - rows.start, width, height, settings, rng)
        mixed_frames.append(mix_rows(inputs[rows].float(), mix))
        mixed_targets.append(mix_rows(targets[rows], replace(mix, box=None)))
    return torch.cat(mixed_frames), torch.cat(mixed_targets)  # [b, T, 3, S, S], [b, K]


def _groups(clips: StepClips, size: int) -> Iterator[tuple[slice, np.random.Generator]]:
    """The rows of each group, and what it draws with: a function of seed, step and group."""
    start = 0
    for row in range(1, len(clips.places) + 1):
        group = clips.places[start] // size
        if row == len(clips.places) or clips.places[row] // size != group:
            rng = np.random.default_rng([clips.seed, clips.step, group, _MIXING])
            yield slice(start, row), rng
            start = row

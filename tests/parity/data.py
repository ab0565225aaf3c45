"""Sampling, learning rates and preprocessing."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from clipzoo.clips import sampling, transforms
from clipzoo.config import TrainConfig
from clipzoo.train.optim import schedule_factor
from parity.inputs import Case
from tiny import normalize


def sample_indices(
    *, num_frames: int, num_segments: int, num_clips: int = 1, dense: bool = False
) -> Case:
    """Frame numbers (from 1) of the clips of a video, clip after clip."""
    indices = sampling.sample_test(num_frames, num_segments, num_clips, dense)  # [V, T]
    return {"indices": indices.ravel() + 1}  # [V, T] -> [V T]


def sample_dense_indices(*, num_frames: int, num_segments: int, num_clips: int) -> Case:
    """`sample_indices` of dense 128-frame windows."""
    return sample_indices(
        num_frames=num_frames, num_segments=num_segments, num_clips=num_clips, dense=True
    )


def inclusive_ranges(*, num_frames: int, num_segments: int) -> Case:
    """First and last frame number (from 1) that BIKE's training may draw for each segment."""
    ranges = sampling.inclusive_ranges(num_frames, num_segments)
    return {"ranges": [[first + 1, last + 1] for first, last in ranges]}


def segment_centers(*, num_frames: int, num_segments: int) -> Case:
    """Frame numbers (from 1) of the centers of a video's parts, with which ActionCLIP tests."""
    return {"indices": sampling.sample_centers(num_frames, num_segments) + 1}  # [T]


def multi_scale_pairs(*, width: int, height: int, size: int) -> Case:
    """Widths and heights (px) among which ActionCLIP's multi-scale crop chooses, in order."""
    return {"pairs": [list(pair) for pair in transforms.multi_scale_pairs(width, height, size)]}


def learning_rates(
    *,
    base_lr: float,
    clip_ratio: float,
    epochs: int,
    warmup_epochs: float,
    iterations_per_epoch: int,
    update_every: int,
    milestones: Sequence[float] = (),
    gamma: float = 0.1,
) -> Case:
    """[iteration, rate of the vision tower, rate of the head] at every 7th iteration.

    The schedule is multistep if there are milestones, else cosine.
    """
    settings = TrainConfig.model_construct(  # some cases have fractions of an epoch
        epochs=epochs,
        warmup_epochs=warmup_epochs,
        schedule="multistep" if milestones else "cosine",
        steps_per_lr_update=update_every,
        milestones=milestones,
        gamma=gamma,
        warmup_start_share=0.0,
        min_lr_share=0.0,
    )
    values = []
    for step in range(0, epochs * iterations_per_epoch, 7):
        lr = base_lr * schedule_factor(step, iterations_per_epoch, settings)
        values.append([step, lr * clip_ratio, lr])
    return {"values": values}


def preprocess(
    *,
    frame_seed: int,
    width: int,
    height: int,
    num_crops: int,
    scale: int,
    size: int,
    num_frames: int,
    probe_yx: list[list[int]],
) -> Case:
    """Crops of an image of waves in three colors: shape, mean of each frame, and single pixels.

    Args:
        frame_seed: of frame 0; frame i has frame_seed + i.
        width: of the frames (px), as are height, scale (short side) and size (of the crops).
        height: of the frames.
        num_crops: 1, 3, 5 or 10.
        scale: short side after resizing.
        size: of the crops.
        num_frames: T.
        probe_yx: places of the pixels in a crop.
    """
    frames = moving_waves(frame_seed, width, height, num_frames)  # [T, H, W, 3]
    views = transforms.ViewTransform(size, scale, num_crops)(frames)  # [crops, T, 3, size, size]
    views = normalize(views)  # [crops, T, 3, size, size]
    y, x = torch.tensor(probe_yx).T  # [probes], [probes]
    return {
        "shape": list(views.shape),
        "mean": views.mean(dim=(2, 3, 4)),  # [crops, T]
        "probe": views[..., y, x].transpose(2, 3),  # [crops, T, probes, 3]
    }


def moving_waves(seed: int, width: int, height: int, num_frames: int) -> np.ndarray:
    """A clip [T, H, W, 3]: frame i is the `waves` of seed + i."""
    return np.stack([waves(seed + i, width, height) for i in range(num_frames)])


def probed(clip: Tensor, probe_yx: list[list[int]]) -> Case:
    """The means of each frame and color, and the pixels at some places, of [T, 3, S, S]."""
    y, x = torch.tensor(probe_yx).T  # [probes] each
    return {
        "mean": clip.double().mean(dim=(2, 3)),  # [T, 3, S, S] -> [T, 3]
        "probe": clip[..., y, x].transpose(1, 2),  # [T, 3, probes] -> [T, probes, 3]
    }


def waves(seed: int, width: int, height: int) -> np.ndarray:
    """A smooth test image, uint8 [H, W, 3]."""
    rs = np.random.RandomState(seed)
    f, p = rs.uniform(0.01, 0.08, (3, 4)), rs.uniform(0, 6.28, (3, 2))
    y, x = np.mgrid[:height, :width][..., None]  # [H, W, 1] each
    # [H, W, 1] against [3]
    first = np.sin(f[:, 0] * x + f[:, 1] * y + p[:, 0])
    second = np.cos(f[:, 2] * x - f[:, 3] * y + p[:, 1])
    return np.clip(np.round(127 + 60 * first + 60 * second), 0, 255).astype(np.uint8)

"""Schedules, mixed clips and augmented clips of the methods that train by them."""

from typing import Any, cast

import numpy as np

from clipzoo.clips.transforms import TrainTransform
from clipzoo.config import AugmentConfig, TrainConfig
from clipzoo.train.mixing import Mix, cut_box, mix_rows, smooth_targets
from clipzoo.train.optim import schedule_factor
from parity.data import moving_waves, probed
from parity.inputs import Case, draw_labels, noise


def iteration_rates(
    *,
    schedule: str,
    base_lr: float,
    epochs: int,
    warmup_epochs: int,
    iterations_per_epoch: int,
    min_lr_share: float,
    warmup_start_share: float,
) -> Case:
    """The learning rate of every iteration."""
    settings = TrainConfig.model_construct(
        schedule=cast(Any, schedule),
        epochs=epochs,
        warmup_epochs=warmup_epochs,
        min_lr_share=min_lr_share,
        warmup_start_share=warmup_start_share,
        steps_per_lr_update=1,
    )
    steps = range(epochs * iterations_per_epoch)
    factors = [schedule_factor(step, iterations_per_epoch, settings) for step in steps]
    return {"rates": [base_lr * factor for factor in factors]}


def cut_boxes(*, draws: list[tuple[int, int, float, tuple[int, int]]]) -> Case:
    """The boxes of CutMix for [width, height, share, center]."""
    return {"boxes": [list(cut_box(*draw)) for draw in draws]}


def mixed_clips(
    *,
    input_seed: int,
    label_seed: int,
    num_classes: int,
    num_clips: int,
    num_frames: int,
    width: int,
    height: int,
    smoothing: float,
    partners: list[int],
    share: float,
    center: tuple[int, int] | None = None,
) -> Case:
    """Clips of noise and their targets, mixed; with a center by CutMix, whose box is an output."""
    clips = noise(input_seed, num_clips, num_frames, 3, height, width)
    labels = draw_labels(label_seed, num_clips, num_classes)
    box, outputs = None, {}
    if center is not None:
        box = cut_box(width, height, share, center)
        share = 1 - (box[2] - box[0]) * (box[3] - box[1]) / (width * height)
        outputs["box"] = list(box)
    targets = smooth_targets(labels, num_classes, smoothing)
    mixed = mix_rows(clips, Mix(partners=partners, share=share, box=box))
    outputs["targets"] = mix_rows(targets, Mix(partners=partners, share=share, box=None))
    outputs["sums"] = mixed.double().sum(dim=(2, 3, 4))  # [b, T, 3, S, S] -> [b, T]
    probes = [(0, 0), (3, 5), (5, 7), (9, 13), (8, 2)]
    outputs["probe"] = [
        [mixed[i, 1, i % 3, y, x].item() for y, x in probes] for i in range(num_clips)
    ]
    return outputs


class _Draws:
    """Stands for the generator of a clip, with draws that are given."""

    def __init__(self, case: Case) -> None:
        self._integers = iter([case["pair"], case["place"]])
        # Flip, jitter and gray happen below their probabilities.
        self._random = iter([0.0 if case[key] else 0.99 for key in ("flip", "jitter", "gray")])
        jitter = case["jitter"] or []
        properties = ("brightness", "contrast", "saturation", "hue")
        self._uniform = iter([frame[key] for frame in jitter for key in properties])
        self._orders = iter([[properties.index(k) for k in frame["order"]] for frame in jitter])

    def integers(self, _: int) -> int:
        return next(self._integers)

    def random(self) -> float:
        return next(self._random)

    def uniform(self, _low: float, _high: float) -> float:
        return next(self._uniform)

    def permutation(self, _: int) -> list[int]:
        return next(self._orders)


def augmented_clip(
    *,
    frame_seed: int,
    width: int,
    height: int,
    num_frames: int,
    short_side_px: int,
    size: int,
    pair: int,
    place: int,
    flip: bool,
    jitter: list[dict[str, Any]] | None,
    gray: bool,
    probe_yx: list[list[int]],
) -> Case:
    """A clip of waves in three colors after ViFi-CLIP's augmentation: means, and single pixels.

    Args:
        frame_seed: of frame 0; frame i has frame_seed + i.
        width: of the frames (px), as are height, short_side_px (after resizing) and size.
        height: of the frames.
        num_frames: T.
        short_side_px: of the resize before the crop.
        size: of the clip.
        pair: number of the window's size, and place of its place.
        place: see pair.
        flip: whether the clip is flipped, and gray whether it turns gray.
        jitter: the changes of each frame and their order; None = no color jitter.
        gray: see flip.
        probe_yx: places of the pixels.
    """
    augment = AugmentConfig.model_construct(
        randaugment_n=0,
        short_side_px=short_side_px,
        crop="multi_scale_5",
        flip=0.5,
        color_jitter=0.8,
        grayscale=0.2,
    )
    draws = {"pair": pair, "place": place, "flip": flip, "jitter": jitter, "gray": gray}
    frames = moving_waves(frame_seed, width, height, num_frames)
    rng = cast(np.random.Generator, _Draws(draws))
    return probed(TrainTransform(size, augment)(frames, rng), probe_yx)

"""Random changes of colors and shapes of single frames: RandAugment and color jitter.

Both draw again for every frame of a clip, and give the pixels of Pillow, with which the authors of
ActionCLIP compute (arXiv 2109.08472; utils/Augmentation.py and datasets/transforms_ss.py of
sallymmx/ActionCLIP). Deviation: the random numbers come from the clip's own generator, so they
differ from the authors'.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image

from clipzoo.clips import colors

MAX_MAGNITUDE = 30
CUTOUT_COLOR = (125, 123, 114)
JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1}
"""Largest change of each property, as in ActionCLIP."""

Jitter = list[tuple[str, float]]
"""Keys of `JITTER`, each with the drawn change."""
Operation = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
"""Frame uint8 [H, W, 3], value, generator -> frame."""


def _signed(value: float, rng: np.random.Generator) -> float:
    return -value if rng.random() > 0.5 else value


def _shifted(frame: np.ndarray, x: float, y: float) -> np.ndarray:
    """Output pixel (i, j) is the input pixel (i + x, j + y), or black; halves are rounded up."""
    height, width = frame.shape[:2]
    right, down = math.floor(x + 0.5), math.floor(y + 0.5)
    moved = np.zeros_like(frame)
    inside = frame[max(0, down) : max(0, height + down), max(0, right) : max(0, width + right)]
    top, left = max(0, -down), max(0, -right)
    moved[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return moved


def _moved(frame: np.ndarray, kind: str, value: float) -> np.ndarray:
    """Each pixel of the output is one of the frame or black, as `_sources` has it."""
    height, width = frame.shape[:2]
    pixels = np.zeros(1 + height * width, np.uint32)  # black, and the frame, 4 bytes a pixel
    cv2.cvtColor(frame, cv2.COLOR_RGB2RGBA, dst=_four_bytes(pixels[1:], height, width))
    moved = pixels.take(_sources(kind, value, height, width))  # [H, W]
    return cv2.cvtColor(_four_bytes(moved, height, width), cv2.COLOR_RGBA2RGB)


def _four_bytes(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    return pixels.view(np.uint8).reshape(height, width, 4)


@lru_cache(maxsize=24)  # 3 kinds and 2 signs for each size of frames, 0.3 MB each at 340x256
def _sources(kind: str, value: float, height: int, width: int) -> np.ndarray:
    """The pixel that each pixel of a rotated or sheared frame is taken from, int32 [H, W].

    They count from 1, row by row; 0 = none. Pillow itself moves an image of these numbers.
    """
    numbers = np.arange(1, 1 + height * width, dtype=np.int32).reshape(height, width)
    image = Image.fromarray(numbers)
    if kind == "rotate":
        return np.asarray(image.rotate(value))
    across, down = (value, 0.0) if kind == "shear_x" else (0.0, value)
    # Output pixel (x, y) is the input pixel nearest to (x + across * y, down * x + y).
    inverse = (1, across, 0, down, 1, 0)
    return np.asarray(image.transform(image.size, Image.Transform.AFFINE, inverse))


def _cutout(frame: np.ndarray, value: float, rng: np.random.Generator) -> np.ndarray:
    """A square of `value` px in one color; its last pixels are drawn too, as Pillow does."""
    height, width = frame.shape[:2]
    x, y = (int(max(0.0, rng.uniform(1, side) - value / 2)) for side in (width, height))
    cut = frame.copy()
    cut[y : int(y + value) + 1, x : int(x + value) + 1] = CUTOUT_COLOR
    return cut


OPERATIONS: dict[str, tuple[Operation, float, float]] = {
    "AutoContrast": (lambda frame, v, _: colors.autocontrast(frame), 0, 1),
    "Equalize": (lambda frame, v, _: colors.equalize(frame), 0, 1),
    "Invert": (lambda frame, v, _: ~frame, 0, 1),
    "Rotate": (lambda frame, v, rng: _moved(frame, "rotate", _signed(v, rng)), 0, 30),  # degrees
    "Posterize": (lambda frame, v, _: colors.posterize(frame, max(1, int(v))), 0, 4),  # bits
    "Solarize": (lambda frame, v, _: colors.solarize(frame, 0, math.ceil(v)), 0, 256),
    "SolarizeAdd": (lambda frame, v, _: colors.solarize(frame, int(v), 128), 0, 110),
    "Color": (lambda frame, v, _: colors.saturation(frame, v), 0.1, 1.9),
    "Contrast": (lambda frame, v, _: colors.contrast(frame, v), 0.1, 1.9),
    "Brightness": (lambda frame, v, _: colors.brightness(frame, v), 0.1, 1.9),
    "Sharpness": (lambda frame, v, _: colors.sharpness(frame, v), 0.1, 1.9),
    "ShearX": (lambda frame, v, rng: _moved(frame, "shear_x", _signed(v, rng)), 0, 0.3),
    "ShearY": (lambda frame, v, rng: _moved(frame, "shear_y", _signed(v, rng)), 0, 0.3),
    "CutoutAbs": (_cutout, 0, 40),  # px, as the shifts
    "TranslateXabs": (lambda frame, v, rng: _shifted(frame, _signed(v, rng), 0), 0, 100),
    "TranslateYabs": (lambda frame, v, rng: _shifted(frame, 0, _signed(v, rng)), 0, 100),
}
"""Name -> operation, and its value v at magnitude 0 and at magnitude 30."""


def randaugment(
    frame: np.ndarray, num_operations: int, magnitude: int, rng: np.random.Generator
) -> np.ndarray:
    """RandAugment of a frame uint8 [H, W, 3]: N operations drawn with replacement, in turn.

    Source: arXiv 1909.13719, in the implementation that ActionCLIP's authors use (RandAugment of
    ildoonet/pytorch-randaugment, augmentations.py, lines 161-204 and 252-264). There the magnitude
    is not drawn, colors only fade (factors below 1 at magnitude 9), and Posterize keeps one bit.

    Args:
        num_operations: N, 1 or more.
        magnitude: M, 0 to 30: the value of an operation lies at M / 30 between its two ends.
        rng: draws the operations, the signs of shifts and angles, and the place of a cutout.
    """
    operations = list(OPERATIONS.values())
    for number in rng.integers(len(operations), size=num_operations):
        operation, low, high = operations[number]
        frame = operation(frame, magnitude / MAX_MAGNITUDE * (high - low) + low, rng)
    return frame


def draw_jitter(rng: np.random.Generator) -> Jitter:
    """Changes of brightness, contrast, saturation and hue, in a random order.

    Source: torchvision's ColorJitter(0.4, 0.4, 0.2, 0.1) on PIL images, as ActionCLIP calls it for
    every frame (datasets/transforms_ss.py, line 382).
    """
    changes = [(key, rng.uniform(-change, change)) for key, change in JITTER.items()]
    return [changes[number] for number in rng.permutation(len(changes))]


def color_jitter(frame: np.ndarray, changes: Jitter) -> np.ndarray:
    """Change the colors of a frame uint8 [H, W, 3], one property after the other."""
    for key, change in changes:
        frame = jitter_operation(frame, key, change)
    return frame


def jitter_operation(frame: np.ndarray, key: str, change: float) -> np.ndarray:
    """One change of `JITTER`: the hue turns by a share of the circle, others times 1 + change."""
    if key == "hue":
        return colors.turn_hue(frame, change)
    enhance = {
        "brightness": colors.brightness,
        "contrast": colors.contrast,
        "saturation": colors.saturation,
    }
    return enhance[key](frame, 1 + change)

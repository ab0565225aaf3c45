"""Random changes of colors and shapes of single frames: RandAugment and color jitter.

Both draw again for every frame of a clip, and compute with PIL, as the authors of ActionCLIP do
(arXiv 2109.08472; utils/Augmentation.py and datasets/transforms_ss.py of sallymmx/ActionCLIP).
Deviation: the random numbers come from the clip's own generator, so they differ from the authors'.
"""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

MAX_MAGNITUDE = 30
CUTOUT_COLOR = (125, 123, 114)
JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1}
"""Largest change of each property, as in ActionCLIP."""

Operation = Callable[[Image.Image, float, np.random.Generator], Image.Image]


def _signed(value: float, rng: np.random.Generator) -> float:
    return -value if rng.random() > 0.5 else value


def _affine(image: Image.Image, *inverse: float) -> Image.Image:
    """Output pixel (x, y) is the input pixel nearest to (a x + b y + c, d x + e y + f), or black.

    `inverse` holds a to f: it maps the output to the input.
    """
    return image.transform(image.size, Image.Transform.AFFINE, inverse)


def _solarize_add(image: Image.Image, value: float, rng: np.random.Generator) -> Image.Image:
    brighter = image.point([min(i + int(value), 255) for i in range(256)] * 3)
    return ImageOps.solarize(brighter, 128)


def _cutout(image: Image.Image, value: float, rng: np.random.Generator) -> Image.Image:
    """A square of `value` px in one color; PIL draws the first and the last pixel of a side."""
    width, height = image.size
    x, y = (int(max(0.0, rng.uniform(1, side) - value / 2)) for side in (width, height))
    cut = image.copy()
    ends = (min(width, x + value), min(height, y + value))
    ImageDraw.Draw(cut).rectangle((x, y, *ends), CUTOUT_COLOR)
    return cut


OPERATIONS: dict[str, tuple[Operation, float, float]] = {
    "AutoContrast": (lambda image, v, _: ImageOps.autocontrast(image), 0, 1),
    "Equalize": (lambda image, v, _: ImageOps.equalize(image), 0, 1),
    "Invert": (lambda image, v, _: ImageOps.invert(image), 0, 1),
    "Rotate": (lambda image, v, rng: image.rotate(_signed(v, rng)), 0, 30),  # degrees
    "Posterize": (lambda image, v, _: ImageOps.posterize(image, max(1, int(v))), 0, 4),  # bits
    "Solarize": (lambda image, v, _: ImageOps.solarize(image, math.ceil(v)), 0, 256),
    "SolarizeAdd": (_solarize_add, 0, 110),
    "Color": (lambda image, v, _: ImageEnhance.Color(image).enhance(v), 0.1, 1.9),
    "Contrast": (lambda image, v, _: ImageEnhance.Contrast(image).enhance(v), 0.1, 1.9),
    "Brightness": (lambda image, v, _: ImageEnhance.Brightness(image).enhance(v), 0.1, 1.9),
    "Sharpness": (lambda image, v, _: ImageEnhance.Sharpness(image).enhance(v), 0.1, 1.9),
    "ShearX": (lambda image, v, rng: _affine(image, 1, _signed(v, rng), 0, 0, 1, 0), 0, 0.3),
    "ShearY": (lambda image, v, rng: _affine(image, 1, 0, 0, _signed(v, rng), 1, 0), 0, 0.3),
    "CutoutAbs": (_cutout, 0, 40),  # px, as the shifts
    "TranslateXabs": (lambda image, v, rng: _affine(image, 1, 0, _signed(v, rng), 0, 1, 0), 0, 100),
    "TranslateYabs": (lambda image, v, rng: _affine(image, 1, 0, 0, 0, 1, _signed(v, rng)), 0, 100),
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
    image = Image.fromarray(frame)
    operations = list(OPERATIONS.values())
    for number in rng.integers(len(operations), size=num_operations):
        operation, low, high = operations[number]
        image = operation(image, magnitude / MAX_MAGNITUDE * (high - low) + low, rng)
    return np.array(image)  # asarray would be read-only


def color_jitter(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change brightness, contrast, saturation and hue of a frame uint8 [H, W, 3] at random.

    The order is random too. Source: torchvision's ColorJitter(0.4, 0.4, 0.2, 0.1) on PIL images, as
    ActionCLIP calls it for every frame (datasets/transforms_ss.py, line 382).
    """
    image = Image.fromarray(frame)
    draws = {key: float(rng.uniform(-change, change)) for key, change in JITTER.items()}
    for key in rng.permutation(list(JITTER)):
        image = jitter_operation(image, key, draws[key])
    return np.array(image)  # asarray would be read-only


def jitter_operation(image: Image.Image, key: str, change: float) -> Image.Image:
    """One change of `JITTER`: the hue turns by a share of the circle, others times 1 + change."""
    if key == "hue":
        # PIL stores the circle of hues as 0 to 255; turning it wraps around.
        hue, saturation, value = image.convert("HSV").split()
        turned = hue.point([(i + int(255 * change)) % 256 for i in range(256)])
        return Image.merge("HSV", (turned, saturation, value)).convert("RGB")
    enhancers = {
        "brightness": ImageEnhance.Brightness,
        "contrast": ImageEnhance.Contrast,
        "saturation": ImageEnhance.Color,
    }
    return enhancers[key](image).enhance(1 + change)

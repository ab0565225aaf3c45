"""Random changes of colours and shapes of single frames: RandAugment and colour jitter.

Both draw again for every frame of a clip, and compute with PIL, as the authors of ActionCLIP do
(arXiv 2109.08472; utils/Augmentation.py and datasets/transforms_ss.py of sallymmx/ActionCLIP).
Deviation: the random numbers come from the clip's generator, so they are others.
"""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

MAX_MAGNITUDE = 30
CUTOUT_COLOUR = (125, 123, 114)
JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1}
"""Largest change of each; ActionCLIP's."""

Operation = Callable[[Image.Image, float, np.random.Generator], Image.Image]


def _autocontrast(image: Image.Image, value: float, rng: np.random.Generator) -> Image.Image:
    return ImageOps.autocontrast(image)


def _equalize(image: Image.Image, value: float, rng: np.random.Generator) -> Image.Image:
    return ImageOps.equalize(image)


def _invert(image: Image.Image, value: float, rng: np.random.Generator) -> Image.Image:
    return ImageOps.invert(image)


def _rotate(image: Image.Image, value: float, rng: np.random.Generator) -> Image.Image:
    return image.rotate(_signed(value, rng))  # degrees; nearest pixel, black outside


def _posterize(image: Image.Image, value: float, rng: np.random.Generator) -> Image.Image:
    return ImageOps.posterize(image, max(1, int(value)))  # bits of a channel


def _solarize(image: Image.Image, value: float, rng: np.random.Generator) -> Image.Image:
    return ImageOps.solarize(image, math.ceil(value))


def _solarize_add(image: Image.Image, value: float, rng: np.random.Generator) -> Image.Image:
    brighter = image.point([min(i + int(value), 255) for i in range(256)] * 3)
    return ImageOps.solarize(brighter, 128)


def _color(image: Image.Image, value: float, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Color(image).enhance(value)


def _contrast(image: Image.Image, value: float, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(value)


def _brightness(image: Image.Image, value: float, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(value)


def _sharpness(image: Image.Image, value: float, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Sharpness(image).enhance(value)


def _shear_x(image: Image.Image, value: float, rng: np.random.Generator) -> Image.Image:
    return _affine(image, (1, _signed(value, rng), 0, 0, 1, 0))


def _shear_y(image: Image.Image, value: float, rng: np.random.Generator) -> Image.Image:
    return _affine(image, (1, 0, 0, _signed(value, rng), 1, 0))


def _translate_x(image: Image.Image, value: float, rng: np.random.Generator) -> Image.Image:
    return _affine(image, (1, 0, _signed(value, rng), 0, 1, 0))  # px


def _translate_y(image: Image.Image, value: float, rng: np.random.Generator) -> Image.Image:
    return _affine(image, (1, 0, 0, 0, 1, _signed(value, rng)))


def _cutout(image: Image.Image, value: float, rng: np.random.Generator) -> Image.Image:
    """A square of `value` px in one colour, its first and last pixels included."""
    width, height = image.size
    x, y = (int(max(0.0, rng.uniform(1, side) - value / 2)) for side in (width, height))
    cut = image.copy()
    ends = (min(width, x + value), min(height, y + value))
    ImageDraw.Draw(cut).rectangle((x, y, *ends), CUTOUT_COLOUR)
    return cut


def _affine(
    image: Image.Image, inverse: tuple[float, float, float, float, float, float]
) -> Image.Image:
    """Output pixel (x, y) is input pixel (a x + b y + c, d x + e y + f), the nearest, or black."""
    return image.transform(image.size, Image.Transform.AFFINE, inverse)


def _signed(value: float, rng: np.random.Generator) -> float:
    return -value if rng.random() > 0.5 else value


OPERATIONS: dict[str, tuple[Operation, float, float]] = {
    "AutoContrast": (_autocontrast, 0, 1),
    "Equalize": (_equalize, 0, 1),
    "Invert": (_invert, 0, 1),
    "Rotate": (_rotate, 0, 30),
    "Posterize": (_posterize, 0, 4),
    "Solarize": (_solarize, 0, 256),
    "SolarizeAdd": (_solarize_add, 0, 110),
    "Color": (_color, 0.1, 1.9),
    "Contrast": (_contrast, 0.1, 1.9),
    "Brightness": (_brightness, 0.1, 1.9),
    "Sharpness": (_sharpness, 0.1, 1.9),
    "ShearX": (_shear_x, 0.0, 0.3),
    "ShearY": (_shear_y, 0.0, 0.3),
    "CutoutAbs": (_cutout, 0, 40),
    "TranslateXabs": (_translate_x, 0.0, 100),
    "TranslateYabs": (_translate_y, 0.0, 100),
}
"""Name -> operation, and its values at the magnitudes 0 and 30."""


def randaugment(
    frame: np.ndarray, num_operations: int, magnitude: int, rng: np.random.Generator
) -> np.ndarray:
    """RandAugment: some operations drawn with replacement, one after the other.

    Source: arXiv 1909.13719, in the implementation that ActionCLIP's authors use (RandAugment of
    ildoonet/pytorch-randaugment, augmentations.py, lines 161-204 and 252-264). There the magnitude
    is not drawn, colours only fade (factors below 1 at magnitude 9), and Posterize keeps one bit.

    Args:
        frame: uint8 [H, W, 3].
        num_operations: N, 1 or more.
        magnitude: M, 0 to 30.
        rng: draws the operations, the signs of shifts and angles, and the place of a cutout.

    Returns:
        uint8 [H, W, 3].
    """
    image = Image.fromarray(frame)
    operations = list(OPERATIONS.values())
    for number in rng.integers(len(operations), size=num_operations):
        operation, low, high = operations[number]
        image = operation(image, magnitude / MAX_MAGNITUDE * (high - low) + low, rng)
    return np.array(image)  # asarray would be read-only


def color_jitter(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change brightness, contrast, saturation and hue by random factors, in random order.

    Source: torchvision's ColorJitter(0.4, 0.4, 0.2, 0.1) on PIL images, as ActionCLIP calls it for
    every frame (datasets/transforms_ss.py, line 382).

    Args:
        frame: uint8 [H, W, 3].
        rng: draws the order and the factors.

    Returns:
        uint8 [H, W, 3].
    """
    image = Image.fromarray(frame)
    draws = {key: float(rng.uniform(-change, change)) for key, change in JITTER.items()}
    for key in rng.permutation(list(JITTER)):
        image = jitter_operation(image, key, draws[key])
    return np.array(image)  # asarray would be read-only


def jitter_operation(image: Image.Image, key: str, change: float) -> Image.Image:
    """One change of `JITTER`: of the hue by a share of the circle, of others by 1 + change."""
    if key == "hue":
        hue, saturation, value = image.convert("HSV").split()
        turned = hue.point([(i + int(255 * change)) % 256 for i in range(256)])
        return Image.merge("HSV", (turned, saturation, value)).convert("RGB")
    enhancers = {
        "brightness": ImageEnhance.Brightness,
        "contrast": ImageEnhance.Contrast,
        "saturation": ImageEnhance.Color,
    }
    return enhancers[key](image).enhance(1 + change)

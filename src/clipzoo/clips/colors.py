"""Changes of the colors of a frame uint8 [H, W, 3], with the very pixels of Pillow, but faster.

A change that maps each value of a channel to another one is a table; so is the hue, of which Pillow
itself computes all values once. What remains is float32 arithmetic of OpenCV and NumPy, exact or in
the order of Pillow's.
"""

from functools import cache

import cv2
import numpy as np
from PIL import Image

HUE_PLACES = [
    256 * np.array([[*weights, 255 + number * 511]], np.float32)
    for number, weights in ((2, (1, -1, 0)), (1, (-1, 0, 1)), (0, (0, 1, -1)))
]
"""By largest channel (blue, green, red): the first row of its colors in the table of hues."""
BYTES = np.arange(256, dtype=np.float32)
DIFFERENCES = 511
"""Of two bytes: -255 to 255."""
SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
"""Pillow's filter of this name."""
LUMA = np.array([[19595, 38470, 7471, 32768]], np.float32) / 65536
"""Pillow's shares of red, green and blue in gray, and one half, which rounds."""


def blend_table(start: int, factor: float) -> np.ndarray:
    """What `Image.blend` makes of each byte, from `start` (factor 0) to it (1), or beyond it."""
    return _blend(np.float32(start), BYTES.copy(), factor)


def luma(floats: np.ndarray) -> np.ndarray:
    """The gray value, uint8 [H, W], of every pixel of an image, float32 [H, W, 3] from 0 to 255."""
    # Whole 65536ths, and in all less than 2^24 of them: float32 has every sum exactly.
    return cv2.transform(floats, LUMA).astype(np.uint8)


def posterize(image: np.ndarray, bits: int) -> np.ndarray:
    """Keep the upper bits of each byte."""
    return image & np.uint8(0x100 - (1 << (8 - bits)))


def solarize(image: np.ndarray, added: int, threshold: int) -> np.ndarray:
    """Make bytes brighter by `added`, then invert those from `threshold` on."""
    rows = image.reshape(len(image), -1)  # [H, W, 3] -> [H, 3 W]
    brighter = cv2.convertScaleAbs(rows, beta=added)
    _, inverted = cv2.threshold(brighter, threshold - 1, 255, cv2.THRESH_BINARY)  # 255 or 0
    return cv2.bitwise_xor(brighter, inverted).reshape(image.shape)


def autocontrast(image: np.ndarray) -> np.ndarray:
    """Stretch each channel from its least and largest byte to 0 and 255."""
    return cv2.merge([cv2.LUT(plane, _stretch_table(plane)) for plane in cv2.split(image)])


def _stretch_table(plane: np.ndarray) -> np.ndarray:
    least, most = map(int, cv2.minMaxLoc(plane)[:2])
    if least == most:
        return np.arange(256, dtype=np.uint8)
    scale = 255 / (most - least)
    return np.clip(np.arange(256) * scale + -least * scale, 0, 255).astype(np.uint8)


def equalize(image: np.ndarray) -> np.ndarray:
    """Spread each channel so that all bytes become about as frequent."""
    return cv2.merge([cv2.LUT(plane, _equal_table(plane)) for plane in cv2.split(image)])


def _equal_table(plane: np.ndarray) -> np.ndarray:
    counts = cv2.calcHist([plane], [0], None, [256], [0, 256]).ravel().astype(np.int64)
    step = (plane.size - int(counts[counts > 0][-1])) // 255
    if not step:
        return np.arange(256, dtype=np.uint8)
    below = np.cumsum(counts) - counts
    return np.minimum((below + step // 2) // step, 255).astype(np.uint8)


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """From black (factor 0) to the image (1), or brighter."""
    return cv2.LUT(image, blend_table(0, factor))


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """From its mean gray (factor 0) to the image (1), or more."""
    gray = luma(image.astype(np.float32))
    mean = int(cv2.sumElems(gray)[0] / gray.size + 0.5)
    return cv2.LUT(image, blend_table(mean, factor))


def saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """From the gray image (factor 0) to the image (1), or more colorful."""
    floats = image.astype(np.float32)
    gray = cv2.cvtColor(luma(floats).astype(np.float32), cv2.COLOR_GRAY2RGB)
    return _blend(gray, floats, factor)


def sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """From the smoothed image (factor 0) to the image (1), or sharper; borders stay."""
    smooth = image.copy()
    if min(image.shape[:2]) > 2:
        smooth[1:-1, 1:-1] = cv2.filter2D(image, -1, SMOOTH)[1:-1, 1:-1]
    return _blend(smooth.astype(np.float32), image.astype(np.float32), factor)


def _blend(start: np.ndarray | np.float32, end: np.ndarray, factor: float) -> np.ndarray:
    """Pillow's start + factor (end - start), cut to a byte, of float32; `end` is overwritten."""
    end -= start
    end *= np.float32(factor)
    end += start
    if not 0 <= factor <= 1:
        np.clip(end, 0, 255, out=end)
    return end.astype(np.uint8)


def turn_hue(image: np.ndarray, turn: float) -> np.ndarray:
    """Turn the hue by a share of the circle, whose 256 hues Pillow counts from 0."""
    hue, saturation_value, value = _hue_and_more(image)
    hue += np.uint8(int(255 * turn) % 256)  # wraps around
    planes = []
    for weights in _hue_weights():
        less = cv2.multiply(cv2.LUT(hue, weights), saturation_value)
        cv2.subtract(value, less, dst=less)
        planes.append(cv2.convertScaleAbs(less))  # rounds halves to even, as Python does
    return cv2.merge(planes)


def _hue_and_more(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The hue uint8 [H, W], saturation (0 to 1) times value, and value (0 to 255), float32 [H, W].

    The hue depends on which channel is the largest, on the difference of the other two, and on the
    chroma, the largest less the smallest; the saturation on the largest and the chroma.
    """
    red, green, blue = cv2.split(image)
    most = cv2.max(cv2.max(red, green), blue)
    chroma = np.asarray(cv2.subtract(most, cv2.min(cv2.min(red, green), blue)), np.uint8)
    floats = image.astype(np.float32)
    of_blue, of_green, of_red = (cv2.transform(floats, row) for row in HUE_PLACES)
    place = of_blue  # where another channel is as large, that one counts
    cv2.copyTo(of_green, cv2.compare(green, most, cv2.CMP_EQ), place)
    cv2.copyTo(of_red, cv2.compare(red, most, cv2.CMP_EQ), place)
    place += chroma
    hues, saturations = _hsv_tables()
    of_saturation = (most.astype(np.uint16) << 8) | chroma
    return (
        hues.take(place.astype(np.int32)),
        saturations.take(of_saturation),
        most.astype(np.float32),
    )


@cache
def _hsv_tables() -> tuple[np.ndarray, np.ndarray]:
    """What Pillow makes of all colors.

    Returns:
        hues: uint8 [3 x 511 x 256], by largest channel, difference of the next two, and chroma.
        saturations: float32 [256 x 256], by largest channel and chroma, times the largest.
    """
    difference, chroma = np.mgrid[-255:256, :256]
    hues = []
    for largest in range(3):
        pixels = np.zeros((DIFFERENCES, 256, 3), np.uint8)
        pixels[..., largest] = chroma
        pixels[..., (largest + 1) % 3] = np.clip(difference, 0, chroma)
        pixels[..., (largest + 2) % 3] = np.clip(-difference, 0, chroma)
        hues.append(np.asarray(Image.fromarray(pixels).convert("HSV"))[..., 0].ravel())
    most, chroma = np.mgrid[:256, :256]
    least = np.maximum(most - chroma, 0)
    pixels = np.stack([most, least, least], axis=-1).astype(np.uint8)  # [256, 256, 3]
    shares = np.asarray(Image.fromarray(pixels).convert("HSV"))[..., 1] / np.float32(255)
    return np.concatenate(hues), (shares * most.astype(np.float32)).ravel()


@cache
def _hue_weights() -> list[np.ndarray]:
    """The shares of the saturation that red, green and blue lack, by hue: 3 times float32 [256].

    A sixth of the circle, from 0 on, has red at most, blue at least, and green rising.
    """
    sixth, part = np.divmod(np.arange(256) * 6 / 255, 1)
    zero, one = np.zeros(256), np.ones(256)
    by_sixth = (
        [zero, part, one, one, 1 - part, zero],  # red
        [1 - part, zero, zero, part, one, one],  # green
        [one, one, 1 - part, zero, zero, part],  # blue
    )
    return [np.choose(sixth.astype(int) % 6, w).astype(np.float32) for w in by_sixth]

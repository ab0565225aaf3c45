"""Frames of one clip -> network input: crops, flip and resizing on uint8, normalisation later.

The path is chosen for speed on a CPU core: libjpeg-turbo decodes into channels-last uint8, torch
resizes the uncopied crop (antialiased, as PIL does, within one grey level), OpenCV splits the
channels into the output. Frames come as JPEG bytes or as one uint8 array [T, H, W, 3], in RGB.
"""

import math
import threading
from collections.abc import Sequence

import cv2
import numpy as np
import simplejpeg
import torch
from torch import Tensor

from clipzoo.config import CROPS, AugmentConfig

CROP_TRIES = 10

Frames = Sequence[bytes] | np.ndarray


_buffers = threading.local()
_RESIZE = {
    "bilinear": torch.ops.aten._upsample_bilinear2d_aa.out,
    "bicubic": torch.ops.aten._upsample_bicubic2d_aa.out,
}


def _buffer(name: str, *shape: int) -> np.ndarray:
    """uint8 memory of the calling thread that the next call of this name gives out again.

    Fresh memory for every frame would double the time of decoding it.
    """
    size = math.prod(shape)
    memory = getattr(_buffers, name, None)
    if memory is None or memory.size < size:
        memory = np.empty(size, np.uint8)
        setattr(_buffers, name, memory)
    return memory[:size].reshape(shape)


def decode(frame: bytes | np.ndarray) -> np.ndarray:
    """One frame as uint8 [H, W, 3], from JPEG bytes (ValueError where they are damaged)."""
    return frame if isinstance(frame, np.ndarray) else simplejpeg.decode_jpeg(frame, "RGB")


def _decode(frame: bytes | np.ndarray) -> np.ndarray:
    """`decode` into a buffer that the next frame of this thread overwrites."""
    if isinstance(frame, np.ndarray):
        return frame
    height, width = map(int, simplejpeg.decode_jpeg_header(frame)[:2])
    return simplejpeg.decode_jpeg(frame, "RGB", buffer=_buffer("frame", height, width, 3))


def _resize(image: np.ndarray, width: int, height: int, mode: str) -> np.ndarray:
    """Antialiased resize of uint8 [H, W, 3], `bilinear` or `bicubic`, as PIL does it (+-1).

    The result lies in a buffer that the next resize of this thread and mode overwrites.
    """
    if image.shape[:2] == (height, width):
        return image
    source = torch.from_numpy(image).permute(2, 0, 1)[None]  # [1, 3, H, W], channels last
    result = _buffer(mode, height, width, 3)
    # `out` keeps the channels last; without it torch reorders them, at the price of the resize.
    target = torch.from_numpy(result).permute(2, 0, 1)[None]
    _RESIZE[mode](source, [height, width], False, None, None, out=target)
    return result


def _split(image: np.ndarray, planes: np.ndarray) -> None:
    """uint8 [H, W, 3] -> planes [3, H, W]."""
    if not image.flags.c_contiguous:  # a crop: OpenCV splits those ten times slower than a copy
        crop = _buffer("crop", *image.shape)
        np.copyto(crop, image)
        image = crop
    cv2.split(image, [planes[0], planes[1], planes[2]])


def resize_short_side(image: np.ndarray, short_side_px: int) -> np.ndarray:
    """Bicubic resize so that the shorter side is `short_side_px`; the longer is rounded down."""
    height, width = image.shape[:2]
    short = min(height, width)
    if short == short_side_px:
        return image
    width, height = width * short_side_px // short, height * short_side_px // short
    return _resize(image, width, height, "bicubic")


class TrainTransform:
    """The training augmentation of Text4Vis; one draw for all frames of a clip.

    Resize the short side (bicubic; nothing to do where the stored frames have it), crop a random
    area (min_area .. max_area of the frame, aspect ratio min .. max, swapped half of the time) and
    resize it to the input (bilinear), flip, and turn gray.

    On frames of 340x256 the mean absolute difference to the same steps in PIL is below 0.05 of 255.
    """

    def __init__(self, input_px: int, augment: AugmentConfig) -> None:
        self.input_px = input_px
        self.augment = augment

    def __call__(self, frames: Frames, rng: np.random.Generator) -> Tensor:
        """Augment one clip.

        Args:
            frames: T JPEGs, or uint8 [T, H, W, 3].
            rng: all random choices.

        Returns:
            uint8 [T, 3, input_px, input_px].
        """
        size = self.input_px
        image = resize_short_side(_decode(frames[0]), self.augment.short_side_px)
        height, width = image.shape[:2]
        x, y, w, h = random_area_crop(width, height, self.augment, rng)
        flip = rng.random() < self.augment.flip
        gray = rng.random() < self.augment.grayscale
        clip = np.empty((len(frames), 3, size, size), np.uint8)
        for t in range(len(frames)):
            if t:
                image = resize_short_side(_decode(frames[t]), self.augment.short_side_px)
            if image.shape[:2] != (height, width):
                raise ValueError(f"frame {t} is {image.shape[:2]}, frame 0 is {(height, width)}")
            crop = _resize(image[y : y + h, x : x + w], size, size, "bilinear")
            if flip:
                crop = cv2.flip(crop, 1)
            if gray:
                crop = cv2.merge([cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)] * 3)
            _split(crop, clip[t])
        return torch.from_numpy(clip)


def random_area_crop(
    width: int, height: int, augment: AugmentConfig, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """A random window (x, y, width, height) px of an image.

    Draws an area and an aspect ratio until the window fits, at most 10 times; then takes the
    largest square at a random place.
    """
    for _ in range(CROP_TRIES):
        area = width * height * rng.uniform(augment.min_area, augment.max_area)
        aspect = rng.uniform(augment.min_aspect, augment.max_aspect)
        w, h = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if rng.random() < 0.5:
            w, h = h, w
        if 1 <= w <= width and 1 <= h <= height:
            break
    else:
        w = h = min(width, height)
    return int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h


class ViewTransform:
    """The spatial views of a test clip: resize the short side (bicubic), then fixed crops."""

    def __init__(self, input_px: int, short_side_px: int, crops: int) -> None:
        """Check the sizes.

        Raises:
            ValueError: crops is not 1, 3, 5 or 10, or the short side is smaller than the input.
        """
        if crops not in CROPS:
            raise ValueError(f"crops: found {crops}; allowed: one of {CROPS}")
        if short_side_px < input_px:
            raise ValueError(
                f"short_side_px: found {short_side_px}; allowed: at least the model's input of "
                f"{input_px} px"
            )
        self.input_px = input_px
        self.short_side_px = short_side_px
        self.crops = crops

    def __call__(self, frames: Frames) -> Tensor:
        """All crops of one clip.

        Args:
            frames: T JPEGs, or uint8 [T, H, W, 3].

        Returns:
            uint8 [crops, T, 3, input_px, input_px], in the order of `crop_names`.
        """
        size = self.input_px
        views = np.empty((self.crops, len(frames), 3, size, size), np.uint8)
        for t in range(len(frames)):
            image = resize_short_side(_decode(frames[t]), self.short_side_px)
            height, width = image.shape[:2]
            for v, (x, y, flip) in enumerate(crop_places(width, height, size, self.crops)):
                crop = image[y : y + size, x : x + size]
                crop = cv2.flip(crop, 1) if flip else crop
                _split(crop, views[v, t])
        return torch.from_numpy(views)


def crop_names(crops: int) -> list[str]:
    """Names of the crops, in the order of `crop_places`."""
    corners = ["top-left", "top-right", "bottom-left", "bottom-right", "centre"]
    names = {1: ["centre"], 3: ["left", "right", "centre"], 5: corners}
    names[10] = [name + flip for name in corners for flip in ("", "-flipped")]
    return names[crops]


def crop_places(width: int, height: int, size: int, crops: int) -> list[tuple[int, int, bool]]:
    """Left upper corner (px) and horizontal flip of each crop.

    As the authors do: quarter steps are rounded down (in 341x256 the right one of three crops of
    224 starts at 4 * (117 // 4) = 116), each of ten crops is followed by its mirror image, one crop
    alone is centred to the pixel, and the three crops are left, right and centre of upright videos
    too.

    Example: 340x256, size 224, 3 crops: [(0, 16), (116, 16), (58, 16)], none flipped.
    """
    x, y = (width - size) // 4, (height - size) // 4
    if crops == 1:
        return [(round((width - size) / 2), round((height - size) / 2), False)]
    if crops == 3:
        return [(0, 2 * y, False), (4 * x, 2 * y, False), (2 * x, 2 * y, False)]
    places = [(0, 0), (4 * x, 0), (0, 4 * y), (4 * x, 4 * y), (2 * x, 2 * y)]
    return [(x, y, flip) for x, y in places for flip in (False, True)[: crops // 5]]

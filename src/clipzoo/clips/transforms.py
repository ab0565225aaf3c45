"""Frames of one clip -> network input: crops, flip and resizing on uint8, normalization later.

The steps are chosen for speed on a CPU core: libjpeg-turbo decodes into channels-last uint8, torch
resizes the crop (antialiased, as PIL does, within one gray level), OpenCV splits the channels into
the output. Frames come as T JPEGs or as one uint8 array [T, H, W, 3], in RGB; a damaged one is a
ValueError. A window of an image is (x, y, width, height) in px, from the upper left corner.

Loader threads run this, so everything is copied by NumPy: torch copies large tensors with a team of
OMP_NUM_THREADS threads, and would start one for each loader thread, on top of that of the training
step.
"""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
import torch
from torch import Tensor

from clipzoo.clips.augmentation import Jitter, color_jitter, draw_jitter, randaugment
from clipzoo.clips.placing import new_clip
from clipzoo.config import CROPS, AugmentConfig
from clipzoo.models.pixels import OPENAI, Pixels

CROP_TRIES = 10
LONGEST_SHORT_SIDE = 8 / 7
"""The longest side of `random_short_side`, as a share of the shortest: 256 px of 224."""
MULTI_SCALES = (1, 0.875, 0.75, 0.66)
"""Sides of the window as shares of the short side of the image."""
MULTI_SCALE_PLACES = (
    *((0, 0), (4, 0), (0, 4), (4, 4), (2, 2)),
    *((0, 2), (4, 2), (2, 4), (2, 0)),
    *((1, 1), (3, 1), (1, 3), (3, 3)),
)
"""The corner of the window in quarter steps of the free width and height; the first five are the
corners and the center."""

# Loaders share the cores among themselves; and of a pool of OpenCV's threads, a fork would copy the
# locks as they are at that moment (`loader_processes`).
cv2.setNumThreads(0)

Frames = Sequence[bytes] | np.ndarray
Window = tuple[int, int, int, int]


_buffers = threading.local()
_RESIZE = {
    "bilinear": torch.ops.aten._upsample_bilinear2d_aa.out,
    "bicubic": torch.ops.aten._upsample_bicubic2d_aa.out,
}


def _buffer(name: str, *shape: int) -> np.ndarray:
    """uint8 memory of the calling thread, which the next call with this name returns again.

    Allocating memory for every frame would double the decoding time.
    """
    size = math.prod(shape)
    memory = getattr(_buffers, name, None)
    if memory is None or memory.size < size:
        memory = np.empty(size, np.uint8)
        setattr(_buffers, name, memory)
    return memory[:size].reshape(shape)  # [size] -> shape


def decode(frame: bytes | np.ndarray) -> np.ndarray:
    """One frame as uint8 [H, W, 3]."""
    return frame if isinstance(frame, np.ndarray) else simplejpeg.decode_jpeg(frame, "RGB")


def _decode(frame: bytes | np.ndarray) -> np.ndarray:
    """One frame as uint8 [H, W, 3], in a buffer that the next frame of this thread overwrites."""
    if isinstance(frame, np.ndarray):
        return frame
    height, width = map(int, simplejpeg.decode_jpeg_header(frame)[:2])
    return simplejpeg.decode_jpeg(frame, "RGB", buffer=_buffer("frame", height, width, 3))


def _contiguous(image: np.ndarray) -> np.ndarray:
    """A whole image as it is; a crop in a buffer that the next crop of this thread overwrites."""
    if image.flags.c_contiguous:
        return image
    crop = _buffer("crop", *image.shape)
    np.copyto(crop, image)
    return crop


def _crop(image: np.ndarray, x: int, y: int, w: int, h: int) -> np.ndarray:
    """A window uint8 [h, w, 3] of an image, black where it reaches beyond it, as PIL's crop is."""
    height, width = image.shape[:2]
    if x >= 0 and y >= 0 and x + w <= width and y + h <= height:
        return image[y : y + h, x : x + w]  # [H, W, 3] -> [h, w, 3]
    inside = image[max(0, y) : y + h, max(0, x) : x + w]  # [H, W, 3] -> [<= h, <= w, 3]
    crop = np.zeros((h, w, 3), np.uint8)
    top, left = max(0, -y), max(0, -x)
    crop[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return crop


def _resize(images: np.ndarray, width: int, height: int, mode: str) -> np.ndarray:
    """Resize of uint8 [H, W, 3] or [T, H, W, 3]: `bilinear` or `bicubic`, antialiased, within 1 of
    PIL; or `linear`, OpenCV's bilinear one without antialiasing.

    The result is in a buffer that the next resize of this thread and mode overwrites.
    """
    if images.shape[-3:-1] == (height, width):
        return images
    result = _buffer(mode, *images.shape[:-3], height, width, 3)
    if mode == "linear":
        for image, resized in zip(_batch(images), _batch(result), strict=True):
            cv2.resize(image, (width, height), dst=resized, interpolation=cv2.INTER_LINEAR)
        return result
    images = _contiguous(images)  # torch would copy a crop itself, with a team of threads
    # `out` keeps the memory channels-last; without it torch reorders it, which takes as long as the
    # resize. One call for T images takes three quarters of the time of T calls.
    _RESIZE[mode](
        _channels_first(images), [height, width], False, None, None, out=_channels_first(result)
    )
    return result


def _channels_first(images: np.ndarray) -> Tensor:
    """A view [T, 3, H, W] of uint8 [H, W, 3] or [T, H, W, 3]."""
    return torch.from_numpy(_batch(images)).permute(0, 3, 1, 2)  # [T, H, W, 3] -> [T, 3, H, W]


def _batch(images: np.ndarray) -> np.ndarray:
    """A view [T, H, W, 3] of [H, W, 3] or [T, H, W, 3]."""
    return images if images.ndim == 4 else images[None]


def _split(image: np.ndarray, planes: np.ndarray) -> None:
    """uint8 [H, W, 3] -> planes [3, H, W]."""
    image = _contiguous(image)  # OpenCV splits a crop ten times slower than its copy
    cv2.split(image, [planes[0], planes[1], planes[2]])


def resize_frame(image: np.ndarray, short_side_px: int, pixels: Pixels) -> np.ndarray:
    """A whole frame with a shorter side of `short_side_px`; 0 = the image as it is.

    With `squash` both sides are; else the longer one is rounded down, as torchvision does: 341x256
    becomes 298x224 (298.4).
    """
    height, width = image.shape[:2]
    short = min(height, width)
    if pixels.resize == "squash" and short_side_px:
        width = height = short_side_px
    elif short_side_px not in (0, short):
        width, height = width * short_side_px // short, height * short_side_px // short
    return _resize(image, width, height, pixels.interpolation)  # -> [height, width, 3]


@dataclass(frozen=True)
class TrainTransform:
    """The training augmentation, drawn once for all frames of a clip except for the steps marked *.

    RandAugment*, resize (`resize_frame`; skipped if the stored frames already have that size), crop
    a random window, resize it to the input size (bilinear), flip, color jitter*, and turn gray.
    Text4Vis and BIKE have no jitter and crop a random area, ActionCLIP does not resize before its
    multi-scale crop, Open-VCLIP resizes to a random short side; every step is a key of `augment`.
    Of the crop `multi_scale_5` both resizes are OpenCV's bilinear ones, which are not antialiased.

    On frames of 340x256 the mean absolute difference to the same steps in PIL is below 0.05 of 255
    (without RandAugment and jitter, which are PIL's, but amplify what the resize leaves).
    """

    input_px: int
    augment: AugmentConfig
    pixels: Pixels = OPENAI

    def __post_init__(self) -> None:
        if self.augment.crop == "random_short_side":
            _check_short_side(self.augment.short_side_px, self.input_px)

    def __call__(self, frames: Frames, rng: np.random.Generator) -> Tensor:
        """One augmented clip, uint8 [T, 3, input_px, input_px]; `rng` makes all random choices.

        ValueError if its frames differ in size.
        """
        size, augment = self.input_px, self.augment
        clip = new_clip(len(frames), 3, size, size)
        side = augment.short_side_px
        if augment.crop == "random_short_side":
            side = round(rng.uniform(side, side * LONGEST_SHORT_SIDE))
        first = self._resized(frames[0], side, rng)
        height, width = first.shape[:2]
        window = self._window(width, height, rng)
        flip = rng.random() < augment.flip
        jitter = augment.color_jitter > 0 and rng.random() < augment.color_jitter
        gray = rng.random() < augment.grayscale
        changes: list[Jitter] = []  # of each frame
        crops = _buffer("crops", len(frames), *window[:1:-1], 3)
        for t in range(len(frames)):
            image = self._resized(frames[t], side, rng) if t else first
            if image.shape[:2] != (height, width):
                raise ValueError(f"frame {t} is {image.shape[:2]}, frame 0 is {(height, width)}")
            np.copyto(crops[t], _crop(image, *window))  # [H, W, 3] -> [h, w, 3]
            if jitter:
                changes.append(draw_jitter(rng))
        mode = "linear" if self._opencv else "bilinear"
        crops = _resize(crops, size, size, mode)  # [T, h, w, 3] -> [T, size, size, 3]
        if flip:
            tall = crops.reshape(-1, size, 3)  # [T, size, size, 3] -> [T size, size, 3], a view
            cv2.flip(tall, 1, dst=tall)
        for t, crop in enumerate(crops):
            if jitter:
                crop = color_jitter(crop, changes[t])
            if gray:  # [size, size, 3] -> 3 times the same [size, size]
                clip[t] = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
            else:
                _split(crop, clip[t])  # [size, size, 3] -> [3, size, size]
        return torch.from_numpy(clip)

    @property
    def _opencv(self) -> bool:
        return self.augment.crop == "multi_scale_5"

    def _window(self, width: int, height: int, rng: np.random.Generator) -> Window:
        """The random window of an image of this size."""
        size, augment = self.input_px, self.augment
        if augment.crop == "random_short_side":
            return random_place(width, height, size, rng)
        if augment.crop == "area":
            return random_area_crop(width, height, augment, rng)
        places = MULTI_SCALE_PLACES[:5] if self._opencv else MULTI_SCALE_PLACES
        return multi_scale_crop(width, height, size, rng, places)

    def _resized(
        self, frame: bytes | np.ndarray, short_side_px: int, rng: np.random.Generator
    ) -> np.ndarray:
        """A frame before its crop, uint8 [H, W, 3], perhaps in a buffer."""
        image, augment = _decode(frame), self.augment
        if augment.randaugment_n:
            image = randaugment(image, augment.randaugment_n, augment.randaugment_m, rng)
        if self._opencv:
            return opencv_short_side(image, short_side_px)
        return resize_frame(image, short_side_px, self.pixels)


def _check_short_side(short_side_px: int, input_px: int) -> None:
    if short_side_px < input_px:
        raise ValueError(
            f"short_side_px: found {short_side_px}; allowed: at least the model's input of "
            f"{input_px} px"
        )


def opencv_short_side(image: np.ndarray, short_side_px: int) -> np.ndarray:
    """A whole frame uint8 [H, W, 3] with a shorter side of `short_side_px`; 0 = the image as it is.
    The result may be in a buffer, as that of `resize_frame`.

    Bilinear without antialiasing; the longer side is rounded, halves up: 341x256 becomes 298x224
    (298.4). Source: ViFi-CLIP, datasets/pipeline.py, class Resize, by MMCV's rescale_size.
    """
    height, width = image.shape[:2]
    if short_side_px in (0, min(height, width)):
        return image
    factor = short_side_px / min(height, width)
    return _resize(image, int(width * factor + 0.5), int(height * factor + 0.5), "linear")


def random_area_crop(
    width: int, height: int, augment: AugmentConfig, rng: np.random.Generator
) -> Window:
    """A random window of an image, whose area and aspect ratio are drawn until it fits.

    After 10 tries it is the largest square, at a random place.

    Example: 340x256, area share 0.25, aspect 4/3: area 21760, w = sqrt(21760 * 4/3) = 170, h =
    sqrt(21760 / (4/3)) = 128; half of the time 128x170 instead.
    """
    #   +------- width -------+
    #   |                     |
    #   |  (x, y)             |     w * h = area, a share of width * height
    #   |     +--- w ---+     |     w / h = aspect, or its inverse half of the time
    #   |     |         h   height
    #   |     +---------+     |     so w * w = area * aspect, and h * h = area / aspect
    #   +---------------------+
    # The aspect is drawn evenly, as the authors do, not its logarithm as in torchvision: swapping w
    # and h makes wide and tall windows equally likely.
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


def random_place(width: int, height: int, size: int, rng: np.random.Generator) -> Window:
    """A window of the input's size at a random place of an image, but never the last one of a side.

    The image is at least as large.

    Source: Open-VCLIP, slowfast/datasets/transform.py, `random_crop` (wengzejia1/Open-VCLIP), whose
    draw leaves the last place out.

    Example: 256x224, size 224: x is one of 0, ..., 31, y is 0.
    """
    y = int(rng.integers(height - size)) if height > size else 0
    x = int(rng.integers(width - size)) if width > size else 0
    return x, y, size, size


def multi_scale_crop(
    width: int,
    height: int,
    size: int,
    rng: np.random.Generator,
    places: Sequence[tuple[int, int]] = MULTI_SCALE_PLACES,
) -> Window:
    """A window of one of 10 sizes at one of 13 places of an image, or of `places`.

    Where a side of the image is 1 or 2 px smaller than `size`, the window can be larger than the
    image, and begin up to 4 px before it: -1 // 4 is -1, and 4 such steps are -4.

    Source: ActionCLIP, datasets/transforms_ss.py, lines 170-253 (sallymmx/ActionCLIP), with
    `fix_crop` and `more_fix_crop`; and ViFi-CLIP, datasets/pipeline.py, class MultiScaleCrop, with
    five places (muzairkhattak/ViFi-CLIP).
    """
    # Places in quarter steps u and v of the free width and height, + corners, x others:
    #
    #        0   u  2u  3u  4u
    #   0    +       x       +
    #   v        x       x
    #   2v   x       x       x
    #   3v       x       x
    #   4v   +       x       +
    pairs = multi_scale_pairs(width, height, size)
    w, h = pairs[rng.integers(len(pairs))]
    across, down = places[int(rng.integers(len(places)))]
    # The authors round the quarter step down before they multiply it.
    return across * ((width - w) // 4), down * ((height - h) // 4), w, h


def multi_scale_pairs(width: int, height: int, size: int) -> list[tuple[int, int]]:
    """The sizes (width, height) px of `multi_scale_crop`: pairs of equal or neighboring scales.

    Sides are rounded down. One within 2 px of the input size becomes that, so it needs no resize.

    Example: 340x256, size 224: sides 256, 224, 192 and 168; pairs (256, 256), (224, 256), (256,
    224), (224, 224), (192, 224), (224, 192), (192, 192), (168, 192), (192, 168), (168, 168).
    """
    sides = [int(min(width, height) * scale) for scale in MULTI_SCALES]
    sides = [size if abs(side - size) <= 2 else side for side in sides]
    return [(w, h) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= 1]


@dataclass(frozen=True)
class ViewTransform:
    """The spatial views of a test clip: resize (`resize_frame`), then fixed crops."""

    input_px: int
    short_side_px: int
    crops: int
    pixels: Pixels = OPENAI

    def __post_init__(self) -> None:
        if self.crops not in CROPS:
            raise ValueError(f"crops: found {self.crops}; allowed: one of {CROPS}")
        _check_short_side(self.short_side_px, self.input_px)

    def __call__(self, frames: Frames, out: np.ndarray | None = None) -> Tensor:
        """All crops of one clip, uint8 [crops, T, 3, input_px, input_px], in the order of
        `crop_names`; `out` is memory for them, None = new memory."""
        size = self.input_px
        shape = (self.crops, len(frames), 3, size, size)
        views = np.empty(shape, np.uint8) if out is None else out
        for t in range(len(frames)):
            image = resize_frame(_decode(frames[t]), self.short_side_px, self.pixels)
            height, width = image.shape[:2]
            for v, (x, y, flip) in enumerate(crop_places(width, height, size, self.crops)):
                crop = image[y : y + size, x : x + size]  # [H, W, 3] -> [size, size, 3]
                crop = cv2.flip(crop, 1) if flip else crop
                _split(crop, views[v, t])  # [size, size, 3] -> [3, size, size]
        return torch.from_numpy(views)


def crop_names(crops: int) -> list[str]:
    """Names of the crops, in the order of `crop_places`."""
    corners = ["top-left", "top-right", "bottom-left", "bottom-right", "center"]
    names = {1: ["center"], 3: ["left", "right", "center"], 5: corners}
    names[10] = [name + flip for name in corners for flip in ("", "-flipped")]
    return names[crops]


def crop_places(width: int, height: int, size: int, crops: int) -> list[tuple[int, int, bool]]:
    """Upper left corner (px) and horizontal flip of each crop.

    As in the authors' code: quarter steps are rounded down (in 341x256 the right one of three crops
    of 224 starts at 4 * (117 // 4) = 116), a single crop is centered to the pixel, three crops are
    left, right and center even of upright videos, and ten crops are the five, each followed by its
    mirror image.

    Example: 340x256, size 224, 3 crops: [(0, 16), (116, 16), (58, 16)], none flipped.
    """
    # 3 crops of 224 in 340x256: y from 16 to 240, and
    #
    #   x       0         58       116               224       282       340
    #   frame   |---------------------------------------------------------|
    #   left    [------------------------------------]
    #   right                      [--------------------------------------]
    #   center            [----------------------------------]
    #
    # 5 crops: the corners and the center; the corners lie at 0 or 4 quarter steps, the center at 2.
    x, y = (width - size) // 4, (height - size) // 4
    if crops == 1:  # halves are rounded to even, as torchvision does
        return [(round((width - size) / 2), round((height - size) / 2), False)]
    if crops == 3:
        return [(0, 2 * y, False), (4 * x, 2 * y, False), (2 * x, 2 * y, False)]
    places = [(0, 0), (4 * x, 0), (0, 4 * y), (4 * x, 4 * y), (2 * x, 2 * y)]
    return [(x, y, flip) for x, y in places for flip in (False, True)[: crops // 5]]

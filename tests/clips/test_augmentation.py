"""Each operation against PIL and against its formula, and how often each is drawn."""

from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from test_transforms import AUGMENT, golden_frame
from torchvision.transforms import functional

from clipzoo.clips import augmentation, colors
from clipzoo.clips.augmentation import JITTER, OPERATIONS, jitter_operation
from clipzoo.clips.transforms import (
    MULTI_SCALE_PLACES,
    TrainTransform,
    multi_scale_crop,
    multi_scale_pairs,
)
from clipzoo.config import replace

WIDTH, HEIGHT = 160, 120
FRAME = golden_frame(WIDTH, HEIGHT, 5)
IMAGE = Image.fromarray(FRAME)
BLACK = np.zeros_like(FRAME)


def at_magnitude_9(name: str, *draws: float) -> np.ndarray:
    """An operation of RandAugment whose generator gives `draws`, first `random`, then `uniform`."""
    operation, low, high = OPERATIONS[name]
    left = list(draws)
    rng = SimpleNamespace(random=lambda: left.pop(0), uniform=lambda low, high: left.pop(0))
    frame = operation(FRAME, 9 / 30 * (high - low) + low, rng)  # pyright: ignore[reportArgumentType]
    assert not left
    return frame


def solarized(pixels: np.ndarray, threshold: float) -> np.ndarray:
    return np.where(pixels < threshold, pixels, 255 - pixels)


def affine(*coefficients: float) -> np.ndarray:
    image = IMAGE.transform((WIDTH, HEIGHT), Image.Transform.AFFINE, coefficients)
    return np.asarray(image)


MEAN_LUMA = int(np.asarray(IMAGE.convert("L")).mean() + 0.5)
AT_9 = {
    "AutoContrast": np.asarray(ImageOps.autocontrast(IMAGE)),
    "Equalize": np.asarray(ImageOps.equalize(IMAGE)),
    "Invert": 255 - FRAME,
    "Posterize": FRAME & 0x80,
    "Solarize": solarized(FRAME, 76.8),
    "SolarizeAdd": solarized((FRAME.astype(int) + 33).clip(0, 255), 128),
    "Color": np.asarray(ImageEnhance.Color(IMAGE).enhance(0.64)),
    "Contrast": np.trunc(MEAN_LUMA + 0.64 * (FRAME.astype(float) - MEAN_LUMA)),
    "Brightness": np.trunc(0.64 * FRAME.astype(float)),
    "Sharpness": np.asarray(ImageEnhance.Sharpness(IMAGE).enhance(0.64)),
}


@pytest.mark.parametrize("name", AT_9)
def test_colors_at_magnitude_9(name):
    found = at_magnitude_9(name)
    rounding = 1 if name in ("Contrast", "Brightness") else 0  # float32 in PIL, float64 here
    assert np.abs(found.astype(int) - AT_9[name]).max() <= rounding
    assert not np.array_equal(found, FRAME)


@pytest.mark.parametrize(("draw", "sign"), [(0.4, 1), (0.6, -1)])
def test_shapes_at_magnitude_9(draw, sign):
    rotated = np.asarray(IMAGE.rotate(9 * sign, Image.Resampling.NEAREST, fillcolor=(0, 0, 0)))
    assert np.array_equal(at_magnitude_9("Rotate", draw), rotated)
    assert np.array_equal(at_magnitude_9("ShearX", draw), affine(1, 0.09 * sign, 0, 0, 1, 0))
    assert np.array_equal(at_magnitude_9("ShearY", draw), affine(1, 0, 0, 0.09 * sign, 1, 0))
    for name, axis in (("TranslateXabs", 1), ("TranslateYabs", 0)):
        moved = np.roll(FRAME, -30 * sign, axis).swapaxes(0, axis)  # a view
        moved[-30 if sign > 0 else 0 : None if sign > 0 else 30] = 0
        assert np.array_equal(at_magnitude_9(name, draw), moved.swapaxes(0, axis))


@pytest.mark.parametrize(
    ("x", "y", "rows", "columns"),
    [
        (80.9, 50.2, slice(44, 57), slice(74, 87)),
        (2.0, 118.0, slice(112, 120), slice(0, 13)),
        (159.5, 7.5, slice(1, 14), slice(153, 160)),
    ],
)
def test_cutout_at_magnitude_9(x, y, rows, columns):
    """12 px wide with both ends, so 13, from the drawn center less 6."""
    expected = FRAME.copy()
    expected[rows, columns] = (125, 123, 114)
    assert np.array_equal(at_magnitude_9("CutoutAbs", x, y), expected)


def test_operations_are_drawn_alike_and_with_replacement(monkeypatch):
    calls = []
    watched = {
        name: (lambda image, value, rng, name=name: calls.append((name, value)) or image, *ends)
        for name, (_, *ends) in OPERATIONS.items()
    }
    monkeypatch.setattr(augmentation, "OPERATIONS", watched)
    rng = np.random.default_rng(0)
    for _ in range(4000):
        augmentation.randaugment(FRAME[:2, :2], 2, 15, rng)
    counts = Counter(name for name, _ in calls)
    assert sum(counts.values()) == 8000
    assert len(counts) == 16
    assert all(count == pytest.approx(500, abs=80) for count in counts.values())
    pairs = [calls[i][0] == calls[i + 1][0] for i in range(0, 8000, 2)]
    assert sum(pairs) == pytest.approx(250, abs=60)
    values = dict(calls)
    assert (values["Rotate"], values["Solarize"], values["TranslateXabs"]) == (15, 128, 50)
    assert values["Color"] == pytest.approx(1.0)


def test_frames_of_a_clip_change_differently_and_repeat_by_seed():
    frames = np.stack([FRAME] * 6)
    whole = {"short_side_px": 0, "crop": "multi_scale", "flip": 0.0, "grayscale": 0.0}
    for changes in ({"randaugment_n": 2}, {"color_jitter": 1.0}):
        transform = TrainTransform(64, replace(AUGMENT, {**whole, **changes}))
        clip = transform(frames, np.random.default_rng(3))
        assert torch.equal(clip, transform(frames, np.random.default_rng(3)))
        assert len({frame.numpy().tobytes() for frame in clip}) > 3
    plain = TrainTransform(64, replace(AUGMENT, whole))(frames, np.random.default_rng(3))
    assert all(torch.equal(frame, plain[0]) for frame in plain)


@pytest.mark.parametrize("key", JITTER)
@pytest.mark.parametrize("share", [-1.0, -0.37, 0.5, 1.0])
def test_jitter_is_that_of_torchvision_on_pil(key, share):
    change = share * JITTER[key]
    adjust = getattr(functional, f"adjust_{key}")
    expected = adjust(IMAGE, change if key == "hue" else 1 + change)
    found = jitter_operation(FRAME, key, change)
    assert np.array_equal(found, np.asarray(expected))
    assert not np.array_equal(found, FRAME)


def frames_of_all_kinds() -> list[np.ndarray]:
    """Noise, a photograph's smoothness, one color, and few colors, down to one pixel."""
    frames = []
    for seed, (height, width) in enumerate([(90, 121), (1, 1), (2, 7), (3, 3), (40, 1)]):
        rng = np.random.default_rng(seed)
        noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(noise).resize((9, 9)).resize((width, height)))
        plain = np.broadcast_to(noise[:1, :1], noise.shape).copy()
        frames += [noise, smooth, plain, noise // 50 + np.uint8(9)]
    return frames


IN_PILLOW = {
    colors.brightness: lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
    colors.contrast: lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
    colors.saturation: lambda image, factor: ImageEnhance.Color(image).enhance(factor),
    colors.sharpness: lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor),
    colors.autocontrast: ImageOps.autocontrast,
    colors.equalize: ImageOps.equalize,
    colors.posterize: ImageOps.posterize,
}
VALUES = {colors.autocontrast: [()], colors.equalize: [()], colors.posterize: [(1,), (2,), (4,)]}
FACTORS = [(0.1,), (0.64,), (1.0,), (1.37,), (1.9,)]


@pytest.mark.parametrize("change", IN_PILLOW, ids=lambda change: change.__name__)
def test_colors_have_the_very_pixels_of_pillow(change):
    for frame in frames_of_all_kinds():
        for values in VALUES.get(change, FACTORS):
            expected = IN_PILLOW[change](Image.fromarray(frame), *values)
            assert np.array_equal(change(frame, *values), np.asarray(expected)), values


def all_colors() -> Iterator[np.ndarray]:
    red, green, blue = np.indices((64, 256, 256), np.uint8)
    for first in range(0, 256, 64):
        yield np.stack([red + np.uint8(first), green, blue], axis=-1).reshape(-1, 4096, 3)


def test_every_color_is_as_gray_as_in_pillow():
    for frame in all_colors():
        expected = Image.fromarray(frame).convert("L")
        assert np.array_equal(colors.luma(frame.astype(np.float32)), np.asarray(expected))


@pytest.mark.parametrize("threshold", [0, 1, 77, 128, 255, 256])
@pytest.mark.parametrize("added", [0, 33, 110])
def test_solarize_adds_then_inverts(threshold, added):
    frame = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    brighter = (frame.astype(int) + added).clip(0, 255)
    found = colors.solarize(frame, added, threshold)
    assert np.array_equal(found, solarized(brighter, threshold))


@pytest.mark.parametrize("turn", [0.1, -0.0371])
def test_every_color_turns_as_in_pillow(turn):
    for frame in all_colors():
        expected = functional.adjust_hue(Image.fromarray(frame), turn)  # pyright: ignore[reportArgumentType]
        assert np.array_equal(colors.turn_hue(frame, turn), np.asarray(expected))


@pytest.mark.parametrize("magnitude", range(0, 31, 3))
def test_a_cutout_is_the_rectangle_of_pillow(magnitude):
    value = magnitude / 30 * 40
    for seed, frame in enumerate(frames_of_all_kinds()):
        height, width = frame.shape[:2]
        rng = np.random.default_rng(seed)
        x, y = (int(max(0.0, rng.uniform(1, side) - value / 2)) for side in (width, height))
        image = Image.fromarray(frame)
        ends = (min(width, x + value), min(height, y + value))
        ImageDraw.Draw(image).rectangle((x, y, *ends), (125, 123, 114))
        found = OPERATIONS["CutoutAbs"][0](frame, value, np.random.default_rng(seed))
        assert np.array_equal(found, np.asarray(image))


def in_pillow(name: str, image: Image.Image, value: float) -> Image.Image:
    if name == "Rotate":
        return image.rotate(value)
    inverse = {
        "ShearX": (1, value, 0, 0, 1, 0),
        "ShearY": (1, 0, 0, value, 1, 0),
        "TranslateXabs": (1, 0, value, 0, 1, 0),
        "TranslateYabs": (1, 0, 0, 0, 1, value),
    }[name]
    return image.transform(image.size, Image.Transform.AFFINE, inverse)


@pytest.mark.parametrize("name", ["Rotate", "ShearX", "ShearY", "TranslateXabs", "TranslateYabs"])
def test_shapes_of_every_magnitude_are_those_of_pillow(name):
    operation, low, high = OPERATIONS[name]
    frames = frames_of_all_kinds()
    for magnitude in range(31):
        value = magnitude / 30 * (high - low) + low
        for number, frame in enumerate(frames):
            sign = 1 if (number + magnitude) % 2 else -1
            rng = SimpleNamespace(random=lambda sign=sign: 0.5 - 0.1 * sign)
            found = operation(frame, value, rng)  # pyright: ignore[reportArgumentType]
            expected = in_pillow(name, Image.fromarray(frame), sign * value)
            assert np.array_equal(found, np.asarray(expected)), (magnitude, frame.shape)


def test_jitter_draws_its_order_and_factors(monkeypatch):
    calls = []

    def record(image, key, change):
        calls.append((str(key), change))
        return image

    monkeypatch.setattr(augmentation, "jitter_operation", record)
    rng = np.random.default_rng(0)
    for _ in range(1200):
        augmentation.color_jitter(FRAME[:2, :2], augmentation.draw_jitter(rng))
    orders = Counter(tuple(key for key, _ in calls[i : i + 4]) for i in range(0, 4800, 4))
    assert len(orders) == 24
    assert max(orders.values()) < 90
    for key, largest in JITTER.items():
        changes = [change for called, change in calls if called == key]
        assert len(changes) == 1200
        assert (min(changes), max(changes)) == pytest.approx((-largest, largest), rel=0.02)
        assert abs(float(np.mean(changes))) < 0.05 * largest


def test_as_many_clips_are_jittered_as_asked():
    whole = {"short_side_px": 0, "crop": "multi_scale", "flip": 0.0, "grayscale": 0.0}
    transform = TrainTransform(8, replace(AUGMENT, {**whole, "color_jitter": 0.8}))
    frames = np.full((1, 8, 8, 3), (200, 90, 40), np.uint8)
    rng = np.random.default_rng(0)
    changed = [bool((transform(frames, rng)[0, 0] != 200).any()) for _ in range(1500)]
    assert np.mean(changed) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize(
    ("width", "height", "size", "sides"),
    [
        (340, 256, 224, [256, 224, 192, 168]),
        (256, 340, 224, [256, 224, 192, 168]),
        (320, 240, 224, [240, 210, 180, 158]),
        (300, 226, 224, [224, 197, 169, 149]),  # 226 is within 2 px of the input
        (300, 227, 224, [227, 198, 170, 149]),
        (96, 72, 64, [72, 63 + 1, 54, 47]),  # 63 too
    ],
)
def test_sides_of_the_multi_scale_crop(width, height, size, sides):
    a, b, c, d = sides
    chain = [(a, a), (b, a), (a, b), (b, b), (c, b), (b, c), (c, c), (d, c), (c, d), (d, d)]
    assert multi_scale_pairs(width, height, size) == chain


def test_all_sizes_and_places_of_the_multi_scale_crop_are_drawn_alike():
    rng = np.random.default_rng(0)
    windows = Counter(multi_scale_crop(340, 256, 224, rng) for _ in range(13000))
    pairs = Counter({pair: 0 for pair in multi_scale_pairs(340, 256, 224)})
    for (x, y, w, h), count in windows.items():
        u, v = (340 - w) // 4, (256 - h) // 4
        assert x in (0, u, 2 * u, 3 * u, 4 * u)
        assert y in ((0, v, 2 * v, 3 * v, 4 * v) if v else (0,))
        pairs[w, h] += count
    assert all(count == pytest.approx(1300, abs=150) for count in pairs.values())
    u, v = (340 - 224) // 4, (256 - 224) // 4
    places = {(x // u, y // v): n for (x, y, w, h), n in windows.items() if (w, h) == (224, 224)}
    assert set(places) == set(MULTI_SCALE_PLACES)
    assert len(places) == 13
    # No corner but the four, and no place between a corner and its neighbor.
    assert {(1, 0), (0, 1), (3, 0), (4, 3), (2, 1)}.isdisjoint(places)
    assert all(count == pytest.approx(100, abs=45) for count in places.values())


def test_five_places_are_the_corners_and_the_center():
    """And every clip is one of them in ten sizes, by OpenCV's resize of OpenCV's resize."""
    frames = golden_frame(341, 192, 2)[None]
    augment = replace(
        AUGMENT, {"short_side_px": 256, "crop": "multi_scale_5", "flip": 0.0, "grayscale": 0.0}
    )
    resized = cv2.resize(frames[0], (455, 256), interpolation=cv2.INTER_LINEAR)  # 454.67
    drawn = set()
    for seed in range(60):
        clip = TrainTransform(224, augment)(frames, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        x, y, w, h = multi_scale_crop(455, 256, 224, rng, MULTI_SCALE_PLACES[:5])
        crop = np.ascontiguousarray(resized[y : y + h, x : x + w])
        expected = cv2.resize(crop, (224, 224), interpolation=cv2.INTER_LINEAR)
        assert np.array_equal(clip[0].permute(1, 2, 0).numpy(), expected)
        if h < 256:
            drawn.add((round(4 * x / (455 - w)), round(4 * y / (256 - h))))
    assert drawn == {(0, 0), (4, 0), (0, 4), (4, 4), (2, 2)}


def test_a_multi_scale_crop_is_taken_from_the_stored_frame():
    """Not from one resized to `short_side_px` first; PIL's crop and resize give the same."""
    frames = golden_frame(320, 240, 2)[None]
    augment = replace(
        AUGMENT, {"short_side_px": 0, "crop": "multi_scale", "flip": 0.0, "grayscale": 0.0}
    )
    for seed in range(4):
        clip = TrainTransform(224, augment)(frames, np.random.default_rng(seed))
        x, y, w, h = multi_scale_crop(320, 240, 224, np.random.default_rng(seed))
        crop = Image.fromarray(frames[0]).crop((x, y, x + w, y + h))
        expected = np.asarray(crop.resize((224, 224), Image.Resampling.BILINEAR))
        assert np.abs(clip[0].permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("width", "height"), [(300, 222), (300, 223), (222, 300), (223, 222), (224, 222), (222, 222)]
)
def test_a_multi_scale_crop_of_a_smaller_frame_has_the_black_border_of_pil(width, height):
    """Sides of 222 and 223 px become 224: the window begins up to 4 px before the frame, or ends
    after it."""
    frames = np.maximum(golden_frame(width, height, 2), 60)[None]
    augment = replace(
        AUGMENT, {"short_side_px": 0, "crop": "multi_scale", "flip": 0.0, "grayscale": 0.0}
    )
    windows, image = set(), Image.fromarray(frames[0])
    for seed in range(40):
        x, y, w, h = multi_scale_crop(width, height, 224, np.random.default_rng(seed))
        windows |= {(x, y)} if x < 0 or y < 0 or x + w > width or y + h > height else set()
        clip = TrainTransform(224, augment)(frames, np.random.default_rng(seed))
        crop = image.crop((x, y, x + w, y + h)).resize((224, 224), Image.Resampling.BILINEAR)
        found = clip[0].permute(1, 2, 0).numpy().astype(int)  # [3, S, S] -> [S, S, 3]
        assert np.abs(found - np.asarray(crop)).max() <= 1, (x, y, w, h)
    assert len(windows) > 1

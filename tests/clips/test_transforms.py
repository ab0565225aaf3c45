"""Crops and resizing against golden numbers and against PIL."""

import json
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image

from clipzoo.clips.transforms import (
    TrainTransform,
    ViewTransform,
    crop_names,
    crop_places,
    decode,
    random_area_crop,
)
from clipzoo.config import AugmentConfig, replace
from clipzoo.models.pixels import OPENAI
from tiny import normalize

CASES = json.loads(Path("tests/golden/preprocess.json").read_text())
AUGMENT = AugmentConfig(
    randaugment_n=0,
    randaugment_m=9,
    short_side_px=256,
    crop="area",
    color_jitter=0.0,
    min_area=0.08,
    max_area=1.0,
    min_aspect=3 / 4,
    max_aspect=4 / 3,
    flip=0.5,
    grayscale=0.2,
    mixup_alpha=0.0,
    cutmix_alpha=0.0,
    mix_group=4,
    label_smoothing=0.0,
)


def golden_frame(width: int, height: int, seed: int) -> np.ndarray:
    """The frame that golden/README describes, uint8 [H, W, 3]."""
    rs = np.random.RandomState(seed)
    f, p = rs.uniform(0.01, 0.08, (3, 4)), rs.uniform(0, 6.28, (3, 2))
    y, x = np.mgrid[:height, :width]
    image = np.empty((height, width, 3))
    for c in range(3):
        image[..., c] = 127 + 60 * np.sin(f[c, 0] * x + f[c, 1] * y + p[c, 0])
        image[..., c] += 60 * np.cos(f[c, 2] * x - f[c, 3] * y + p[c, 1])
    return image.round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['width']}x{c['height']}")
def test_golden_views(case):
    size = case["width"], case["height"]
    frames = np.stack([golden_frame(*size, case["frame_seed"] + i) for i in range(2)])
    views = ViewTransform(case["size"], case["scale"], case["num_crops"])(frames)
    assert list(views.shape) == case["shape"]
    pixels = normalize(views)
    rows, columns = torch.tensor(case["probe_yx"]).T
    probes = pixels[..., rows, columns].transpose(-1, -2)  # [crops, T, probes, 3]
    tolerance = 2 / 255 / torch.tensor(OPENAI.std)
    assert ((probes - torch.tensor(case["probe"])).abs() < tolerance).all()
    assert (pixels.mean((2, 3, 4)) - torch.tensor(case["mean"])).abs().max() < 2e-3


def pil_train(image: np.ndarray, box: tuple[int, int, int, int], size: int) -> np.ndarray:
    x, y, w, h = box
    crop = Image.fromarray(image).crop((x, y, x + w, y + h))
    return np.asarray(crop.resize((size, size), Image.Resampling.BILINEAR))


@pytest.mark.parametrize("seed", range(6))
def test_train_crop_is_that_of_pil(seed):
    frames = np.stack([golden_frame(340, 256, 10 + i) for i in range(2)])
    augment = replace(AUGMENT, {"flip": 0.0, "grayscale": 0.0})
    clip = TrainTransform(224, augment)(frames, np.random.default_rng(seed))
    assert clip.shape == (2, 3, 224, 224)
    assert clip.dtype == torch.uint8
    box = random_area_crop(340, 256, augment, np.random.default_rng(seed))
    crops = clip.permute(0, 2, 3, 1).numpy()  # [T, 3, S, S] -> [T, S, S, 3]
    for frame, crop in zip(frames, crops, strict=True):
        difference = np.abs(crop.astype(int) - pil_train(frame, box, 224))
        assert difference.max() <= 1
        assert difference.mean() < 0.05


def test_train_resizes_the_short_side_first():
    frame = golden_frame(320, 240, 3)
    augment = replace(AUGMENT, {"flip": 0.0, "grayscale": 0.0})
    clip = TrainTransform(224, augment)(frame[None], np.random.default_rng(5))
    box = random_area_crop(341, 256, augment, np.random.default_rng(5))
    big = np.asarray(Image.fromarray(frame).resize((341, 256), Image.Resampling.BICUBIC))
    difference = np.abs(clip[0].permute(1, 2, 0).numpy().astype(int) - pil_train(big, box, 224))
    assert difference.max() <= 2


def test_flip_and_gray_hold_for_the_whole_clip():
    frames = np.stack([golden_frame(96, 80, i) for i in range(3)])
    flips = []
    for flip, gray in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)):
        config = replace(AUGMENT, {"short_side_px": 80, "flip": flip, "grayscale": gray})
        flips.append(TrainTransform(64, config)(frames, np.random.default_rng(0)))
    plain, flipped, gray = flips
    assert torch.equal(plain.flip(-1), flipped)
    assert torch.equal(gray[:, 0], gray[:, 1])
    luma = np.asarray(Image.fromarray(plain[1].permute(1, 2, 0).numpy()).convert("L"))
    assert np.abs(luma.astype(int) - gray[1, 0].numpy()).max() <= 1


def test_clips_are_flipped_and_gray_as_often_as_asked():
    """Of a whole frame that is red on the left and black on the right."""
    whole = {"short_side_px": 16, "min_area": 1.0, "min_aspect": 1.0, "max_aspect": 1.0}
    transform = TrainTransform(16, replace(AUGMENT, {**whole, "flip": 0.3, "grayscale": 0.1}))
    frame = np.zeros((1, 16, 16, 3), np.uint8)
    frame[:, :, :8, 0] = 255
    rng = np.random.default_rng(0)
    clips = torch.stack([transform(frame, rng)[0] for _ in range(2000)])  # [2000, 3, 16, 16]
    flipped, gray = clips[:, 0, 0, -1] > 0, clips[:, 2].amax((1, 2)) > 0
    assert float(flipped.float().mean()) == pytest.approx(0.3, abs=0.03)
    assert float(gray.float().mean()) == pytest.approx(0.1, abs=0.02)
    assert float((flipped & gray).float().mean()) == pytest.approx(0.03, abs=0.01)


def test_random_crops_cover_what_they_should():
    rng = np.random.default_rng(0)
    boxes = np.array([random_area_crop(340, 256, AUGMENT, rng) for _ in range(2000)])
    x, y, w, h = boxes.T
    area = w * h / (340 * 256)
    assert 0.07 < area.min() < 0.1
    assert area.max() > 0.9
    assert (x.min(), y.min()) == (0, 0)
    assert ((x + w).max(), (y + h).max()) == (340, 256)
    assert (w[area < 0.5] > h[area < 0.5]).mean() == pytest.approx(0.5, abs=0.05)
    assert (w / h).max() == pytest.approx(4 / 3, abs=0.02)
    assert (w / h).min() == pytest.approx(3 / 4, abs=0.02)


def test_random_crops_draw_from_the_whole_range_of_aspects():
    """From 0.8 to 2, swapped half of the time: above 1.25 either way in 0.75 / 1.2 of all."""
    config = replace(AUGMENT, {"min_area": 0.1, "max_area": 0.3})
    config = replace(config, {"min_aspect": 0.8, "max_aspect": 2.0})
    rng = np.random.default_rng(0)
    w, h = np.array([random_area_crop(1000, 1000, config, rng)[2:] for _ in range(4000)]).T
    longer = np.maximum(w / h, h / w)
    assert longer.max() == pytest.approx(2, abs=0.02)
    assert (longer > 1.25).mean() == pytest.approx(0.625, abs=0.03)


def test_a_frame_that_no_drawn_window_fits_gives_a_square():
    config = replace(AUGMENT, {"min_area": 0.9, "max_area": 1.0})
    _, y, w, h = random_area_crop(400, 50, config, np.random.default_rng(0))
    assert (y, w, h) == (0, 50, 50)


@pytest.mark.parametrize(
    ("crops", "expected"),
    [
        (1, [(58, 16, False)]),
        (3, [(0, 16, False), (116, 16, False), (58, 16, False)]),
        (5, [(0, 0, 0), (116, 0, 0), (0, 32, 0), (116, 32, 0), (58, 16, 0)]),
    ],
)
def test_crop_places(crops, expected):
    assert crop_places(340, 256, 224, crops) == expected
    assert len(crop_names(crops)) == crops


def test_ten_crops_are_five_and_their_mirror_images():
    frame = golden_frame(100, 90, 7)[None]
    ten = ViewTransform(64, 90, 10)(frame)
    five = ViewTransform(64, 90, 5)(frame)
    assert torch.equal(ten[0::2], five)
    assert torch.equal(ten[1::2], five.flip(-1))
    assert crop_names(10)[:2] == ["top-left", "top-left-flipped"]


def test_jpegs_and_arrays_give_the_same():
    frame = golden_frame(100, 72, 1)
    jpeg = simplejpeg.encode_jpeg(frame, quality=90)
    decoded = simplejpeg.decode_jpeg(jpeg)[None]
    transform = ViewTransform(64, 72, 3)
    assert torch.equal(transform([jpeg]), transform(decoded))


def test_jpegs_of_several_sizes_in_a_row():
    images = [golden_frame(w, h, 3) for w, h in ((64, 48), (100, 80), (32, 32), (64, 48))]
    for image in images:
        jpeg = simplejpeg.encode_jpeg(image, quality=95)
        assert (decode(jpeg) == simplejpeg.decode_jpeg(jpeg)).all()


def test_normalize():
    frames = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    expected = (torch.tensor([[0.0], [1.0]]) - torch.tensor(OPENAI.mean)) / torch.tensor(OPENAI.std)
    torch.testing.assert_close(normalize(frames)[..., 0, 0], expected)


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="crops: found 4; allowed"):
        ViewTransform(224, 256, 4)
    with pytest.raises(ValueError, match="at least the model's input of 224 px"):
        ViewTransform(224, 200, 1)

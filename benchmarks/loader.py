"""Loader speed: this project's loaders against a PIL loop over loose JPEG files, on one core.

    python benchmarks/loader.py [--videos FOLDER] [--rounds N]

Both read 8 of 280 frames of 340x256 and make the same crops to 224, so that their pixels can be
compared. The PIL loop is timed twice: up to uint8, where ours ends too (the device normalises), and
up to the normalised float32 clip, as in the authors' loaders. The three alternate in short rounds;
the ratio of each round is one measurement. Without --videos the frames are rendered (a zooming
fractal with noise, about 18 KB a frame).
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from workspace import NUM_FRAMES, NUM_VIDEOS, extracted, unpacked

from clipzoo.clips.clips import TrainClips, ViewClips
from clipzoo.clips.loader import load_batches
from clipzoo.clips.sampling import sample_test, sample_train
from clipzoo.clips.transforms import (
    TrainTransform,
    ViewTransform,
    random_area_crop,
)
from clipzoo.config import AugmentConfig
from clipzoo.data.records import Record
from clipzoo.models.clip import CLIP_MEAN, CLIP_STD

NUM_SEGMENTS, INPUT_PX, SHORT_SIDE_PX = 8, 224, 256
CLIPS_PER_ROUND = 40
GPU_CLIPS_PER_SECOND = 32 / 0.052
"""Rate at which one GPU trains ViT-B/32 on clips of 8 frames, by BIKE's published log
(k400/ViT-B/32/8f): 32 clips a GPU in 0.054 s, 0.002 s of it waiting for data; not measured."""
AUGMENT = AugmentConfig(
    short_side_px=SHORT_SIDE_PX,
    min_area=0.08,
    max_area=1.0,
    min_aspect=3 / 4,
    max_aspect=4 / 3,
    flip=0.5,
    grayscale=0.2,
)


def pil_train(folder: Path, num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """The steps of TrainClips.load by PIL: uint8 [T, 3, S, S]."""
    indices = sample_train(num_frames, NUM_SEGMENTS, rng)
    clip, box, flip, gray = [], None, False, False
    for i in indices:
        image = Image.open(folder / f"{i + 1:05d}.jpg").convert("RGB")
        if box is None:
            x, y, w, h = random_area_crop(*image.size, AUGMENT, rng)
            box = (x, y, x + w, y + h)
            flip, gray = rng.random() < AUGMENT.flip, rng.random() < AUGMENT.grayscale
        crop = image.crop(box).resize((INPUT_PX, INPUT_PX), Image.Resampling.BILINEAR)
        if flip:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if gray:
            crop = crop.convert("L").convert("RGB")
        clip.append(np.asarray(crop))
    return np.ascontiguousarray(np.stack(clip).transpose(0, 3, 1, 2))


def pil_view(folder: Path, num_frames: int) -> np.ndarray:
    """The steps of ViewClips.load, one clip and one crop, by PIL: uint8 [T, 3, S, S]."""
    clip = []
    for i in sample_test(num_frames, NUM_SEGMENTS, num_clips=1, dense=False)[0]:
        image = Image.open(folder / f"{i + 1:05d}.jpg").convert("RGB")
        x, y = round((image.width - INPUT_PX) / 2), round((image.height - INPUT_PX) / 2)
        clip.append(np.asarray(image.crop((x, y, x + INPUT_PX, y + INPUT_PX))))
    return np.ascontiguousarray(np.stack(clip).transpose(0, 3, 1, 2))


def to_floats(clip: np.ndarray) -> torch.Tensor:
    """uint8 [T, 3, S, S] -> float32, scaled and normalised step by step as the authors do."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return torch.from_numpy(clip).float().div(255).sub_(mean).div_(std)


def seconds(load: Callable[[int], object], positions: Sequence[int]) -> float:
    """Time to load the clips one after the other."""
    started = time.perf_counter()
    for position in positions:
        load(position)
    return time.perf_counter() - started


def compare(
    name: str, ours: Callable[[int], torch.Tensor], pil: Callable[[int], np.ndarray], rounds: int
) -> float:
    """Print ratios and pixel difference of two loaders; returns our clips a second (best round)."""
    pairs = [(ours(p).numpy().reshape(-1), pil(p).reshape(-1)) for p in range(20)]
    difference = float(np.mean([np.abs(a.astype(int) - b).mean() for a, b in pairs]))
    ratios: dict[str, list[float]] = {"normalised floats": [], "uint8": []}
    fastest = 0.0
    for number in range(rounds):
        positions = range(number * CLIPS_PER_ROUND, (number + 1) * CLIPS_PER_ROUND)
        fast = seconds(ours, positions)
        ratios["normalised floats"].append(seconds(lambda p: to_floats(pil(p)), positions) / fast)
        ratios["uint8"].append(seconds(pil, positions) / fast)
        fastest = max(fastest, CLIPS_PER_ROUND / fast)
    for end, values in ratios.items():
        print(
            f"{name}: {np.median(values):.2f} x PIL to {end} (median of {rounds} rounds; "
            f"{min(values):.2f} to {max(values):.2f})"
        )
    print(
        f"{name}: {fastest:.0f} clips/s a core, mean absolute pixel difference {difference:.4f} of "
        "255"
    )
    return fastest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=Path, help="folder of class folders with real videos")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument(
        "--gpu-clips-per-second",
        type=float,
        default=GPU_CLIPS_PER_SECOND,
        help="training rate of one GPU at ViT-B/32, 8 frames (default: of BIKE's published log)",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        store = extracted(Path(folder), arguments.videos, size="340x256")
        loose = unpacked(Path(folder))
        records = [Record(v, info.num_frames, 0) for v, info in store.videos.items()]
        if arguments.videos is None:
            assert len(records) == NUM_VIDEOS
            assert all(r.num_frames == NUM_FRAMES for r in records)
        train = TrainClips(store, records, TrainTransform(INPUT_PX, AUGMENT), NUM_SEGMENTS, 0)
        transform = ViewTransform(INPUT_PX, SHORT_SIDE_PX, 1)
        view = ViewClips(store, records, transform, NUM_SEGMENTS, 1, False)

        def record(position: int) -> Record:
            return records[position % len(records)]

        def slow_train(position: int) -> np.ndarray:
            rng = np.random.default_rng([0, 0, position])
            return pil_train(loose / record(position).video_id, record(position).num_frames, rng)

        def slow_view(position: int) -> np.ndarray:
            return pil_view(loose / record(position).video_id, record(position).num_frames)

        rate = compare("training loader", lambda p: train.load(p, 0), slow_train, arguments.rounds)
        compare("test loader", lambda p: view.load(p % len(records)), slow_view, arguments.rounds)
        threads = [_threaded(train, workers) for workers in (1, 2)]
        print(f"load_batches: 2 threads give {threads[1] / threads[0]:.2f} x one (on 2 cores)")
    needed = arguments.gpu_clips_per_second
    print(
        f"a GPU that trains ViT-B/32 on {needed:.0f} clips of 8 frames a second (a figure given, "
        f"not measured here) needs {needed:.0f} / {rate:.0f} = {needed / rate:.1f} loader cores"
    )


def _threaded(train: TrainClips, workers: int) -> float:
    """Clips a second of load_batches."""
    batches = [range(i, i + 16) for i in range(0, 240, 16)]
    started = time.perf_counter()
    for _ in load_batches(lambda p: train.load(p, 0), batches, workers):
        pass
    return 240 / (time.perf_counter() - started)


if __name__ == "__main__":
    main()

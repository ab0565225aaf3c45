"""Loader speed: this project's loaders against a PIL loop over loose JPEG files.

    python benchmarks/loader.py [--videos FOLDER] [--rounds N]

Frames are stored at two sizes: exactly 340x256, and with a short side of 320 px as in the recipes
of Kinetics, which must be resized to 256 before the crop. Both loops read 8 of 280 frames and make
the same crops to 224, so that their pixels can be compared. The PIL loop is timed twice: up to
uint8, where ours ends too (the device normalizes), and up to the normalized float32 clip, as in the
authors' loaders. The three alternate in short rounds, on one core; the ratio of each round's
processor times is one measurement. Without --videos the frames are rendered (a zooming fractal
with noise).

Then `load_batches` runs as in the stage `train`: in one or more processes at the same time, each
with several loader threads, and with the OMP_NUM_THREADS and the allocator settings of the
launcher. The processor time of a clip shows whether the threads hinder each other.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from workspace import DATASET, extracted, inside, params_for, render, unpacked

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
from clipzoo.data.store import ShardStore, Store, open_store
from clipzoo.models.pixels import OPENAI
from clipzoo.runtime.allocator import keep_freed_memory
from clipzoo.runtime.machine import usable_cores

NUM_SEGMENTS, INPUT_PX, SHORT_SIDE_PX = 8, 224, 256
SIZES = {"340x256": "340x256", "320": "426x320"}
"""Sizes of the stored frames, and those of the videos that are rendered for them."""
CLIPS_PER_ROUND = 40
BATCH, NUM_BATCHES = 16, 60
"""So many that the start of loader processes, 0.1 s, hardly counts."""
GPU_CLIPS_PER_SECOND = 32 / 0.052
"""Rate at which one GPU trains ViT-B/32 on clips of 8 frames, by BIKE's published log
(k400/ViT-B/32/8f): 32 clips a GPU in 0.054 s, 0.002 s of it waiting for data; not measured."""
AUGMENT = AugmentConfig(
    randaugment_n=0,
    randaugment_m=9,
    short_side_px=SHORT_SIDE_PX,
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


def pil_frame(folder: Path, index: int) -> Image.Image:
    """A frame with the short side that the crops expect."""
    image = Image.open(folder / f"{index + 1:05d}.jpg").convert("RGB")
    short = min(image.size)
    if short == SHORT_SIDE_PX:
        return image
    width, height = (side * SHORT_SIDE_PX // short for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def pil_train(folder: Path, num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """The steps of TrainClips.load by PIL: uint8 [T, 3, S, S]."""
    indices = sample_train(num_frames, NUM_SEGMENTS, rng)
    clip, box, flip, gray = [], None, False, False
    for i in indices:
        image = pil_frame(folder, i)
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
        image = pil_frame(folder, i)
        x, y = round((image.width - INPUT_PX) / 2), round((image.height - INPUT_PX) / 2)
        clip.append(np.asarray(image.crop((x, y, x + INPUT_PX, y + INPUT_PX))))
    return np.ascontiguousarray(np.stack(clip).transpose(0, 3, 1, 2))


def to_floats(clip: np.ndarray) -> torch.Tensor:
    """uint8 [T, 3, S, S] -> float32, scaled and normalized step by step as the authors do."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (OPENAI.mean, OPENAI.std))
    return torch.from_numpy(clip).float().div(255).sub_(mean).div_(std)


def seconds(load: Callable[[int], object], positions: Sequence[int]) -> float:
    """Processor time to load the clips one after the other, which other work disturbs less."""
    started = time.process_time()
    for position in positions:
        load(position)
    return time.process_time() - started


def compare(
    name: str, ours: Callable[[int], torch.Tensor], pil: Callable[[int], np.ndarray], rounds: int
) -> float:
    """Print ratios and pixel difference of two loaders; returns our clips a second (best round)."""
    pairs = [(ours(p).numpy().reshape(-1), pil(p).reshape(-1)) for p in range(20)]
    difference = float(np.mean([np.abs(a.astype(int) - b).mean() for a, b in pairs]))
    ratios: dict[str, list[float]] = {"normalized floats": [], "uint8": []}
    fastest = 0.0
    for number in range(rounds):
        positions = range(number * CLIPS_PER_ROUND, (number + 1) * CLIPS_PER_ROUND)
        fast = seconds(ours, positions)
        ratios["normalized floats"].append(seconds(lambda p: to_floats(pil(p)), positions) / fast)
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


def train_clips(store: Store) -> TrainClips:
    """Training clips of all videos of a store."""
    records = [Record(v, info.num_frames, 0) for v, info in store.videos.items()]
    return TrainClips(store, records, TrainTransform(INPUT_PX, AUGMENT), NUM_SEGMENTS, 0)


def compare_size(folder: Path, videos: Path | None, size: str, rounds: int) -> float:
    """Compare both loaders on frames of one size; returns our training clips a second."""
    torch.set_num_threads(1)  # of this process, which computes the PIL loop's floats, on one core
    store = extracted(folder, videos or render(folder / "videos", size=SIZES[size]), size)
    loose = unpacked(folder)
    train = train_clips(store)
    records = train.records
    transform = ViewTransform(INPUT_PX, SHORT_SIDE_PX, 1)
    view = ViewClips(store, records, transform, NUM_SEGMENTS, 1, False)

    def slow_train(position: int) -> np.ndarray:
        record, rng = train.record(position), np.random.default_rng([0, 0, position])
        return pil_train(loose / record.video_id, record.num_frames, rng)

    def slow_view(position: int) -> np.ndarray:
        record = train.record(position)
        return pil_view(loose / record.video_id, record.num_frames)

    rate = compare(f"{size}, training loader", lambda p: train.load(p, 0), slow_train, rounds)
    compare(f"{size}, test loader", lambda p: view.load(p % len(records)), slow_view, rounds)
    return rate


def as_train_loads(folder: Path, size: str) -> None:
    """Print the speed of `load_batches` in processes with loaders like those of `train`."""
    cores = usable_cores()
    for processes, threads in dict.fromkeys([(1, 1), (1, 2), (1, cores), (2, 1), (cores, 1)]):
        omp_threads = max(1, cores // processes)  # as in runtime/launch.py
        command = [sys.executable, __file__, "--load", str(folder), size, str(threads)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(omp_threads)}
        children = [
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
            for _ in range(processes)
        ]
        outputs = [child.communicate()[0].split() for child in children]
        rate = sum(float(rate) for rate, _ in outputs)
        cpu_ms = np.mean([float(cpu_ms) for _, cpu_ms in outputs])
        print(
            f"{size}, load_batches: {rate:.0f} clips/s and {cpu_ms:.1f} ms of processor time a "
            f"clip with {processes} x {threads} loaders (processes of a stage x loaders), "
            f"OMP_NUM_THREADS={omp_threads}, on {cores} cores"
        )


def load(folder: Path, size: str, threads: int) -> None:
    """Print clips a second and processor ms a clip of `load_batches` here, in the best of 3."""
    keep_freed_memory()
    with inside(folder):
        store = open_store(params_for(size), DATASET)
        assert isinstance(store, ShardStore)
        clips = train_clips(store)
        batches = [range(i * BATCH, (i + 1) * BATCH) for i in range(NUM_BATCHES)]
        times = []
        for _ in range(3):
            started, cpu_started = time.perf_counter(), used_cpu()
            for _ in load_batches(lambda p: clips.load(p, 0), batches, threads):
                pass
            times.append((time.perf_counter() - started, used_cpu() - cpu_started))
    seconds, cpu_seconds = min(times)
    num_clips = BATCH * NUM_BATCHES
    print(num_clips / seconds, 1000 * cpu_seconds / num_clips)


def used_cpu() -> float:
    """Processor time of this process, and of loaders that have ended."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in usage)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=Path, help="folder of class folders with real videos")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument(
        "--gpu-clips-per-second",
        type=float,
        default=GPU_CLIPS_PER_SECOND,
        help="training rate of one GPU at ViT-B/32, 8 frames (default: of BIKE's published log)",
    )
    parser.add_argument("--load", nargs=3, help=argparse.SUPPRESS)  # of `as_train_loads`
    arguments = parser.parse_args()
    if arguments.load:
        folder, size, threads = arguments.load
        load(Path(folder), size, int(threads))
        return
    needed = arguments.gpu_clips_per_second
    with tempfile.TemporaryDirectory() as temporary:
        for size in SIZES:
            folder = Path(temporary) / size
            folder.mkdir()
            rate = compare_size(folder, arguments.videos, size, arguments.rounds)
            as_train_loads(folder, size)
            print(
                f"{size}: a GPU that trains ViT-B/32 on {needed:.0f} clips of 8 frames a second "
                f"(a figure given, not measured here) needs {needed:.0f} / {rate:.0f} = "
                f"{needed / rate:.1f} loader cores"
            )


if __name__ == "__main__":
    main()

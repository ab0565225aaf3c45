"""What the augmentations cost: training clips a second of one core, against Text4Vis's transform.

    python benchmarks/augmentation.py [--videos FOLDER] [--rounds N]

Frames are stored at 340x256; a clip is 8 of 280 frames, read, decoded and cropped to 224 px. All
variants load the same clips, in turn, in short rounds; the ratio of each round's processor times is
one measurement. Without --videos the frames are rendered (a zooming fractal with noise).
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from loader import AUGMENT, CLIPS_PER_ROUND, INPUT_PX, NUM_SEGMENTS, seconds
from workspace import extracted, render

from clipzoo.clips.clips import TrainClips
from clipzoo.clips.transforms import TrainTransform
from clipzoo.config import replace
from clipzoo.data.records import Record
from clipzoo.runtime.allocator import keep_freed_memory

SIZE = "340x256"
RANDAUGMENT = {"randaugment_n": 2, "randaugment_m": 9}
CROP = {"crop": "multi_scale", "short_side_px": 0}
JITTER = {"color_jitter": 0.8}
VARIANTS = {
    "Text4Vis and BIKE": {},
    "Text4Vis on Kinetics-400 (RandAugment)": RANDAUGMENT,
    "multi-scale crop": CROP,
    "color jitter": JITTER,
    "ActionCLIP on UCF101 and HMDB51 (crop, jitter)": CROP | JITTER,
    "ActionCLIP on Kinetics-400 (crop, jitter, RandAugment)": CROP | JITTER | RANDAUGMENT,
}
"""What differs from Text4Vis's augmentation."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=Path, help="folder of class folders with real videos")
    parser.add_argument("--rounds", type=int, default=11)
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        videos = arguments.videos or render(folder / "videos", size=SIZE)
        store = extracted(folder, videos, SIZE)
        records = [Record(v, info.num_frames, 0) for v, info in store.videos.items()]
        loaders = {
            name: TrainClips(
                store,
                records,
                TrainTransform(INPUT_PX, replace(AUGMENT, changes)),
                NUM_SEGMENTS,
                0,
            )
            for name, changes in VARIANTS.items()
        }
        taken = {name: [] for name in VARIANTS}
        for number in range(arguments.rounds):
            positions = range(number * CLIPS_PER_ROUND, (number + 1) * CLIPS_PER_ROUND)
            for name, clips in loaders.items():
                taken[name].append(seconds(lambda p, clips=clips: clips.load(p, 0), positions))
    base = np.array(taken["Text4Vis and BIKE"])
    for name, times in taken.items():
        ratios = np.array(times) / base
        print(
            f"{name}: {CLIPS_PER_ROUND / min(times):.0f} clips a second of a core, "
            f"{np.median(ratios):.2f} times the time of Text4Vis's "
            f"(median of {len(ratios)} rounds; {ratios.min():.2f} to {ratios.max():.2f})"
        )


if __name__ == "__main__":
    main()

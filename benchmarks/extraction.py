"""Extraction speed: the extract_frames stage against bare ffmpeg processes on all cores.

    python benchmarks/extraction.py [--videos FOLDER] [--rounds N]

Both decode the same videos and make the same JPEGs with the same ffmpeg; the bare processes write
loose files, with one process per video and as many at once as there are cores. The two alternate;
the ratio of each round is one measurement. The time includes starting the worker processes.
"""

import argparse
import contextlib
import io
import resource
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from workspace import DATASET, inside, params_for, render

from clipzoo.commands.scan import scan
from clipzoo.data.decoding import jpeg_command
from clipzoo.frames.extraction import extract
from clipzoo.frames.manifest import read_manifest
from clipzoo.runtime.machine import usable_cores

SIZE = "340x256"
COPIES = 8
"""Number of copies of each rendered video: enough for a few seconds of work."""


def bare(root: Path, target: Path, workers: int) -> float:
    """Seconds that bare ffmpeg processes take to write loose JPEGs."""
    paths = [root / video.path for video in read_manifest(Path(f"data/raw/{DATASET}.csv"))]

    def run(number: int) -> None:
        folder = target / str(number)
        folder.mkdir(parents=True)
        command = jpeg_command(paths[number], SIZE, 3, None)
        command[command.index("image2pipe")] = "image2"
        command[-1] = str(folder / "%05d.jpg")
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)

    started = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(run, range(len(paths))))
    return time.perf_counter() - started


def ours(workers: int) -> float:
    """Seconds that the stage takes for the same videos."""
    params = params_for(SIZE, shard_videos=3, extract_workers=workers)
    started = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):
        extract(params, DATASET)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=Path, help="folder of class folders with real videos")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    workers = usable_cores()
    with tempfile.TemporaryDirectory() as name, inside(Path(name)):
        Path("datasets").mkdir()
        root = arguments.videos or render(Path("videos").resolve())
        if arguments.videos is None:
            for path in sorted((root / "zoom").iterdir()):
                for copy in range(1, COPIES):
                    shutil.copy(path, path.with_stem(f"{path.stem}-{copy}"))
        scan(DATASET, root)
        ratios = []
        for _ in range(arguments.rounds):
            plain = bare(root, Path("loose"), workers)
            loose = sum(p.stat().st_size for p in Path("loose").rglob("*.jpg"))
            count = sum(1 for _ in Path("loose").rglob("*.jpg"))
            shutil.rmtree("loose")
            mine = ours(workers)
            stored = sum(p.stat().st_size for p in Path("data/frames").rglob("*.tar"))
            shutil.rmtree("data/frames")
            ratios.append(plain / mine)
            print(
                f"bare ffmpeg {plain:.1f} s, extract_frames {mine:.1f} s: ratio {plain / mine:.2f}"
                f" ({count / mine:.0f} frames/s; {loose / 1e6:.0f} MB loose, {stored / 1e6:.0f} MB)"
            )
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
    print(f"median ratio {np.median(ratios):.2f}, lowest {min(ratios):.2f}, on {workers} cores")
    print(f"largest memory of a worker or ffmpeg process: {peak:.0f} MB")


if __name__ == "__main__":
    main()

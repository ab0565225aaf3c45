"""Processes that load clips as training does, when told to: for benchmarks/gpu_fed.py.

    python benchmarks/gpu_loading.py FOLDER SIZE NUM_SEGMENTS INPUT_PX

Prints 0 once it is ready; then, for each line `threads seconds torch_threads` on its input, the
clips a second of that many loader threads.
"""

import contextlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from workspace import DATASET, ROOT, inside, params_for

from clipzoo.clips.clips import TrainClips
from clipzoo.clips.loader import load_batches
from clipzoo.clips.transforms import TrainTransform
from clipzoo.config import AugmentConfig
from clipzoo.data.records import Record
from clipzoo.data.store import Store, open_store
from clipzoo.runtime.allocator import keep_freed_memory

SHORT_SIDE_PX = 256
LOADED_AT_ONCE = 8
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
)


def train_clips(store: Store, num_segments: int, input_px: int) -> TrainClips:
    """The clips that training would load."""
    records = [
        Record(video, info.num_frames, i) for i, (video, info) in enumerate(store.videos.items())
    ]
    return TrainClips(store, records, TrainTransform(input_px, AUGMENT), num_segments, 0)


class Server:
    """A process that loads clips when told to."""

    def __init__(self, folder: Path, size: str, num_segments: int, input_px: int) -> None:
        command = [sys.executable, str(Path(__file__).resolve()), str(folder), size]
        command += [str(num_segments), str(input_px)]
        paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            command,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, workers: int, seconds: float, torch_threads: int) -> None:
        """Start loading; 0 torch threads leave torch as it is."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{workers} {seconds} {torch_threads}\n")
        self._process.stdin.flush()

    def answer(self) -> float:
        """The next number that the process prints: 0 once it is ready, then clips a second."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a loading process ended with {self._process.wait()}")
        return float(line)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def servers(
    folder: Path, size: str, num_segments: int, input_px: int, count: int
) -> Iterator[list[Server]]:
    """`count` processes that are ready to load; ended afterwards."""
    running = [Server(folder, size, num_segments, input_px) for _ in range(count)]
    try:
        for server in running:
            server.answer()
        yield running
    finally:
        for server in running:
            server.close()


def serve(folder: Path, size: str, num_segments: int, input_px: int) -> None:
    """Load clips as training does, for each line on the input: threads, seconds, torch threads."""
    keep_freed_memory()
    with inside(folder):
        store = open_store(params_for(size), DATASET)
        clips = train_clips(store, num_segments, input_px)
        print(0, flush=True)
        for line in sys.stdin:
            workers, seconds, torch_threads = line.split()
            if int(torch_threads):
                torch.set_num_threads(int(torch_threads))
            print(_rate(clips, int(workers), float(seconds)), flush=True)


def _rate(clips: TrainClips, workers: int, seconds: float) -> float:
    """Clips a second of `load_batches`, once its queue is full."""
    batches: Iterator[Sequence[int]] = (
        range(i, i + LOADED_AT_ONCE) for i in itertools.count(0, LOADED_AT_ONCE)
    )
    loader = load_batches(
        lambda position: clips.load(position, 0), batches, workers, pin=torch.cuda.is_available()
    )
    for _ in range(2 + workers // LOADED_AT_ONCE):
        next(loader)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        count += len(next(loader)[0])
    rate = count / (time.perf_counter() - began)
    cast(Any, loader).close()
    return rate


if __name__ == "__main__":
    folder, size, num_segments, input_px = sys.argv[1:]
    serve(Path(folder), size, int(num_segments), int(input_px))

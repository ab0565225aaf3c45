"""Processes that load clips as training does, when told to: for benchmarks/gpu_fed.py.

    python benchmarks/gpu_loading.py INDEX NUM_SEGMENTS INPUT_PX

INDEX is the index.parquet of a frame store. Prints 0 once it is ready; then, for each line `kind
workers seconds torch_threads` on its input, the clips a second of that many loader threads or
processes.
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
from gpu_setting import ROOT

from clipzoo.clips.clips import TrainClips
from clipzoo.clips.loader import load_batches, load_in_threads
from clipzoo.clips.transforms import TrainTransform
from clipzoo.data.records import Record
from clipzoo.data.store import ShardStore, Store
from clipzoo.report.recipes import load_recipe
from clipzoo.runtime.allocator import keep_freed_memory

LOADED_AT_ONCE = 8
RECIPE = "text4vis/k400-vitl14-f8"
"""Whose augmentation is measured: RandAugment with N 2, crop, flip, grayscale."""
KINDS = {"threads": load_in_threads, "processes": load_batches}
"""`processes` is what `runtime.workers` means; with one worker, both are one thread."""


def train_clips(store: Store, num_segments: int, input_px: int) -> TrainClips:
    """The clips that training would load."""
    records = [
        Record(video, info.num_frames, i) for i, (video, info) in enumerate(store.videos.items())
    ]
    augment = load_recipe(RECIPE, ROOT)[1].augment
    return TrainClips(store, records, TrainTransform(input_px, augment), num_segments, 0)


class Server:
    """A process that loads clips when told to."""

    def __init__(self, index: Path, num_segments: int, input_px: int) -> None:
        command = [sys.executable, str(Path(__file__).resolve()), str(index)]
        command += [str(num_segments), str(input_px)]
        paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            command,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, kind: str, workers: int, seconds: float, torch_threads: int) -> None:
        """Start loading by one of KINDS; 0 torch threads leave torch as it is."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{kind} {workers} {seconds} {torch_threads}\n")
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
def servers(index: Path, num_segments: int, input_px: int, count: int) -> Iterator[list[Server]]:
    """`count` processes that are ready to load; ended afterwards."""
    running = [Server(index, num_segments, input_px) for _ in range(count)]
    try:
        for server in running:
            server.answer()
        yield running
    finally:
        for server in running:
            server.close()


def serve(index: Path, num_segments: int, input_px: int) -> None:
    """Load clips as training does, for each line on the input."""
    keep_freed_memory()
    clips = train_clips(ShardStore(index), num_segments, input_px)
    print(0, flush=True)
    for line in sys.stdin:
        kind, workers, seconds, torch_threads = line.split()
        if int(torch_threads):
            torch.set_num_threads(int(torch_threads))
        print(_rate(clips, kind, int(workers), float(seconds)), flush=True)


def _rate(clips: TrainClips, kind: str, workers: int, seconds: float) -> float:
    """Clips a second, once the queue is full."""
    batches: Iterator[Sequence[int]] = (
        range(i, i + LOADED_AT_ONCE) for i in itertools.count(0, LOADED_AT_ONCE)
    )
    loader = KINDS[kind](
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
    index, num_segments, input_px = sys.argv[1:]
    serve(Path(index), int(num_segments), int(input_px))

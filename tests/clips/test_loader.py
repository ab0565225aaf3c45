"""Batches keep their order, stay within bounds and name all errors."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
import psutil
import pytest
import torch
from test_transforms import AUGMENT

from clipzoo.clips import loader
from clipzoo.clips.loader import load_batches, load_in_threads
from clipzoo.clips.loader_processes import LoaderDied, _load_at
from clipzoo.clips.placing import new_clip, place_next
from clipzoo.clips.transforms import TrainTransform
from clipzoo.config import replace
from clipzoo.data.index import StoreError


@pytest.mark.parametrize("workers", [1, 4])
def test_batches_keep_their_order(workers):
    def load(position: int) -> torch.Tensor:
        time.sleep(0.002 * (position % 3))
        return torch.tensor([position])

    batches = [[0, 1, 2], [3, 4], [5], [6, 7, 8, 9]]
    loaded = list(load_in_threads(load, batches, workers))
    assert [batch for batch, _ in loaded] == batches
    assert [t.flatten().tolist() for _, t in loaded] == batches


def test_threads_write_the_clips_into_the_memory_of_their_batch(monkeypatch):
    """Pinned if asked; clips may be views with any strides."""
    pinned, writers, empty, copyto = [], set(), torch.empty, loader.np.copyto

    def allocate(shape, *, dtype, pin_memory):
        pinned.append((tuple(shape), dtype, pin_memory))
        return empty(shape, dtype=dtype)

    def copy(target, source):
        writers.add(threading.current_thread().name)
        copyto(target, source)

    monkeypatch.setattr(loader.torch, "empty", allocate)
    monkeypatch.setattr(loader.np, "copyto", copy)
    clip = torch.arange(6, dtype=torch.uint8).view(2, 3).T  # [3, 2]
    for pin in (False, True):
        batches = list(load_in_threads(lambda p: clip + p, [[0, 1], [2]], 2, pin=pin))
        expected = [torch.stack([clip, clip + 1]), (clip + 2)[None]]
        assert all(torch.equal(b, e) for (_, b), e in zip(batches, expected, strict=True))
    shapes = {((n, 3, 2), torch.uint8, True) for n in (1, 2)}
    assert set(pinned) == shapes
    assert len(pinned) == 2, "once a batch"
    assert all(name.startswith("loader") for name in writers)


def test_clips_of_a_batch_have_one_shape():
    with pytest.raises(AssertionError):
        list(load_in_threads(lambda p: torch.zeros(1 + p), [[0, 1]], 1))


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (3, 1), (3, 4)])
def test_the_next_batch_is_loaded_while_the_consumer_holds_one(batch_size, workers):
    batches = [[i * batch_size + k for k in range(batch_size)] for i in range(6)]
    loaded = [threading.Event() for _ in range(6 * batch_size)]

    def load(position: int) -> torch.Tensor:
        loaded[position].set()
        return torch.zeros(1)

    for i, _ in enumerate(load_in_threads(load, batches, workers)):
        for position in batches[i + 1] if i + 1 < len(batches) else []:
            # Only a loader that does not load ahead waits here until the timeout.
            assert loaded[position].wait(timeout=20), f"batch {i} is held, {position} not loaded"


@pytest.mark.parametrize(("batch_size", "workers", "ahead"), [(4, 4, 2), (4, 1, 2), (1, 4, 8)])
def test_little_is_loaded_ahead(batch_size, workers, ahead):
    drawn = []

    def batches():
        for i in range(1000):
            drawn.append(i)
            yield [i] * batch_size

    batches_ahead = load_in_threads(lambda position: torch.zeros(1), batches(), workers)
    for step in range(3):
        next(batches_ahead)
        assert len(drawn) == step + ahead  # what is not drawn cannot be loaded
    batches_ahead.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert not [t for t in threading.enumerate() if t.name.startswith("loader")]


def test_all_broken_videos_in_the_queue_are_listed():
    def load(position: int) -> torch.Tensor:
        if position % 2:
            raise StoreError(f"v{position}: broken")
        return torch.zeros(1)

    with pytest.raises(StoreError, match="3 videos cannot be read") as caught:
        list(load_batches(load, [[0, 1], [2, 3], [5, 6], [8, 9]], 3))
    assert all(f"v{i}: broken" in str(caught.value) for i in (1, 3, 5))


def test_a_bug_is_not_taken_for_a_broken_video():
    def load(position: int) -> torch.Tensor:
        raise KeyError(position)

    with pytest.raises(KeyError):
        list(load_batches(load, [[0]], 1))


def clips_of_noise() -> Callable[[int], torch.Tensor]:
    frames = np.random.default_rng(0).integers(0, 256, (2, 40, 60, 3), dtype=np.uint8)
    transform = TrainTransform(32, replace(AUGMENT, {"randaugment_n": 2, "color_jitter": 0.5}))
    return lambda position: transform(frames, np.random.default_rng(position))


def test_batches_are_the_same_bits_in_any_number_of_processes():
    batches = [[0, 1, 2], [3], [4, 5, 6, 7], [9, 8]]
    one, two, four = (list(load_batches(clips_of_noise(), batches, n)) for n in (1, 2, 4))
    for expected, *found in zip(one, two, four, strict=True):
        for positions, clips in found:
            assert positions == expected[0]
            assert torch.equal(clips, expected[1])
    assert not multiprocessing.active_children()


def test_each_worker_is_a_process_and_the_interpreter_runs_in_all_at_once():
    def load(position: int) -> torch.Tensor:
        time.sleep(0.05)
        return torch.tensor([os.getpid()])

    loaded = load_batches(load, [[p] for p in range(12)], 3)
    pids = {int(clips[0, 0]) for _, clips in loaded}
    assert len(pids) == 3
    assert os.getpid() not in pids


def test_a_process_makes_a_clip_in_the_memory_that_it_shares():
    """Not what `load` has made before, of another size, or second; this is copied."""
    clip, other = torch.zeros(2, 3, dtype=torch.uint8), torch.ones(2, 3, dtype=torch.uint8)
    made = []

    def load(position: int) -> torch.Tensor:
        sizes = {0: [(2, 3)], 1: [(7,), (3, 2)], 2: [(2, 3), (2, 3)], 3: []}[position]
        made[:] = [torch.from_numpy(new_clip(*size)).fill_(position + 5) for size in sizes]
        return made[-1].view(2, 3) if made else other

    for position, places in enumerate([[True], [False, True], [True, False], []]):
        _load_at(clip, load, position)
        assert [part.data_ptr() == clip.data_ptr() for part in made] == places
        assert clip.tolist() == [[position + 5 if made else 1] * 3] * 2
    with pytest.raises(AssertionError):  # NumPy would broadcast it
        _load_at(clip, lambda position: torch.ones(3, dtype=torch.uint8), 0)
    place_next(torch.zeros(6).numpy())
    assert new_clip(6).dtype == np.uint8


@pytest.mark.parametrize("workers", [1, 3])
def test_broken_videos_are_listed_from_all_processes(workers):
    def load(position: int) -> torch.Tensor:
        if position in (1, 2):
            raise StoreError(f"v{position}: broken")
        return torch.zeros(1)

    with pytest.raises(StoreError, match="2 videos cannot be read") as caught:
        list(load_batches(load, [[0, 1], [2, 3]], workers))
    assert "v1: broken" in str(caught.value)
    with pytest.raises(StoreError, match="v1: broken"):  # the first clip of all
        list(load_batches(load, [[1, 0]], workers))


def test_a_bug_in_a_process_shows_its_traceback():
    def load(position: int) -> torch.Tensor:
        return torch.zeros(1) if position < 2 else torch.zeros([][position])

    with pytest.raises(RuntimeError, match=r"(?s)in load\n.*IndexError"):
        list(load_batches(load, [[0, 1], [2, 3]], 2))


def test_a_killed_process_is_named_at_once():
    def load(position: int) -> torch.Tensor:
        if position == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.zeros(1)

    began = time.monotonic()
    with pytest.raises(
        LoaderDied, match=r"process loader \d \(\d+\) was killed by signal 9 .*memory"
    ):
        list(load_batches(load, [[0, 1], [2, 3], [4, 5]], 2))
    assert time.monotonic() - began < 10
    assert not multiprocessing.active_children()


def test_no_process_outlives_a_loader_that_is_closed():
    loaded = load_batches(lambda p: torch.zeros(1), [[p] for p in range(100)], 2)
    next(loaded)
    assert len(multiprocessing.active_children()) == 2
    loaded.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert not multiprocessing.active_children()


PARENT = """
import sys, time, torch
from clipzoo.clips.loader import load_batches

def load(position):
    if position:
        print(__import__("os").getpid(), flush=True)
        time.sleep(600)
    return torch.zeros(1)

loaded = load_batches(load, [[0], [1], [2]], 2)
next(loaded)
time.sleep(600)
"""


def test_no_process_outlives_a_parent_that_is_killed():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(parent.stdout.readline()) for _ in range(2)]
    parent.kill()
    parent.communicate()
    _, alive = psutil.wait_procs([psutil.Process(p) for p in pids if psutil.pid_exists(p)], 10)
    assert not alive

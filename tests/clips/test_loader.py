"""Batches keep their order, stay within bounds and name all errors."""

import threading
import time

import pytest
import torch

from clipzoo.clips import loader
from clipzoo.clips.loader import load_batches
from clipzoo.data.index import StoreError


@pytest.mark.parametrize("workers", [1, 4])
def test_batches_keep_their_order(workers):
    def load(position: int) -> torch.Tensor:
        time.sleep(0.002 * (position % 3))
        return torch.tensor([position])

    batches = [[0, 1, 2], [3, 4], [5], [6, 7, 8, 9]]
    loaded = list(load_batches(load, batches, workers))
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
        batches = list(load_batches(lambda p: clip + p, [[0, 1], [2]], 2, pin=pin))
        expected = [torch.stack([clip, clip + 1]), (clip + 2)[None]]
        assert all(torch.equal(b, e) for (_, b), e in zip(batches, expected, strict=True))
    shapes = {((n, 3, 2), torch.uint8, True) for n in (1, 2)}
    assert set(pinned) == shapes
    assert len(pinned) == 2, "once a batch"
    assert all(name.startswith("loader") for name in writers)


def test_clips_of_a_batch_have_one_shape():
    with pytest.raises(AssertionError):
        list(load_batches(lambda p: torch.zeros(1 + p), [[0, 1]], 1))


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (3, 1), (3, 4)])
def test_the_next_batch_is_loaded_while_the_consumer_holds_one(batch_size, workers):
    batches = [[i * batch_size + k for k in range(batch_size)] for i in range(6)]
    loaded = [threading.Event() for _ in range(6 * batch_size)]

    def load(position: int) -> torch.Tensor:
        loaded[position].set()
        return torch.zeros(1)

    for i, _ in enumerate(load_batches(load, batches, workers)):
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

    batches_ahead = load_batches(lambda position: torch.zeros(1), batches(), workers)
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

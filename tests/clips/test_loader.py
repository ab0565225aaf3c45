"""Batches keep their order, stay within bounds and name all errors."""

import threading
import time

import pytest
import torch

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

    loader = load_batches(lambda position: torch.zeros(1), batches(), workers)
    for step in range(3):
        next(loader)
        assert len(drawn) == step + ahead  # what is not drawn cannot be loaded
    loader.close()  # pyright: ignore[reportAttributeAccessIssue]
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

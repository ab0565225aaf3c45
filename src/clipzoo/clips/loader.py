"""Load batches ahead, in threads and processes."""

import concurrent.futures
import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clipzoo.clips.loader_processes import Load, loading_processes
from clipzoo.data.store import StoreError
from clipzoo.files import ListError, raise_all

Loaded = Iterator[tuple[Sequence[int], Tensor]]
"""Positions and clips, [B, ...], of each batch."""


def load_batches(
    load: Load, batches: Iterable[Sequence[int]], workers: int, *, pin: bool = False
) -> Loaded:
    """Load batches ahead: in a thread, or in several processes, each behind a thread of its own.

    Args:
        load: is called in the processes, and once in this one.
        batches: the positions of each batch.
        workers: 1 = a thread; the number of processes. Batches do not depend on it.
        pin: put the batches into page-locked memory, from which a GPU copies without blocking.

    Yields:
        (positions, tensor [B, ...]) in the order of `batches`.

    Raises:
        StoreError: frames cannot be read or do not fit; lists those of all clips in the queue.
        LoaderDied: a process was killed.
    """
    remaining = iter(batches)
    if workers == 1 or (first := next(remaining, None)) is None:
        yield from load_in_threads(load, remaining, workers, pin=pin)
        return
    remaining = itertools.chain([first], remaining)
    try:
        elsewhere = loading_processes(load, workers, example=load(first[0]))
    except (StoreError, ListError):  # is raised again, together with others
        elsewhere = contextlib.nullcontext(load)
    with elsewhere as load_one:
        yield from load_in_threads(load_one, remaining, workers, pin=pin)


def load_in_threads(
    load: Load, batches: Iterable[Sequence[int]], workers: int, *, pin: bool = False
) -> Loaded:
    """Load batches in threads, a bounded number ahead; arguments and errors as `load_batches`.

    The queue holds two batches, or more until they have 2 * workers clips, however slow the
    consumer is. The threads also write the clips into the memory of their batch: the consumer has
    nothing to copy.
    """
    # 2 workers, batches of 3 clips. While the consumer holds the first batch:
    #
    #   remaining   [6 7 8] [9 10 11] ...   not yet drawn from `batches`
    #   queue       [3 4 5]                 futures: the threads load 3 and 4, then 5
    #   consumer    [0 1 2]                 one tensor [3, ...]
    #
    # When it asks for the next batch, [6 7 8] joins the queue first, so that the threads have work
    # while the consumer waits for the last clips of [3 4 5].
    remaining = iter(batches)
    ids: list[int] = []
    pool = concurrent.futures.ThreadPoolExecutor(
        workers, "loader", initializer=lambda: ids.append(threading.get_native_id())
    )
    queue: deque[tuple[_Batch, list[concurrent.futures.Future[None]]]] = deque()

    def fill(batch: _Batch, i: int) -> None:
        batch.write(i, load(batch.positions[i]))

    try:
        while True:
            while len(queue) < 2 or sum(len(futures) for _, futures in queue) < 2 * workers:
                positions = next(remaining, None)
                if positions is None:
                    break
                batch = _Batch(positions, pin)
                queue.append((batch, [pool.submit(fill, batch, i) for i in range(len(positions))]))
            if not queue:
                return
            batch, futures = queue.popleft()
            if any(future.exception() for future in futures):
                futures += [future for _, more in queue for future in more]
                _raise_faults([e for f in futures if (e := f.exception()) is not None])
            yield batch.positions, batch.clips()
            del batch, futures  # frees the memory while the next batch is awaited
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        _await_end(ids)


def _await_end(ids: Sequence[int]) -> None:
    """Wait until the system has ended threads. Python has let go of them before; OpenCV still frees
    what it has of them, under a lock that a fork would copy while it is held."""
    while any(Path(f"/proc/self/task/{number}").exists() for number in ids):
        time.sleep(1e-4)


class _Batch:
    """The memory of one batch, which the first of its clips allocates.

    A GPU may still copy from it when the consumer has dropped it: torch reuses page-locked memory
    only after the copies from it have finished.
    """

    def __init__(self, positions: Sequence[int], pin: bool) -> None:
        self.positions = positions
        self._pin = pin
        self._memory: Tensor | None = None
        self._lock = threading.Lock()

    def write(self, i: int, clip: Tensor) -> None:
        """Put a clip [...] at place i."""
        with self._lock:  # threads finish their first clips at the same time
            if self._memory is None:
                shape = (len(self.positions), *clip.shape)
                if self._pin:
                    self._memory = torch.empty(shape, dtype=clip.dtype, pin_memory=True)
                else:  # NumPy asks the kernel for huge pages, of which it clears far fewer
                    self._memory = torch.from_numpy(np.empty(shape, clip.numpy().dtype))
        assert (clip.shape, clip.dtype) == (self._memory.shape[1:], self._memory.dtype)
        # By NumPy, because torch would copy a whole clip with a team of OpenMP threads.
        np.copyto(self._memory[i].numpy(), clip.numpy())

    def clips(self) -> Tensor:
        """All clips of the batch, [B, ...]."""
        assert self._memory is not None, "a batch has at least one clip"
        return self._memory


def _raise_faults(errors: list[BaseException]) -> None:
    """Raise one StoreError for all broken videos; any other error, a bug, is raised unchanged."""
    for error in errors:
        if not isinstance(error, (StoreError, ListError)):
            raise error
    faults = list(dict.fromkeys(str(error) for error in errors))
    raise_all(f"{len(faults)} videos cannot be read", faults, StoreError)

"""Threads that load batches ahead."""

import concurrent.futures
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from clipzoo.data.store import StoreError
from clipzoo.files import ListError, raise_all


def load_batches(
    load: Callable[[int], Tensor], batches: Iterable[Sequence[int]], workers: int
) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Load batches in threads, a bounded number ahead.

    Threads suffice because decoding, resizing and reading release the interpreter's lock. Two
    batches are held, or as many as 2 * workers clips need, whatever the consumer's speed.

    Args:
        load: position -> tensor; called from several threads.
        batches: positions of each batch.
        workers: threads, 1 or more.

    Yields:
        (positions, tensor [B, ...]) in the order of `batches`.

    Raises:
        StoreError: frames cannot be read or do not fit; raised after all clips that were queued by
            then have been tried, and lists the broken ones among them.
    """
    waiting = iter(batches)
    pool = concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="loader")
    queue: deque[tuple[Sequence[int], list[concurrent.futures.Future[Tensor]]]] = deque()
    try:
        while True:
            while len(queue) < 2 or sum(len(batch) for batch, _ in queue) < 2 * workers:
                batch = next(waiting, None)
                if batch is None:
                    break
                queue.append((batch, [pool.submit(load, position) for position in batch]))
            if not queue:
                return
            batch, futures = queue.popleft()
            if any(future.exception() for future in futures):
                rest = [future for _, more in queue for future in more]
                _raise_faults([e for f in (*futures, *rest) if (e := f.exception()) is not None])
            yield batch, torch.stack([future.result() for future in futures])
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _raise_faults(errors: list[BaseException]) -> None:
    """One StoreError for broken videos; an own bug (any other error) goes on as it is."""
    for error in errors:
        if not isinstance(error, (StoreError, ListError)):
            raise error
    faults = list(dict.fromkeys(str(error) for error in errors))
    raise_all(f"{len(faults)} videos cannot be read", faults, StoreError)

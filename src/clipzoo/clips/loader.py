"""Load batches ahead in threads."""

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

    Threads suffice because decoding, resizing and reading release the interpreter's lock. The queue
    holds two batches, or more until they have 2 * workers clips, however slow the consumer is.

    Args:
        load: position -> tensor; called from several threads.
        batches: positions of each batch.
        workers: threads, 1 or more.

    Yields:
        (positions, tensor [B, ...]) in the order of `batches`.

    Raises:
        StoreError: frames cannot be read or do not fit; raised after all clips in the queue have
            been tried, and lists the broken ones.
    """
    # 2 workers, batches of 3 clips. While the consumer holds the first batch:
    #
    #   remaining   [6 7 8] [9 10 11] ...   not yet drawn from `batches`
    #   queue       [3 4 5]                 futures: the threads load 3 and 4, then 5
    #   consumer    [0 1 2]                 stacked to [3, ...]
    #
    # When it asks for the next batch, [6 7 8] joins the queue first, so that the threads have work
    # while the consumer waits for the last clips of [3 4 5].
    remaining = iter(batches)
    pool = concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="loader")
    queue: deque[tuple[Sequence[int], list[concurrent.futures.Future[Tensor]]]] = deque()
    try:
        while True:
            while len(queue) < 2 or sum(len(batch) for batch, _ in queue) < 2 * workers:
                batch = next(remaining, None)
                if batch is None:
                    break
                queue.append((batch, [pool.submit(load, position) for position in batch]))
            if not queue:
                return
            batch, futures = queue.popleft()
            if any(future.exception() for future in futures):
                rest = [future for _, more in queue for future in more]
                _raise_faults([e for f in (*futures, *rest) if (e := f.exception()) is not None])
            clips = [future.result() for future in futures]
            yield batch, torch.stack(clips)  # B x [...] -> [B, ...]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _raise_faults(errors: list[BaseException]) -> None:
    """Raise one StoreError for all broken videos, or any other error (a bug) unchanged."""
    for error in errors:
        if not isinstance(error, (StoreError, ListError)):
            raise error
    faults = list(dict.fromkeys(str(error) for error in errors))
    raise_all(f"{len(faults)} videos cannot be read", faults, StoreError)

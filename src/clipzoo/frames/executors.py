"""Places in which extraction's tasks run: the processes of this machine, or any executor.

`clipzoo.frames.cluster` is the third place, the workers of a Dask cluster.
"""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

from tqdm import tqdm

from clipzoo.data.index import StoreError
from clipzoo.runtime.machine import usable_cores
from clipzoo.runtime.pools import process_pool

POLL_SECONDS = 5
"""The workers are checked when no task has finished for this time."""

Task = Callable[..., int]
"""Makes one shard and returns its number of videos; it can be pickled. A place that cannot stop a
running task calls it with a function that raises when the task should stop."""


@dataclass(frozen=True)
class Workers:
    """A place to run tasks."""

    submit: Callable[[Task], Future[int]]
    check: Callable[[], None] | None = None
    """Raises StoreError if tasks cannot finish any more; called while none finishes."""
    base: Path = Path()
    """The folder that relative paths in tasks are meant from; absolute for workers that run in
    other folders."""


@contextmanager
def local_processes(count: int) -> Iterator[Workers]:
    """Run tasks in `count` processes of this machine, 0 = one for each core; StoreError if one of
    them dies. Finished shards remain."""
    count = count or usable_cores()
    print(f"{count} processes", flush=True)
    # Workers are forked from a server without threads, because a fork of this process would copy
    # the locks of Arrow's threads. The server imports modules once for all workers.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["clipzoo.frames.extraction"])
    with process_pool(count, context) as pool:
        try:
            yield Workers(pool.submit)
        except BrokenProcessPool as error:
            raise StoreError(
                "a worker died (out of memory?); run it again: finished shards are kept"
            ) from error


def run_tasks(tasks: Iterable[Task], workers: Workers, bar: tqdm) -> None:
    """Run tasks and count their videos in `bar`; after an error, cancel those not started.

    Returns or raises when no task is running any more, so that nothing is written afterwards (on a
    Dask cluster, when the block of `dask_workers` ends).
    """
    pending: set[Future[int]] = set()
    # Waiting for all of `pending` again after each task would take time quadratic in their number.
    done: SimpleQueue[Future[int]] = SimpleQueue()
    try:
        for task in tasks:
            future = workers.submit(task)
            pending.add(future)
            future.add_done_callback(done.put)
        while pending:
            try:
                future = done.get(timeout=POLL_SECONDS)
            except Empty:
                if workers.check:
                    workers.check()
                continue
            pending.discard(future)
            bar.update(future.result())
            # As long as somebody holds a future, Dask computes its result a second time if the
            # worker that made it is lost.
            del future
    finally:
        # Cancelled tasks are not waited for: Dask never marks some of them as done if the
        # scheduler is lost.
        wait([future for future in pending if not future.cancel()])

"""Pools of processes; of threads where there is no shared memory for the locks of processes."""

import errno
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.context import BaseContext

from clipzoo.runtime.ending import ending_at_once
from clipzoo.runtime.parent import exit_with_parent

NO_SHARED_MEMORY = {
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.ENOENT, errno.ENOSYS),
}
"""Error numbers of the creation of a lock where /dev/shm cannot be written."""


@contextmanager
def process_pool(count: int, context: BaseContext | None = None) -> Iterator[Executor]:
    """A pool of `count` processes that end with this one.

    Without shared memory, which the locks of their queues need, it is a pool of threads, and a note
    says so: tasks give the same results there, only later.

    Args:
        context: multiprocessing's, with a server that forks the processes; None = the default.
    """
    sys.warnoptions.append("ignore:resource_tracker")  # it counts the locks after Ctrl-C
    try:
        pool = ProcessPoolExecutor(count, context, initializer=exit_with_parent)
        if context is not None:
            # Started while Ctrl-C is blocked, the server and its processes never receive it.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            forkserver.ensure_running()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    except (ImportError, NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in NO_SHARED_MEMORY:
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        print(
            f"note: /dev/shm: {reason}; processes need this shared memory for their locks, so "
            f"{count} threads do their work, more slowly; to use processes, make it writable or "
            "larger (containers: --ipc=host or --shm-size=1g)",
            file=sys.stderr,
            flush=True,
        )
        pool = ThreadPoolExecutor(count)
    with ending_at_once(), pool:
        yield pool

"""Load clips in processes, because the threads of one process wait for the interpreter's lock.

A loader thread asks a process of its own for each clip, and sleeps until it is in memory that both
share. Processes are forked, so that they have the frame store without a copy; they use nothing of
CUDA, Arrow or torch's threads, whose state a fork does not carry over.

    thread 1   --position-->   process 1   load: read, decode, resize
               <---"done"---               the clip is in the memory of both
"""

import contextlib
import mmap
import multiprocessing
import queue
import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

import numpy as np
import torch
from torch import Tensor

from clipzoo.clips.placing import place_next
from clipzoo.data.store import StoreError
from clipzoo.files import ListError
from clipzoo.runtime.parent import exit_with_parent

Load = Callable[[int], Tensor]
"""Position -> clip, always of one shape and dtype."""


AS_THEY_ARE = (StoreError, ListError, MemoryError)
"""Errors of `load` that are raised again; any other is a bug, and told with its traceback."""


class LoaderDied(ConnectionError):
    """A loader process ended by itself, or was killed; it may not happen again."""


@contextlib.contextmanager
def loading_processes(load: Load, count: int, example: Tensor) -> Iterator[Load]:
    """Make `load` run in processes: a function for `count` threads, each of which gets a process.

    Args:
        load: position -> tensor, always of the shape and type of `example`.

    Yields:
        position -> tensor, in memory that the next call of the same thread overwrites. It raises
        what `load` raises, and LoaderDied.
    """
    idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
    own = threading.local()

    def load_elsewhere(position: int) -> Tensor:
        if not hasattr(own, "process"):
            own.process = idle.get_nowait()
        return own.process.load(position)

    with contextlib.ExitStack() as started:
        for number in range(count):
            process = _Process(load, example, number)
            started.callback(process.kill)
            idle.put(process)
        yield load_elsewhere


class _Process:
    """One process, and the memory that it shares with this one."""

    def __init__(self, load: Load, example: Tensor, number: int) -> None:
        array = example.numpy()
        # Anonymous memory: it needs no /dev/shm, which containers make small.
        memory = np.frombuffer(mmap.mmap(-1, max(1, array.nbytes)), array.dtype, array.size)
        self._clip = torch.from_numpy(memory.reshape(array.shape))
        self._connection, end = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("fork").Process(
            target=_serve, args=(end, load, self._clip), name=f"loader {number}", daemon=True
        )
        with warnings.catch_warnings():
            # Python 3.12 warns that this process has threads.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process.start()
        end.close()

    def load(self, position: int) -> Tensor:
        try:
            self._connection.send(position)
            error = self._connection.recv()
        except (EOFError, OSError) as closed:
            self._process.join(timeout=1)
            code, about = self._process.exitcode, f"{self._process.name} ({self._process.pid})"
            how = (
                f"was killed by signal {-code}" if code and code < 0 else f"ended with code {code}"
            )
            raise LoaderDied(
                f"the process {about} {how} while it loaded clips (out of memory?); run the stage "
                "again, which continues where it was, perhaps with fewer runtime.workers"
            ) from closed
        if error is not None:
            raise error
        return self._clip

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()


def _serve(connection: Connection, load: Load, clip: Tensor) -> None:
    """Load clips until this process is killed."""
    exit_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    while True:
        position = connection.recv()
        try:
            _load_at(clip, load, position)
        except AS_THEY_ARE as error:
            connection.send(error)
        except Exception:
            connection.send(RuntimeError(f"in a loader process:\n{traceback.format_exc()}"))
        else:
            connection.send(None)


def _load_at(clip: Tensor, load: Load, position: int) -> None:
    """Load a clip into this memory, where `load` makes it if it asks `new_clip` for memory."""
    place_next(clip.numpy())
    loaded = load(position)
    assert (loaded.shape, loaded.dtype) == (clip.shape, clip.dtype)
    if (loaded.data_ptr(), loaded.stride()) != (clip.data_ptr(), clip.stride()):
        np.copyto(clip.numpy(), loaded.numpy())

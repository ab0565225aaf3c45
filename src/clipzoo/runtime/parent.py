"""End a process with the one that started it, so that nothing keeps running after a kill.

Imports nothing but the standard library: a process does this before its slow imports.
"""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading

LAUNCHER = "CLIPZOO_LAUNCHER"
"""Environment variable with the process id of the launcher, for the processes it starts."""
SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


def announce_launcher() -> None:
    """Tell the processes that this one is about to start who their parent is."""
    os.environ[LAUNCHER] = str(os.getpid())


def signal_with_parent(number: signal.Signals) -> None:
    """Ask Linux to send this process a signal when its parent ends; elsewhere nothing happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, number)


def exit_with_launcher() -> None:
    """End this process as soon as its launcher ends, or at once if that has already happened.

    Linux kills it, however busy or stopped it is, but only if the launcher ends after the request.
    If it ended before, this process has got a new parent. Does nothing without a launcher that
    called `announce_launcher`.
    """
    expected = os.environ.get(LAUNCHER)
    if expected is None:
        return
    signal_with_parent(signal.SIGKILL)
    if str(os.getppid()) != expected:
        with contextlib.suppress(OSError):  # nobody may read it any more
            print(
                f"error: the launcher (process {expected}) has ended", file=sys.stderr, flush=True
            )
        os._exit(1)


def exit_with_parent() -> None:
    """End this process of a multiprocessing pool as soon as the process of the pool ends.

    Otherwise it would wait for its next task forever: it holds both ends of the pipe that it reads,
    and its parent may be a server that lives as long as it does. Ctrl-C is for its parent: it
    reaches neither this process nor an ffmpeg of it, whose video would seem to be broken.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    parent = multiprocessing.parent_process()
    assert parent is not None, "called by a process that multiprocessing has started"

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="parent", daemon=True).start()

"""Clients that leave before their answer: what still works for them is ended."""

import contextlib
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

LOOK_SECONDS = 1.0
"""How often one looks whether a client is still there."""


def has_left(connection: socket.socket) -> bool:
    """Whether a client has closed its connection; the time limits of the socket stay as they are,
    because another thread may be writing to it."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    try:
        return bool(poll.poll(0)) and connection.recv(1, socket.MSG_PEEK) == b""
    except OSError:
        return True


@contextmanager
def ending_decoders(connection: socket.socket, path: Path) -> Iterator[None]:
    """Kill what decodes the file `path` as soon as its client has left, in a block that fails then.

    A video of hours would keep the next client waiting for nothing.
    """
    done = threading.Event()

    def watch() -> None:
        while not done.wait(LOOK_SECONDS):
            if has_left(connection):
                _kill_decoders(path)  # and those that begin later, too

    thread = threading.Thread(target=watch, name="watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _kill_decoders(path: Path) -> None:
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # it has ended
            if f"file:{path}" in child.cmdline():
                child.kill()

"""Who may predict now: one at a time, in the order of arrival, and a bounded number who wait."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

TELL_SECONDS = 1.0
"""How often one who waits is told so, and thus at the latest found to have left."""


class BusyError(ValueError):
    """There is no place left to wait at."""


class Turns:
    """A queue of threads.

    Args:
        most: how many may be in it, the one whose turn it is included; more than that would fill
            the disk with what they sent.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._changed = threading.Condition()
        self._num_admitted = 0
        self._queue: list[object] = []

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """A place in the house, before what is to be done has arrived; BusyError if it is full."""
        with self._changed:
            if self._num_admitted >= self.most:
                raise BusyError(
                    f"busy: {self.most} predictions are already running or waiting; try again later"
                )
            self._num_admitted += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_admitted -= 1

    @contextmanager
    def turn(self, tell: Callable[[int], None]) -> Iterator[None]:
        """Wait for one's turn, which lasts as long as the block.

        Args:
            tell: is called with the number of those before, when it changes and every
                TELL_SECONDS; what it raises ends the waiting.
        """
        mine = object()
        with self._changed:
            self._queue.append(mine)
            before = self._queue.index(mine)
        try:
            while before:
                tell(before)
                with self._changed:
                    if self._queue.index(mine) == before:
                        self._changed.wait(TELL_SECONDS)
                    before = self._queue.index(mine)
            yield
        finally:
            with self._changed:
                self._queue.remove(mine)
                self._changed.notify_all()

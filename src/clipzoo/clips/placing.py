"""Where clips are made: in new memory, or at once where a loader wants them.

A loader that shares memory with another process places the next clip there, so that it is not
copied. What makes a clip asks for memory, and need not know.
"""

import threading

import numpy as np

_places = threading.local()


def place_next(memory: np.ndarray) -> None:
    """Let the next clip of this thread that has as many bytes be made in `memory`."""
    _places.next = memory


def new_clip(*shape: int) -> np.ndarray:
    """Memory for a clip, uint8 of this shape, with any contents."""
    memory = getattr(_places, "next", None)
    if memory is None or memory.shape != shape or memory.dtype != np.uint8:
        return np.empty(shape, np.uint8)
    _places.next = None
    return memory

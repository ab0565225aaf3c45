"""Where clips are made: in new memory, or at once where a loader wants them.

A loader process places the next clip in memory that another process reads, so that the clip is not
copied there. What makes a clip asks for its memory here, and need not know whose it is.
"""

import math
import threading

import numpy as np

_places = threading.local()


def place_next(memory: np.ndarray) -> None:
    """Give `memory` to the next clip of this thread, if that is uint8 and of this size."""
    _places.next = memory


def new_clip(*shape: int) -> np.ndarray:
    """Memory for a clip, uint8 of this shape, with any contents."""
    memory: np.ndarray | None = getattr(_places, "next", None)
    if memory is None or memory.dtype != np.uint8 or memory.size != math.prod(shape):
        return np.empty(shape, np.uint8)
    _places.next = None  # a second clip must not overwrite the first
    return memory.reshape(shape)

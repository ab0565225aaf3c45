"""Settings of the C library's memory allocator."""

import ctypes
import sys

# Of mallopt(3).
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def keep_freed_memory() -> None:
    """Let the process keep what it frees, for its next allocations; glibc alone has the settings.

    By default glibc maps every block above 32 MB from the kernel, gives it back when it is freed,
    and shrinks the heap likewise. A training step frees and allocates all gradients and
    activations, and a loader its batches, and the kernel would clear their pages every time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)  # the number of blocks mapped from the kernel
        mallopt(M_TRIM_THRESHOLD, -1)  # never shrink the heap

"""Settings of the C library's memory allocator."""

import ctypes
import sys

# Numbers of mallopt(3).
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def keep_freed_memory() -> None:
    """Let the process keep freed memory for its next allocations; only glibc has these settings.

    By default glibc maps every block above 32 MB from the kernel, gives it back when it is freed,
    and shrinks the heap too. But a training step frees and allocates all gradients and activations,
    a loader its batches, and the kernel would clear their pages every time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)  # the number of blocks mapped from the kernel
        mallopt(M_TRIM_THRESHOLD, -1)  # never shrink the heap

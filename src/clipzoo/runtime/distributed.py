"""Communication between the processes of a stage, which launch.py starts."""

import atexit
import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def start(device: str) -> torch.device:
    """Join the process group (nccl on CUDA, gloo on CPU) and return this rank's device.

    Without torchrun this is a single process and no group is created.

    Args:
        device: `auto`, `cpu` or `cuda` (`runtime.device`).

    Raises:
        ValueError: `cuda`, but no CUDA device is visible.
    """
    cuda = torch.cuda.is_available() if device == "auto" else device == "cuda"
    if cuda and not torch.cuda.is_available():
        raise ValueError("runtime.device: found 'cuda', but no CUDA device is visible; use 'auto'")
    gpu = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else None
    if gpu is not None:
        torch.cuda.set_device(gpu)
    if "RANK" in os.environ and not dist.is_initialized():
        _exit_with_launcher()
        dist.init_process_group("nccl" if cuda else "gloo")
        atexit.register(dist.destroy_process_group)
    return gpu or torch.device("cpu")


def _exit_with_launcher() -> None:
    """Exit when torchrun dies; otherwise a killed run would continue next to its restart."""
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def rank() -> int:
    """Rank of this process; 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes; 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Wait for all ranks."""
    if dist.is_initialized():
        dist.barrier()


def gather_objects(value: Any) -> list[Any]:
    """Every rank's `value`, in rank order, on every rank."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def gather_rows(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """Concatenate the rows of all processes, in rank order, on every rank; no gradients.

    Args:
        rows: those of this rank, [counts[rank], ...], any dtype.
        counts: number of rows of each rank, the same list on all ranks.

    Returns:
        [sum(counts), ...], of the dtype of `rows`.
    """
    if not dist.is_initialized():
        return rows
    padded = rows.new_zeros(max(counts), *rows.shape[1:])  # all_gather needs equal shapes
    padded[: len(rows)] = rows
    shares = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(shares, padded)
    # one [max(counts), ...] per rank -> [sum(counts), ...]
    return torch.cat([share[:count] for share, count in zip(shares, counts, strict=True)])


def say(text: str) -> None:
    """Print on rank 0 only."""
    if rank() == 0:
        print(text, flush=True)

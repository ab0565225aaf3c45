"""Talk between the processes of a stage. (launch.py starts them.)"""

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

    Without torchrun this is a single process and no group is made.

    Args:
        device: `auto`, `cpu` or `cuda` (`runtime.device`).
    """
    cuda = torch.cuda.is_available() if device == "auto" else device == "cuda"
    if cuda and not torch.cuda.is_available():
        raise ValueError("runtime.device: found 'cuda', but no CUDA device is visible; use 'auto'")
    local = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else None
    if local is not None:
        torch.cuda.set_device(local)
    if "RANK" in os.environ and not dist.is_initialized():
        _end_with_the_launcher()
        dist.init_process_group("nccl" if cuda else "gloo")
        atexit.register(dist.destroy_process_group)
    return local or torch.device("cpu")


def _end_with_the_launcher() -> None:
    """Die when torchrun dies, else a killed run would go on and meet its own successor."""
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
    """The rows [n, ...] of all processes, in rank order, on every rank; no gradients.

    Args:
        rows: this rank's, as many as `counts` says.
        counts: rows of each rank, known to all.
    """
    if not dist.is_initialized():
        return rows
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    shares = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(shares, padded)
    return torch.cat([share[:count] for share, count in zip(shares, counts, strict=True)])


def say(text: str) -> None:
    """Print on rank 0 only."""
    if rank() == 0:
        print(text, flush=True)

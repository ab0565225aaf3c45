"""Processes: start a stage, under torchrun where it is distributed, and talk between its ranks."""

import os
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from clipzoo.config import load_params


def run_stage(main: Callable[[], None], *, distributed: bool = False) -> None:
    """Run a stage's `main`; print an expected error as one message instead of a traceback.

    Args:
        main: the stage.
        distributed: start `runtime.processes` processes of this script through torchrun; several
            machines through NNODES, NODE_RANK and RDZV_ENDPOINT in the environment. The number of
            processes is no part of the DVC command, so that changing it reruns nothing.
    """
    try:
        if distributed and "RANK" not in os.environ:
            _exec_torchrun()
        main()
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(1)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _exec_torchrun() -> None:
    """Replace this process by torchrun over the same script and arguments."""
    command = [sys.executable, "-m", "torch.distributed.run"]
    command += ["--nproc-per-node", str(load_params().runtime.processes)]
    if "NNODES" in os.environ:
        for name in ("NNODES", "NODE_RANK", "RDZV_ENDPOINT"):
            if name not in os.environ:
                raise ValueError(f"{name} is not in the environment; several machines need it")
        command += ["--nnodes", os.environ["NNODES"], "--node-rank", os.environ["NODE_RANK"]]
        command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", os.environ["RDZV_ENDPOINT"]]
        command += ["--rdzv-id", "clipzoo"]
    else:
        command += ["--standalone"]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.stdout.flush()
    os.execv(sys.executable, [*command, *sys.argv])


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
        dist.init_process_group("nccl" if cuda else "gloo")
    return local or torch.device("cpu")


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


def say(text: str) -> None:
    """Print on rank 0 only."""
    if rank() == 0:
        print(text, flush=True)

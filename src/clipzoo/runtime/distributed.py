"""Communication between the processes of a stage, which launch.py starts."""

import atexit
import contextlib
import os
import sys
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import (
    PrefixStore,  # pyright: ignore[reportPrivateImportUsage]
    Store,  # pyright: ignore[reportPrivateImportUsage]
    TCPStore,  # pyright: ignore[reportPrivateImportUsage]
)

from clipzoo.runtime.heartbeat import LIMIT_SECONDS, Heartbeat
from clipzoo.runtime.machine import backend, check_gpus, count_gpus

TIMEOUT = timedelta(hours=2)
"""Longest exchange. The heartbeat finds a lost process long before; this ends the wait for one that
hangs forever. No process works alone that long while others wait: not a slower GPU that encodes its
share of a test set, nor rank 0 that writes a checkpoint."""
FAILED = "failed"
"""Key in the launcher's store: the run failed for a reason that a restart cannot change."""

_store: Store | None = None
_heartbeat: Heartbeat | None = None


def start(device: str) -> torch.device:
    """Join the process group (nccl on CUDA, gloo on CPU) and return this rank's device.

    Without torchrun this is a single process and no group is created.

    Args:
        device: `runtime.device`: `auto`, `cpu` or `cuda`.

    Raises:
        ConfigError: `cuda`, but no CUDA device is visible; or more processes than GPUs.
    """
    num_gpus = count_gpus(device)
    check_gpus(int(os.environ.get("LOCAL_WORLD_SIZE", 1)), num_gpus)
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    gpu = torch.device("cuda", local_rank % num_gpus) if num_gpus else None
    if gpu is not None:
        torch.cuda.set_device(gpu)
    if "RANK" in os.environ and not dist.is_initialized():
        _join(backend(num_gpus), gpu)
    return gpu or torch.device("cpu")


def _join(name: str, gpu: torch.device | None) -> None:
    """Start this process's heartbeat and join the process group of backend `name`."""
    global _store, _heartbeat
    my_rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    _store = _connect(timedelta(seconds=LIMIT_SECONDS))
    if _store.check([FAILED]):
        sys.exit(1)  # this is a restart, and the error has been printed
    # The store outlives restarts, and with it the keys of processes that have ended: hence a prefix
    # for each start. Launchers of several machines count restarts differently, but agree on a port.
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    start_of_run = os.environ["MASTER_PORT"] if "NNODES" in os.environ else restarts
    beats = PrefixStore(f"beats/{start_of_run}", _connect(timedelta(seconds=LIMIT_SECONDS)))
    _heartbeat = Heartbeat(beats, my_rank, size)
    atexit.register(_heartbeat.end)
    arrive()
    dist.init_process_group(
        name,
        store=PrefixStore(f"group/{start_of_run}", _connect(TIMEOUT)),
        rank=my_rank,
        world_size=size,
        timeout=TIMEOUT,
        # Given its device, nccl connects now, so a network fault shows up here.
        device_id=gpu if name == "nccl" else None,
    )
    atexit.register(dist.destroy_process_group)
    if restarts != "0":
        limit = os.environ["TORCHELASTIC_MAX_RESTARTS"]
        say(f"restart {restarts} of {limit} (runtime.max_restarts)")


def _connect(timeout: timedelta) -> TCPStore:
    """A connection to the store of a launcher, which outlives all processes.

    On one machine it is at MASTER_ADDR; on several it is the one where the launchers meet.
    """
    if "NNODES" in os.environ:
        host, port = os.environ["RDZV_ENDPOINT"].rsplit(":", 1)
    else:
        host, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    return TCPStore(host, int(port), wait_for_workers=False, timeout=timeout)


def finish() -> None:
    """Wait for all ranks at the end of a stage.

    Otherwise the launcher of a machine whose ranks end early (all but rank 0 in an evaluation)
    would end too, and the store with it. Rank 0 may take long: it is not named as slow.
    """
    if _heartbeat is not None:
        _heartbeat.patient = True
    barrier()


def leave(*, failed: bool) -> None:
    """Announce that this process ends with an error. If `failed`, a restart would end with the same
    error, so restarted processes should end at once."""
    if _store is not None and failed:
        with contextlib.suppress(RuntimeError):  # the launcher may have ended
            _store.set(FAILED, "")
    if _heartbeat is not None:
        _heartbeat.end()


def arrive() -> None:
    """Count an exchange. Every rank calls this before every exchange, in the same order."""
    if _heartbeat is not None:
        _heartbeat.reached += 1


def rank() -> int:
    """Rank of this process; 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes; 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Wait for all ranks."""
    if dist.is_initialized():
        arrive()
        dist.barrier()


def gather_objects(value: Any) -> list[Any]:
    """Every rank's `value`, in rank order, on every rank."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * world_size()
    arrive()
    dist.all_gather_object(values, value)
    return values


def gather_rows(rows: Tensor, places: Tensor, total: int) -> Tensor:
    """The rows of all processes, each at its place, on every rank; no gradients.

    Args:
        rows: the rows of this rank, [n, ...], perhaps none.
        places: [n] int64 in [0, total), on the same device; every place belongs to one rank.
        total: number of rows on all ranks together.

    Returns:
        [total, ...], of the dtype of `rows`.
    """
    gathered = rows.new_zeros(total, *rows.shape[1:])
    gathered[places] = rows
    if dist.is_initialized():
        arrive()
        dist.all_reduce(gathered)  # the sum of a row and zeros is the row, without rounding
    return gathered


def gather_by_position(positions: list[int], rows: Tensor) -> Tensor:
    """As `gather_rows`, for rows on the CPU, which nccl cannot exchange: they are pickled.

    Args:
        positions: the positions of this rank's rows; all ranks hold 0 .. N - 1 once together.
        rows: [n, ...] on the CPU.

    Returns:
        [N, ...].
    """
    shares = gather_objects((positions, rows))
    order = torch.tensor([p for share, _ in shares for p in share]).argsort()
    return torch.cat([part for _, part in shares])[order]


def say(text: str) -> None:
    """Print on rank 0 only."""
    if rank() == 0:
        print(text, flush=True)

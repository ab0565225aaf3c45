"""What this machine offers, and the numbers of processes and threads chosen for it.

torch is imported only where GPUs are counted, so stages that need none start quickly.
"""

import os
import platform

from clipzoo.config import ConfigError, RuntimeConfig

CPU_PROCESSES = 2
"""Processes on a CPU; more would only divide the cores that the model itself computes on."""
MAX_WORKERS = 16
"""Most loader processes that are chosen; a GPU that needs more is rare."""


def usable_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def environment(device: str) -> str:
    """What the last digits of a result depend on, besides its settings: torch and the processor.

    Two machines with the same description compute alike, up to the number of processes and threads.

    Example: 'torch 2.15.0, x86_64 AVX512' for the device type cpu, 'torch 2.15.0, CUDA 13.0, NVIDIA
    H200' for cuda.
    """
    import torch

    version = torch.__version__.partition("+")[0]
    if device == "cuda":
        return f"torch {version}, CUDA {torch.version.cuda}, {torch.cuda.get_device_name()}"
    capability = torch.backends.cpu.get_cpu_capability()
    return f"torch {version}, {platform.machine()} {capability}"


def backend(num_gpus: int) -> str:
    """nccl on GPUs, gloo on a CPU.

    Tests override it with CLIPZOO_BACKEND=gloo: then there may be more processes than GPUs, which
    nccl refuses.
    """
    return os.environ.get("CLIPZOO_BACKEND") or ("nccl" if num_gpus else "gloo")


def count_gpus(device: str) -> int:
    """Number of this machine's GPUs that `runtime.device` selects, 0 = the model runs on the CPU;
    ConfigError if it is `cuda`, but no CUDA device is visible."""
    if device == "cpu":
        return 0
    import torch

    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "cuda" and not num_gpus:
        raise ConfigError(
            "runtime.device: found 'cuda', but no CUDA device is visible; allowed here: auto, cpu"
        )
    return num_gpus


def count_processes(runtime: RuntimeConfig) -> int:
    """Processes of a distributed stage on this machine: `runtime.processes`, or the choice for 0.

    The choice is one for each GPU, or two on a CPU of two or more cores.

    Raises:
        ConfigError: there are more processes than GPUs, or `cuda` and no GPU.
    """
    num_gpus = count_gpus(runtime.device)
    if not runtime.processes:
        return num_gpus or min(CPU_PROCESSES, usable_cores())
    check_gpus(runtime.processes, num_gpus)
    return runtime.processes


def check_gpus(processes: int, num_gpus: int) -> None:
    """Raise ConfigError if some of this machine's processes would have no GPU of their own."""
    if 0 < num_gpus < processes and backend(num_gpus) == "nccl":
        raise ConfigError(
            f"runtime.processes: found {processes}; allowed: 1 to {num_gpus}, the number of "
            "visible GPUs, or 0 for one process on each (or set runtime.device to cpu)"
        )


def count_workers(runtime: RuntimeConfig, processes: int, *, on_gpu: bool) -> int:
    """Loaders of each of this machine's processes: `runtime.workers`, or the choice for 0.

    The choice is an equal share of the cores where a GPU computes, and one where the model
    itself computes on the cores.
    """
    if runtime.workers:
        return runtime.workers
    return max(1, min(usable_cores() // processes, MAX_WORKERS)) if on_gpu else 1

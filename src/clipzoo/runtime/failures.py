"""Errors as messages for the user: which value to change, or what else to try.

torch's errors are recognized by their class names and texts, because stages that do not need torch
do not import it.
"""

import os
import traceback

from clipzoo.config import ConfigError, load_params
from clipzoo.files import is_of_memory, shown

BATCH_MODULES = ("clipzoo.clips.encoding", "clipzoo.clips.loader", "clipzoo.train.gradients")
"""Modules that need memory for a batch; a smaller batch does not help elsewhere."""


def describe(error: Exception) -> str | None:
    """The message that replaces a traceback; None for an error that only a bug explains."""
    if isinstance(error, (ValueError, OSError)):
        return shown(str(error), kept="\n")
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    rank = os.environ.get("RANK", "0")
    gpu = f"GPU {os.environ.get('LOCAL_RANK', '0')} (rank {rank})"
    if _is_of_gpu_memory(error):
        remedy = "train.activation_checkpointing=true"
        return _memory(f"the memory of {gpu} ran out ({first_line})", remedy)
    if is_of_memory(error):
        places = _places(error)
        if any(module in BATCH_MODULES for module, _ in places):
            text = f"this machine's memory ran out ({first_line})"
            return _memory(text, "a smaller runtime.processes")
        place = "".join(f"{module}.{function}: " for module, function in places[-1:])
        return (
            f"{place}this machine's memory ran out ({first_line}); end other programs, or run the "
            "stage on a machine with more"
        )
    if is_of_a_connection(error) and _is_of_shared_memory(error):
        return (
            f"rank {rank}: /dev/shm, the shared memory through which the processes of a machine "
            f"exchange data, cannot be used ({first_line}); make it writable or larger "
            "(containers: --ipc=host or --shm-size=8g), or set NCCL_SHM_DISABLE=1 in the "
            "environment, which is slower"
        )
    if is_of_a_connection(error):
        return (
            f"rank {rank}: the connection to another process broke ({first_line}); that process "
            "or its machine is lost: see its output"
        )
    if "AcceleratorError" in _names(error) or str(error).startswith(("CUDA error", "cuDNN error")):
        return (
            f"{gpu}: {first_line}; if it happens again, CUDA_LAUNCH_BLOCKING=1 shows where, "
            "nvidia-smi shows whether the GPU is at fault, and runtime.device=cpu runs without it"
        )
    return None


def is_final(error: Exception) -> bool:
    """Whether a restart would end with the same error: a wrong value or file, too little memory.

    Broken connections and errors of a GPU may not happen again, nor bugs that depend on timing.
    """
    wrong = isinstance(error, (ValueError, OSError)) and not isinstance(error, ConnectionError)
    wrong = wrong or (is_of_a_connection(error) and _is_of_shared_memory(error))
    return wrong or _is_of_gpu_memory(error) or is_of_memory(error)


def is_of_a_connection(error: Exception) -> bool:
    """Whether an exchange between processes failed: errors of nccl, gloo or the store."""
    of_torch = {"DistBackendError", "DistNetworkError", "DistStoreError"}
    return bool(_names(error) & of_torch) or "gloo/transport" in str(error)


def _is_of_shared_memory(error: Exception) -> bool:
    return "/dev/shm" in str(error) or "shared memory" in str(error).lower()


def _is_of_gpu_memory(error: Exception) -> bool:
    return "OutOfMemoryError" in _names(error) or "STATUS_ALLOC_FAILED" in str(error)


def _places(error: Exception) -> list[tuple[str, str]]:
    """Modules and functions of this package that an error passed through, the innermost last."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    places = [(str(f.f_globals.get("__name__")), f.f_code.co_name) for f in frames]
    return [place for place in places if place[0].startswith("clipzoo.")]


def _names(error: Exception) -> set[str]:
    return {cls.__name__ for cls in type(error).__mro__}


def _memory(fault: str, otherwise: str) -> str:
    """The message for memory that ran out, which names the micro-batch of params.yaml."""
    try:
        value = str(load_params().runtime.micro_batch)
    except ConfigError:  # a stage outside of its folder
        value = "?"
    if value == "0":
        value = "0 (the stage chose a number, and printed it when it began)"
    return (
        f"runtime.micro_batch: found {value}, and {fault}; allowed: a smaller number; or try "
        f"{otherwise}"
    )

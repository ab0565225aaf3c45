"""Errors as messages for the user: which value to change, or what else to try.

Knows torch's errors by their class names and texts, since stages that do not need torch do not
import it.
"""

import os
import traceback

from clipzoo.config import ConfigError, load_params
from clipzoo.files import is_of_memory, shown

BATCH_MODULES = ("clipzoo.clips.encoding", "clipzoo.clips.loader", "clipzoo.train.gradients")
"""Where memory is needed for a batch. A smaller one helps nowhere else."""


def describe(error: Exception) -> str | None:
    """A message in place of a traceback; None for an error that only a bug explains."""
    if isinstance(error, (ValueError, OSError)):
        return shown(str(error), kept="\n")
    if _is_of_gpu_memory(error):
        return _memory(error, f"the memory of {_gpu()}", "train.activation_checkpointing=true")
    if is_of_memory(error):
        places = _places(error)
        if any(module in BATCH_MODULES for module, _ in places):
            return _memory(error, "this machine's memory", "a smaller runtime.processes")
        place = "".join(f"{module}.{function}: " for module, function in places[-1:])
        return (
            f"{place}this machine's memory ran out ({_first_line(error)}); end other programs, or "
            "run the stage on a machine with more"
        )
    if is_of_a_connection(error) and _is_of_shared_memory(error):
        return (
            f"rank {os.environ.get('RANK', '0')}: /dev/shm, the shared memory through which the "
            f"processes of a machine exchange data, cannot be used ({_first_line(error)}); make it "
            "writable or larger (containers: --ipc=host or --shm-size=8g), or set "
            "NCCL_SHM_DISABLE=1 in the environment, which is slower"
        )
    if is_of_a_connection(error):
        return (
            f"rank {os.environ.get('RANK', '0')}: the connection to another process broke "
            f"({_first_line(error)}); that process or its machine is lost: see its output"
        )
    if "AcceleratorError" in _names(error) or str(error).startswith(("CUDA error", "cuDNN error")):
        return (
            f"{_gpu()}: {_first_line(error)}; if it happens again, CUDA_LAUNCH_BLOCKING=1 shows "
            "where, nvidia-smi shows whether the GPU is at fault, and runtime.device=cpu runs "
            "without it"
        )
    return None


def is_final(error: Exception) -> bool:
    """Whether a restart would end with the same error: a wrong value or file, too little memory.

    Broken connections and errors of a GPU may go away; so may bugs that depend on timing.
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


def _memory(error: Exception, which: str, otherwise: str) -> str:
    """The message for memory that ran out, which names the micro-batch of params.yaml."""
    try:
        value = str(load_params().runtime.micro_batch)
    except ConfigError:  # a stage outside of its folder
        value = "?"
    if value == "0":
        value = "0 (the stage chose a number, and printed it when it began)"
    return (
        f"runtime.micro_batch: found {value}, and {which} ran out ({_first_line(error)}); "
        f"allowed: a smaller number; or try {otherwise}"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _gpu() -> str:
    return f"GPU {os.environ.get('LOCAL_RANK', '0')} (rank {os.environ.get('RANK', '0')})"

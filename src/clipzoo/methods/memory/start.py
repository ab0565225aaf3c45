"""How the stages that run a model start: processes, device, and what `runtime` leaves open."""

import os

import torch

from clipzoo.config import Params
from clipzoo.methods.memory import estimates
from clipzoo.runtime import machine
from clipzoo.runtime.distributed import gather_objects, say, start, world_size


def start_run(params: Params, *, training: bool) -> tuple[Params, torch.device]:
    """Join the other processes and choose what `runtime` leaves open; rank 0 prints it.

    All processes get the same micro-batch, that of the smallest GPU, since the batches of a test
    set are shared out by it.

    Args:
        training: whether the stage trains. Training and inference each have their own micro-batch;
            validations during training use that of training.

    Returns:
        the parameters with the chosen numbers in place of every 0 in `runtime`, and the device of
        this process.

    Raises:
        ConfigError: `runtime.device` is cuda and there is no GPU, or too few for all processes.
    """
    runtime = params.runtime
    device = start(runtime.device)
    on_gpu = device.type == "cuda"
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    micro_batch = runtime.micro_batch or estimates.CPU_MICRO_BATCH
    if on_gpu and not runtime.micro_batch:
        free_bytes = estimates.free_gpu_bytes(device)
        fitting = estimates.fitting_clips(params, free_bytes, training=training)
        most = min(gather_objects(fitting))
        micro_batch = estimates.choose_micro_batch(params, most, world_size(), training=training)
    workers = machine.count_workers(runtime, processes, on_gpu=on_gpu)
    say(
        f"runtime: processes {processes} ({world_size()} in all, {device.type}), "
        f"workers {workers}, micro_batch {micro_batch}"
    )
    if slow := "" if on_gpu else slow_precisions(params, training=training):
        say(slow)
    values = {"processes": processes, "workers": workers, "micro_batch": micro_batch}
    return params.model_copy(update={"runtime": runtime.model_copy(update=values)}), device


def slow_precisions(params: Params, *, training: bool | None = None) -> str:
    """A warning about a run with fp16, or bf16, on this CPU; '' = it is not slow there.

    Few processors compute in float16; for bfloat16 they need at least AVX-512.

    Args:
        training: whether the stage trains; None = all stages of the run.
    """
    keys = []
    if training is not False and params.train.epochs:
        keys = ["train.precision", "train.val_precision"]
    if not training:
        keys.append("test.precision")
    values = {key: getattr(getattr(params, key.split(".")[0]), key.split(".")[1]) for key in keys}
    kinds = {"fp16", "bf16"} if torch.backends.cpu.get_cpu_capability() == "AVX2" else {"fp16"}
    slow = {key: value for key, value in values.items() if value in kinds}
    if not slow:
        return ""
    found = ", ".join(f"{key} {value}" for key, value in slow.items())
    settings = " ".join(f"-S {key}=fp32" for key in slow)
    return (
        f"{found}: 4 to 10 times slower than fp32 on this CPU; use a GPU, or set {settings} (the "
        "row is then marked as modified)"
    )

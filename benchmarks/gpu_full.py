"""How full the GPU's memory is: against `check`'s estimate, and the largest micro-batch."""

import time

import torch
from gpu_report import Section
from gpu_setting import Setting, free_memory
from gpu_steps import RECIPE, Stepper, Variant, batch_that_fits, estimate, params_for

from clipzoo.commands.trial_steps import largest_on_gpu

TOLERANCE = 0.15
CHECKPOINTED = Variant(
    name="the recipe, checkpointed", changes={"train.activation_checkpointing": True}
)
GOAL = "peak memory within 15 % of check's estimate"


def full(section: Section, setting: Setting) -> None:
    """Peak memory of steps, then the largest micro-batches."""
    for arch in reversed(setting.archs):
        for variant in (RECIPE, CHECKPOINTED):
            name = f"{arch}, {variant.name}: peak memory"
            if section.enough_time(3, name):
                with section.attempt(name):
                    _peak(section, setting, arch, variant)
                free_memory(setting.device)
    for arch in setting.archs:
        name = f"{arch}: largest micro-batch"
        if section.enough_time(20, name):
            with section.attempt(name):
                _largest(section, setting, arch)
            free_memory(setting.device)
    if setting.device.type == "cuda":
        section.note(
            "one process without DistributedDataParallel, which would add no memory of its own: "
            "gradients live in its buckets"
        )


def _peak(section: Section, setting: Setting, arch: str, variant: Variant) -> None:
    """Two steps, from which on memory does not grow."""
    device, cuda = setting.device, setting.device.type == "cuda"
    batch = batch_that_fits(setting, arch, variant)
    guess = estimate(params_for(setting, arch, variant))
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    stepper = Stepper(setting, arch, variant, batch)
    stepper.seconds(2)
    estimated = guess.fixed_bytes + batch * guess.clip_bytes
    allocated = reserved = used = None
    if cuda:
        allocated = torch.cuda.max_memory_allocated(device)
        reserved = torch.cuda.max_memory_reserved(device)
        free, total = torch.cuda.mem_get_info(device)
        used = total - free
    section.row(
        "Memory of a step (GB)",
        model=arch,
        step=variant.name,
        clips=batch,
        estimated=estimated / 1e9,
        allocated=allocated and allocated / 1e9,
        estimated_over_allocated=allocated and estimated / allocated,
        reserved=reserved and reserved / 1e9,
        estimated_with_CUDA=(estimated + guess.cuda_bytes) / 1e9,
        used_on_the_device=used and used / 1e9,
    )
    if allocated:
        _set_goal(section)


def _set_goal(section: Section) -> None:
    """Of all rows so far, the one that is furthest off."""
    rows = section.findings.tables["Memory of a step (GB)"]
    worst = max(rows, key=lambda row: abs(row["estimated over allocated"] - 1))
    ratio = worst["estimated over allocated"]
    found = f"{ratio:.2f} of the peak ({worst['model']}, {worst['step']}), the worst"
    section.goal(GOAL, ratio, found, met=abs(ratio - 1) <= TOLERANCE)


def _largest(section: Section, setting: Setting, arch: str) -> None:
    """By real steps and, for comparison, by the estimate."""
    params = params_for(setting, arch, RECIPE)
    began = time.perf_counter()
    values: dict[str, object] = {"model": arch, "step": RECIPE.name}
    if setting.device.type == "cuda":
        largest = largest_on_gpu(params, setting.search_limit, setting.device)
        total = torch.cuda.get_device_properties(setting.device).total_memory
        values |= {"by real steps": largest, "by the estimate": estimate(params).clips(total)}
        values["searched up to"] = setting.search_limit
    values["search (s)"] = time.perf_counter() - began
    section.row("Largest micro-batch", **values)

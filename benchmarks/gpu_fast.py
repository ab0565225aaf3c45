"""How fast a training step is: the authors' and ours, side by side; attention; synchronizations.

Variants alternate with the authors' step in short rounds, and the ratio of each round is one
measurement. FLOPs of the model are those of the forward pass times 3, without what checkpointing
computes again.
"""

import math
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from gpu_machine import matmul_tflops, peak_tflops
from gpu_report import Section
from gpu_setting import Setting, free_memory, synchronize
from gpu_steps import (
    AUTHORS,
    BF16,
    CHANNELS_LAST,
    COMPILED,
    RECIPE,
    UNFUSED,
    Stepper,
    Variant,
    batch_that_fits,
    forward_flops,
)
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.profiler import ProfilerActivity, profile

GOAL_RATIO, GOAL_MFU = 3.0, 40.0
COMPILE_SECONDS = 45.0
"""What a compiled variant may take, its rounds included; a guess until it has been measured."""
BACKENDS = ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION", "MATH")
HEAD_WIDTH = 64
NUM_KERNELS = 12
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel")


def fast(section: Section, setting: Setting) -> None:
    """The eager variants of every architecture first, then the compiled ones."""
    ceiling = 0.0
    with section.attempt("matrix product"):
        ceiling = matmul_tflops(setting)
    for arch in setting.archs:
        needed = 0 if arch == setting.archs[0] else 25
        if section.enough_time(needed, f"{arch}: steps"):
            with section.attempt(f"{arch}: steps"):
                _compare(section, setting, arch, (UNFUSED, RECIPE, BF16, CHANNELS_LAST), ceiling)
            free_memory(setting.device)
            with section.attempt(f"{arch}: attention and synchronizations"):
                _look_inside(section, setting, arch)
            free_memory(setting.device)
    if setting.device.type != "cuda":
        return  # compiling for a CPU needs minutes and tells nothing
    for arch in setting.archs:
        if section.enough_time(COMPILE_SECONDS, f"{arch}: {COMPILED.name}"):
            with section.attempt(f"{arch}: {COMPILED.name}"):
                _compare(section, setting, arch, (COMPILED,), ceiling)
            torch.compiler.reset()
            free_memory(setting.device)


def _compare(
    section: Section, setting: Setting, arch: str, variants: Sequence[Variant], ceiling: float
) -> None:
    """Time variants of one architecture, in turn, against the authors' step; with half the batch
    if memory runs out."""
    batch = batch_that_fits(setting, arch)
    while True:
        try:
            _compare_at(section, setting, arch, variants, ceiling, batch)
            return
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
        batch //= 2  # not inside `except`: the error holds the frames of the step
        section.note(f"{arch}: out of memory; again with {batch} clips a step")
        free_memory(setting.device)


def _compare_at(
    section: Section,
    setting: Setting,
    arch: str,
    variants: Sequence[Variant],
    ceiling: float,
    batch: int,
) -> None:
    authors = Stepper(setting, arch, AUTHORS, batch)
    authors.warm_up()
    for variant in variants:
        stepper = Stepper(setting, arch, variant, batch)
        first = stepper.warm_up()
        steps = max(2, math.ceil(setting.round_seconds / max(stepper.seconds(2), 1e-6)))
        rounds = [(authors.seconds(steps), stepper.seconds(steps)) for _ in range(setting.rounds)]
        ratios = sorted(theirs / ours for theirs, ours in rounds)
        if variant is variants[0]:
            _add_row(section, AUTHORS, authors, [theirs for theirs, _ in rounds], ceiling)
        more = {"x": statistics.median(ratios), "least x": ratios[0], "most x": ratios[-1]}
        mfu = _add_row(
            section, variant, stepper, [ours for _, ours in rounds], ceiling,
            {**more, "first steps (s)": first},
        )  # fmt: skip
        goal = f"{GOAL_RATIO:g} times the authors' step, {arch}"
        _raise_goal(section, goal, more["x"], f"x ({variant.name})", GOAL_RATIO)
        if arch == setting.archs[0] and mfu is not None:
            _raise_goal(
                section, f"{GOAL_MFU:g} % MFU, {arch}", mfu, f"% ({variant.name})", GOAL_MFU
            )


def _add_row(
    section: Section,
    variant: Variant,
    stepper: Stepper,
    seconds: Sequence[float],
    ceiling: float,
    more: dict[str, float] | None = None,
) -> float | None:
    """A row of the table of steps; returns the MFU (percent), None if the peak is not known."""
    step = statistics.median(seconds)
    tflops = 3 * forward_flops(stepper.params) * stepper.batch / step / 1e12
    peak = peak_tflops(stepper.device)
    mfu = 100 * tflops / peak if peak else None
    values = {
        "model": stepper.params.model.arch,
        "step": variant.name,
        "clips": stepper.batch,
        "ms": 1e3 * step,
        "clips/s": stepper.batch / step,
        "TFLOP/s": tflops,
        "MFU %": mfu,
        "% of the measured product": 100 * tflops / ceiling if ceiling else None,
    }
    section.row("Training steps (x = times the authors' step)", **values, **(more or {}))
    return mfu


def _raise_goal(section: Section, goal: str, value: float, unit: str, needed: float) -> None:
    """The best variant counts."""
    before = section.findings.goals.get(goal)
    if before is None or value > before["value"]:
        section.goal(goal, value, f"{value:.2f} {unit}", met=value >= needed)


def _look_inside(section: Section, setting: Setting, arch: str) -> None:
    """Which attention runs, which kernels take the time, and where the host waits."""
    stepper = Stepper(setting, arch, RECIPE, batch_that_fits(setting, arch))
    stepper.warm_up()
    if setting.device.type == "cuda":
        with section.attempt(f"{arch}: synchronizations"):
            places = synchronizations(stepper)
            section.row(
                "Synchronizations",
                model=arch,
                a_step=places.total(),
                places=", ".join(f"{place} x {n}" for place, n in places.most_common()),
            )
    with section.attempt(f"{arch}: profile"):
        _profile(section, arch, stepper)
    with section.attempt(f"{arch}: attention backends"):
        _attention_backends(section, setting, arch, stepper)


def synchronizations(stepper: Stepper) -> Counter[str]:
    """File and line -> number of waits of the host for the GPU in one step, as torch sees them."""
    synchronize(stepper.device)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            stepper.trial.step_of(stepper.clips)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return Counter(
        f"{Path(warning.filename).name}:{warning.lineno}"
        for warning in caught
        if "called a synchronizing" in str(warning.message)
    )


def _profile(section: Section, arch: str, stepper: Stepper) -> None:
    """Launches, attention operators and the kernels that take the most time, of one step."""
    activities = [ProfilerActivity.CPU]
    if stepper.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        stepper.seconds(1)
    averages = profiler.key_averages()
    counts = Counter({event.key: event.count for event in averages})
    section.row(
        "Launches of a step of the recipe",
        model=arch,
        kernels=sum(n for key, n in counts.items() if key.startswith(LAUNCHES)) or None,
        casts_and_copies=counts["aten::_to_copy"],
        selects=counts["aten::select_backward"],
    )
    names = [event.key for event in averages if event.key.startswith("aten::_")]
    operators = [n for n in names if "attention" in n and "backward" not in n]
    section.note(f"{arch}: attention by {', '.join(sorted(operators)) or 'no fused operator'}")
    kernels = [
        event
        for event in averages
        if event.device_type.name == "CUDA" and "#" not in event.key  # Optimizer.step#AdamW...
    ]
    total = sum(event.self_device_time_total for event in kernels)
    kernels.sort(key=lambda event: event.self_device_time_total, reverse=True)
    for event in kernels[:NUM_KERNELS]:
        share = 100 * event.self_device_time_total / total
        values = {"model": arch, "kernel": event.key[:100], "calls": event.count}
        section.row("Kernels of a step of the recipe", **values, **{"% of the GPU's time": share})


def _attention_backends(section: Section, setting: Setting, arch: str, stepper: Stepper) -> None:
    """Attention alone, forward and backward, at the tower's sizes, by each backend."""
    positions = stepper.trial.method.get_parameter("visual.positional_embedding")
    tokens, width = positions.shape
    heads = width // HEAD_WIDTH
    shape = (stepper.batch * setting.num_segments, heads, tokens, HEAD_WIDTH)  # [bT, h, L, d]
    query, key, value = (
        torch.randn(shape, device=setting.device, dtype=torch.bfloat16, requires_grad=True)
        for _ in range(3)
    )

    def milliseconds() -> float:
        times = []
        for _ in range(6):  # the first warms up
            synchronize(setting.device)
            began = time.perf_counter()
            scaled_dot_product_attention(query, key, value).sum().backward()
            synchronize(setting.device)
            times.append(time.perf_counter() - began)
        return 1e3 * min(times[1:])

    row: dict[str, float | str | None] = {"model": arch, "as dispatched": milliseconds()}
    for name in BACKENDS:
        try:
            with sdpa_kernel([getattr(SDPBackend, name)]):
                row[name] = milliseconds()
        except RuntimeError:  # no kernel for this device or these shapes
            row[name] = None
    section.row("Attention of one layer, forward and backward (ms)", **row)

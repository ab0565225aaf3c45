"""The machine of a GPU report, and how fast its parts are without this project's code."""

import contextlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from gpu_report import Section
from gpu_setting import ROOT, Setting, synchronize

from clipzoo.runtime.machine import usable_cores

PEAK_TFLOPS = {
    "GB200": 2500,
    "B200": 2250,
    "H200": 989,
    "GH200": 989,
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H100": 989,
    "H800": 989,
    "A100": 312,
    "A800": 312,
    "L40S": 362,
    "L40": 181,
    "L4": 121,
    "A40": 150,
    "A30": 165,
    "A10": 125,
    "RTX 6000 Ada": 364,
    "RTX A6000": 155,
    "RTX 4090": 165,
    "RTX 3090": 71,
}
"""Part of a GPU's name -> its dense bf16 rate by the vendor's datasheet; the first match counts."""
COPIED_BYTES = 256 * 2**20


def device_name(device: torch.device) -> str:
    """The GPU's name; `cpu` without one."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def peak_tflops(device: torch.device) -> float | None:
    """The datasheet's dense bf16 rate; None = not in the table."""
    name = device_name(device)
    return next((rate for part, rate in PEAK_TFLOPS.items() if part in name), None)


def matmul_tflops(setting: Setting) -> float:
    """The best rate of a bf16 matrix product on random numbers."""
    side, device = setting.matrix, setting.device
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / _best_seconds(lambda: a @ b, device) / 1e12


def _best_seconds(action: Callable[[], object], device: torch.device, calls: int = 10) -> float:
    """Seconds of a call in the best of five series."""
    series = []
    for _ in range(6):  # the first warms up
        synchronize(device)
        began = time.perf_counter()
        for _ in range(calls):
            action()
        synchronize(device)
        series.append((time.perf_counter() - began) / calls)
    return min(series[1:])


def machine(section: Section, setting: Setting) -> None:
    """Names, versions and ceilings."""
    device = setting.device
    facts = {
        "GPU": device_name(device),
        "GPUs": torch.cuda.device_count(),
        "GPU memory (GB)": None,
        "compute capability": None,
        "driver": _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "PyTorch": torch.__version__,
        "CUDA of PyTorch": torch.version.cuda,
        "cuDNN": torch.backends.cudnn.version(),
        "Python": platform.python_version(),
        "processor": processor_name(),
        "cores": usable_cores(),
        "memory (GB)": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
        "commit": _output("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts["GPU memory (GB)"] = properties.total_memory / 1e9
        facts["compute capability"] = f"{properties.major}.{properties.minor}"
    for name, value in facts.items():
        section.row("Machine", item=name, value=value)
    with section.attempt("matrix product"):
        rates = {"bf16 matrix product": matmul_tflops(setting), "datasheet": peak_tflops(device)}
        section.row("Ceilings (TFLOP/s)", **rates)
    with section.attempt("copies"):
        _copies(section, setting)


def _copies(section: Section, setting: Setting) -> None:
    """Bandwidths of copies to the device, from pageable and from pinned memory."""
    device = setting.device
    size = COPIED_BYTES if device.type == "cuda" else 2**16
    target = torch.empty(size, dtype=torch.uint8, device=device)
    sources = {"pageable": torch.zeros(size, dtype=torch.uint8)}
    if device.type == "cuda":
        sources["pinned"] = torch.zeros(size, dtype=torch.uint8).pin_memory()
        sources["GPU"] = torch.zeros(size, dtype=torch.uint8, device=device)
    for name, source in sources.items():
        seconds = _best_seconds(lambda s=source: target.copy_(s, non_blocking=True), device, 3)
        section.row("Copies to the GPU", source=name, **{"GB/s": size / seconds / 1e9})


def processor_name() -> str:
    """The processor's name, or its kind."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or sys.platform


def _output(*command: str) -> str | None:
    """First line of a command's output; None if it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return (done.stdout.splitlines() or [""])[0]

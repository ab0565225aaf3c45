"""Everything about this project that only a GPU can show, in one command and at most 10 minutes.

    python benchmarks/gpu.py [--minutes N] [--sections NAME ...] [--output FOLDER] [--frames STORE]

    right   `pytest -m gpu`: a GPU computes what a CPU does
    fast    training steps: the authors' and the recipes'; attention; synchronizations
    full    memory: peaks against the estimate of `check`, the largest micro-batches
    fed     the loader: threads, processes, and the time that steps wait for it

Writes <output>/gpu-<name of the GPU>.md and .json, also after every section. Sections run in
processes of their own, so that a crash or a hang loses one of them. Ends with 1 if a test or a
measurement failed; without a GPU it says so and ends with 0. A section that needs a package which
is not installed is skipped, and the report names the package. `--frames` gives the loader frame
stores that are ready, folders with an index.parquet; otherwise frames are made up. `--device cpu`
runs tiny versions of the measurements, whose numbers mean nothing.
"""

import argparse
import contextlib
import datetime
import importlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from gpu_report import Findings, Row, Section, read_findings, write_report

ROOT = Path(__file__).parents[1]
RESERVED_SECONDS = {"machine": 20, "right": 120, "fast": 220, "full": 80, "fed": 110}
"""Of every section, in their order: kept for it while earlier ones run; what those leave is its own
too. Section x is the function x in gpu_x.py."""
GRACE_SECONDS = 10
"""How long a section that has used up its time may still run before it is killed."""


def main() -> int:
    arguments = _arguments()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device is visible: nothing to measure, nothing written")
        return 0
    device = torch.device("cuda", 0) if arguments.device == "cuda" else torch.device("cpu")
    if arguments.only:
        file = Path(arguments.file)
        _run_here(arguments.only, file, arguments.seconds, device, arguments.frames)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        return _run_all(arguments, device, Path(folder))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--minutes", type=float, default=9.5, help="for all sections together")
    parser.add_argument("--sections", nargs="+", choices=RESERVED_SECONDS)
    parser.set_defaults(sections=list(RESERVED_SECONDS))
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--frames", type=Path, nargs="+", default=[], metavar="STORE")
    parser.add_argument("--in-process", action="store_true", help="all sections in this process")
    parser.add_argument("--only", choices=RESERVED_SECONDS, help=argparse.SUPPRESS)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for folder in arguments.frames:
        if not (folder / "index.parquet").is_file():
            parser.error(
                f"--frames: {folder} has no index.parquet; give a frame store, such as "
                "data/frames/<dataset>"
            )
    return arguments


def _run_all(arguments: argparse.Namespace, device: torch.device, folder: Path) -> int:
    """Run the sections one after the other; writes the report after each."""
    began = time.perf_counter()
    findings: dict[str, Findings] = {}
    for i, name in enumerate(arguments.sections):
        later = sum(RESERVED_SECONDS[other] for other in arguments.sections[i + 1 :])
        elapsed = time.perf_counter() - began
        seconds = max(60 * arguments.minutes - elapsed - later, RESERVED_SECONDS[name] / 2)
        print(f"[{elapsed:.0f} s] {name}, at most {seconds:.0f} s", flush=True)
        file, fault = folder / f"{name}.json", ""
        if arguments.in_process:
            _run_here(name, file, seconds, device, arguments.frames)
        else:
            fault = _run_in_a_process(name, file, seconds, device, arguments.frames)
        findings[name] = read_findings(file)
        findings[name].faults += [fault] if fault else []
        elapsed = time.perf_counter() - began
        paths = write_report(arguments.output, *_header(findings, device, elapsed), findings)
    print(f"[{elapsed:.0f} s] wrote {' and '.join(map(str, paths))}")
    faults = [f"{name}: {fault}" for name, f in findings.items() for fault in f.faults]
    print(*(f"FAILED {fault}" for fault in faults), sep="\n")
    return 1 if faults else 0


def _run_here(
    name: str, file: Path, seconds: float, device: torch.device, frames: Sequence[Path]
) -> None:
    """Run one section in this process; a failure of it is one of its findings."""
    section = Section(file, seconds)
    with section.attempt(name):
        # Imported here, and not in the process that starts the sections: it takes seconds.
        from gpu_setting import Setting, smoke

        from clipzoo.runtime.allocator import keep_freed_memory

        keep_freed_memory()  # as `train` does
        setting = Setting(device=device) if device.type == "cuda" else smoke(device)
        setting = replace(setting, stores=tuple(map(str, frames)))
        getattr(importlib.import_module(f"gpu_{name}"), name)(section, setting)


def _run_in_a_process(
    name: str, file: Path, seconds: float, device: torch.device, frames: Sequence[Path]
) -> str:
    """Run one section in a new process; returns how it failed, or ''."""
    command = [sys.executable, str(Path(__file__).resolve()), "--device", device.type]
    command += ["--only", name, "--file", str(file), "--seconds", str(seconds)]
    command += ["--frames", *map(str, frames)] if frames else []
    process = subprocess.Popen(command, start_new_session=True)
    try:
        code = process.wait(seconds + GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        return f"cut off after {seconds + GRACE_SECONDS:.0f} s"
    finally:
        _end(process)
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"ended with {code}" if code else ""


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a section: its process and those that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _header(findings: dict[str, Findings], device: torch.device, elapsed: float) -> tuple[str, Row]:
    """Name of the report's files, and its first lines."""
    rows = findings["machine"].tables.get("Machine", []) if "machine" in findings else []
    facts: Row = {row["item"]: row["value"] for row in rows}
    gpu = facts.get("GPU") or device.type
    name = "gpu-" + re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")
    return name, {
        "title": f"What a GPU shows: {gpu}",
        "date": datetime.date.today().isoformat(),
        "sections": ", ".join(findings),
        "elapsed (s)": round(elapsed),
    }


if __name__ == "__main__":
    sys.exit(main())

"""Whether a GPU computes what a CPU does: `pytest -m gpu`, as a section of benchmarks/gpu.py."""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from gpu_report import Section
from gpu_setting import ROOT, Setting

NUM_PROCESSES = 4
"""Of pytest; most of the tests' time goes to starting processes and CUDA."""
NEEDED = ("pytest", "xdist", "dvclive", "pandas")
"""Packages that the tests import, besides those of every other section."""


def right(section: Section, setting: Setting) -> None:
    """Run the tests in tests/gpu; those marked `gpu`, or without a GPU the others."""
    marker = "gpu" if setting.device.type == "cuda" else "not gpu"
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.jsonl"
        command = [sys.executable, "-m", "pytest", "-q", "tests/gpu", "-m", marker]
        command += ["-n", str(NUM_PROCESSES), "--dist", "worksteal"]
        with section.attempt("pytest"):
            for package in NEEDED:
                importlib.import_module(package)
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": "1", "RESULTS_FILE": str(results)},
                timeout=section.left(),
            )
            if done.returncode not in (0, 1):  # 1: tests failed, which are listed below
                raise RuntimeError(f"pytest ended with {done.returncode}")
        read_results(section, results)


def read_results(section: Section, path: Path) -> None:
    """Counts, failures, and the differences that tests recorded with `record_property`."""
    outcomes = {"failed": 0, "skipped": 0, "passed": 0}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        result = json.loads(line)
        name, outcome = result["test"], result["outcome"]
        outcomes[outcome] += 1
        if outcome == "failed":
            section.findings.faults.append(f"{name}: {_fault(result['reason'])}")
        elif outcome == "skipped":
            section.note(f"{name}: {result['reason']}")
        for measured, value in result["measured"].items():
            section.row("Differences", test=name, measured=measured, value=value)
    section.row("Tests", **outcomes)


def _fault(text: str) -> str:
    """The line of a failure that names the error."""
    lines = [line[1:].strip() for line in text.splitlines() if line.startswith("E ")]
    return (lines or text.strip().splitlines() or ["no message"])[0]

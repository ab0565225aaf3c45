"""Whether a GPU computes what a CPU does: `pytest -m gpu`, as a section of benchmarks/gpu.py."""

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from gpu_report import Section
from gpu_steps import ROOT, Setting

NUM_PROCESSES = 4
"""Of pytest; most of the tests' time goes to starting processes and CUDA."""


def right(section: Section, setting: Setting) -> None:
    """Run the tests in tests/gpu; those marked `gpu`, or without a GPU the others."""
    marker = "gpu" if setting.device.type == "cuda" else "not gpu"
    with tempfile.TemporaryDirectory() as folder, section.attempt("pytest"):
        results = Path(folder) / "junit.xml"
        command = [sys.executable, "-m", "pytest", "-q", "tests/gpu", "-m", marker]
        command += ["-n", str(NUM_PROCESSES), f"--junitxml={results}"]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "2"},
            capture_output=True,
            text=True,
            timeout=section.left(),
        )
        print(done.stdout, flush=True)
        if not results.is_file():
            lines = (done.stdout + done.stderr).strip().splitlines() or ["no output"]
            raise RuntimeError(f"pytest ended with {done.returncode}: {lines[-1]}")
        read_results(section, results)


def read_results(section: Section, path: Path) -> None:
    """Counts, failures, and the differences that tests recorded with `record_property`."""
    cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    outcomes = {"failed": 0, "skipped": 0, "passed": 0}
    for case in cases:
        name = case.get("name", "")
        fault = next((c for tag in ("failure", "error") for c in case.iter(tag)), None)
        skip = case.find("skipped")
        if fault is not None:
            section.findings.faults.append(f"{name}: {_first_line(fault)}")
        elif skip is not None:
            section.note(f"skipped {name}: {_first_line(skip)}")
        outcomes["failed" if fault is not None else "passed" if skip is None else "skipped"] += 1
        for item in case.iter("property"):
            values = {"test": name, "measured": item.get("name"), "value": item.get("value")}
            section.row("Differences", **values)
    section.row("Tests", **outcomes)


def _first_line(element: ElementTree.Element) -> str:
    return (element.get("message") or "no message").splitlines()[0]

"""The devices that the tests of this folder run on."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On a GPU, warnings of drivers and compilers are shown and do not hide the numbers."""
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.filterwarnings("default"))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add a test's outcome to the file RESULTS_FILE, if it is set: benchmarks/gpu_right.py reads
    it, also when the tests had to be ended."""
    path = os.environ.get("RESULTS_FILE")
    if not path or "PYTEST_XDIST_WORKER" in os.environ:
        return
    if report.when == "call" or report.outcome != "passed":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
        result = {
            "test": report.nodeid.rpartition("::")[2],
            "outcome": report.outcome,
            "reason": reason,
            "measured": dict(report.user_properties),
        }
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")


@pytest.fixture(
    params=[
        pytest.param("cpu", marks=pytest.mark.slow),
        pytest.param("cuda", marks=pytest.mark.gpu),
    ]
)
def device(request: pytest.FixtureRequest) -> torch.device:
    """A CPU, so that the tests themselves are tested anywhere; and the first GPU."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device is visible")
    return torch.device("cpu") if request.param == "cpu" else torch.device("cuda", 0)


@pytest.fixture
def gpu() -> torch.device:
    """The first GPU, for tests that only make sense there or take too long on a CPU."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device is visible")
    return torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def exact_arithmetic() -> Iterator[None]:
    """By default cuDNN's convolutions round float32 to TF32, those of the vision towers too."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, where runs write."""
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "CLIPZOO_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    assert "NNODES" not in os.environ
    return tmp_path

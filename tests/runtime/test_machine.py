"""Processes and threads chosen for a machine."""

import pytest
import torch

from clipzoo.config import ConfigError, RuntimeConfig
from clipzoo.runtime import machine


def runtime(**changes: object) -> RuntimeConfig:
    values = {
        "processes": 0,
        "workers": 0,
        "micro_batch": 0,
        "device": "auto",
        "max_restarts": 0,
        "extract_workers": 0,
        "executor": "processes",
        "scheduler": "",
        "launcher": "",
    }
    return RuntimeConfig(**{**values, **changes})  # pyright: ignore[reportArgumentType]


@pytest.fixture
def with_gpus(monkeypatch):
    """with_gpus(8, cores=96): a machine with these."""

    def build(num_gpus: int, *, cores: int = 4) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: num_gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
        monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(cores)))

    return build


@pytest.mark.parametrize(
    ("num_gpus", "cores", "changes", "expected"),
    [
        (8, 96, {}, 8),
        (1, 16, {}, 1),
        (0, 16, {}, 2),
        (0, 1, {}, 1),
        (8, 96, {"processes": 3}, 3),
        (8, 96, {"processes": 3, "device": "cuda"}, 3),
        (1, 16, {"processes": 6, "device": "cpu"}, 6),
        (8, 96, {"device": "cpu"}, 2),
        (0, 1, {"processes": 3}, 3),
    ],
)
def test_processes(with_gpus, num_gpus, cores, changes, expected):
    with_gpus(num_gpus, cores=cores)
    assert machine.count_processes(runtime(**changes)) == expected


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_more_processes_than_gpus_are_refused(with_gpus, monkeypatch, device):
    with_gpus(1)
    with pytest.raises(ConfigError, match=r"runtime\.processes: found 2; allowed: 1 to 1"):
        machine.count_processes(runtime(processes=2, device=device))
    monkeypatch.setenv("CLIPZOO_BACKEND", "gloo")
    assert machine.count_processes(runtime(processes=2, device=device)) == 2


def test_cuda_without_a_gpu_is_refused(with_gpus):
    with_gpus(0)
    with pytest.raises(ConfigError, match=r"runtime\.device: found 'cuda'"):
        machine.count_processes(runtime(device="cuda"))


@pytest.mark.parametrize(
    ("cores", "processes", "workers", "expected"),
    [(96, 8, 0, 12), (256, 8, 0, 16), (4, 8, 0, 1), (16, 1, 0, 16), (4, 8, 3, 3)],
)
def test_loader_threads_share_the_cores_of_a_gpu_machine(
    with_gpus, cores, processes, workers, expected
):
    with_gpus(processes, cores=cores)
    values = runtime(workers=workers)
    assert machine.count_workers(values, processes, on_gpu=True) == expected


def test_a_cpu_computes_with_its_cores(with_gpus):
    with_gpus(0, cores=96)
    assert machine.count_workers(runtime(), 2, on_gpu=False) == 1
    assert machine.count_workers(runtime(workers=5), 2, on_gpu=False) == 5

"""Processes exchange gradients, rows and objects, by nccl and by gloo, on GPUs and on a CPU."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import exchanging
import pytest
import torch
import tracing
from gradient_sums import CASES, step_gradients
from test_gpu_steps import assert_gradients
from test_traces import GOLDEN

from clipzoo.clips.encoding import encode_set
from clipzoo.train import loop

FOLDERS = (Path(__file__).parent, Path(__file__).parents[1], Path(__file__).parents[1] / "train")
START_SECONDS = 240


def exchange(folder: Path, device: str, backend: str, processes: int) -> list[dict[Any, Any]]:
    """What every rank has found."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", exchanging.__file__, str(folder), device]
    paths = [*map(str, FOLDERS), os.environ.get("PYTHONPATH", "")]
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "CLIPZOO_BACKEND": backend}
    done = subprocess.run(
        command,
        env=os.environ | environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return torch.load(folder / "found.pt")


def assert_exchanged(found: list[dict[Any, Any]]) -> None:
    """Every rank has received everything, and computed what one process on a CPU computes."""
    world = len(found)
    rows = torch.cat([exchanging.rows_of(process) for process in range(world)])
    run = tracing.make_run("ce-fp32", 2)
    top1 = loop.single_view_score(run)
    features = encode_set(run.method, run.val_clips, "test", params=run.params, device=tracing.CPU)
    for number, of_rank in enumerate(found):
        assert torch.equal(of_rank["rows"], rows)
        assert [values["rank"] for values in of_rank["objects"]] == list(range(world))
        assert all(values["ids"] == ["v1", "v 2"] for values in of_rank["objects"])
        assert torch.equal(torch.cat([values["row"] for values in of_rank["objects"]]), rows)
        assert of_rank["top1"] == top1
        assert (of_rank["features"] is None) is (number > 0)
    torch.testing.assert_close(found[0]["features"], features, rtol=1e-4, atol=1e-4)
    assert found[0]["trace"]["losses"] == pytest.approx(GOLDEN["ce-fp32"]["losses"], rel=1e-4)
    for case in CASES:
        for size, _ in exchanging.STEPS:
            expected_loss, expected = step_gradients(case, size, size)
            for of_rank in found:
                loss, gradients = of_rank[case, size]
                assert loss == pytest.approx(expected_loss, rel=1e-5)
                assert_gradients(gradients, expected, limit=1e-4)


@pytest.mark.slow  # a second of arithmetic, but two processes that import everything
def test_two_processes_on_a_cpu(folder):
    found = exchange(folder, "cpu", "gloo", 2)
    assert [(f["backend"], f["device"]) for f in found] == [("gloo", "cpu")] * 2
    assert_exchanged(found)


@pytest.mark.gpu
@pytest.mark.parametrize("processes", [1, 2])
def test_nccl(gpu, folder, processes):
    if torch.cuda.device_count() < processes:
        pytest.skip(f"nccl needs one GPU a process; found {torch.cuda.device_count()}")
    found = exchange(folder, "cuda", "nccl", processes)
    assert [(f["backend"], f["device"]) for f in found] == [("nccl", "cuda")] * processes
    assert_exchanged(found)


@pytest.mark.gpu
def test_gloo_carries_the_tensors_of_two_processes_on_one_gpu(gpu, folder):
    found = exchange(folder, "cuda", "gloo", 2)
    assert [(f["backend"], f["device"]) for f in found] == [("gloo", "cuda")] * 2
    assert_exchanged(found)

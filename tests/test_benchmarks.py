"""Every benchmark to its end, at a size where its numbers mean nothing."""

import importlib
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    """The module that the test names, with two short videos."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    module = importlib.import_module(request.param)
    workspace = importlib.import_module("workspace")
    few = partial(workspace.render, count=2, frames=24)
    for place in (workspace, module):
        if hasattr(place, "render"):
            monkeypatch.setattr(place, "render", few)
    monkeypatch.setattr("sys.argv", [request.param])
    return module


def change(monkeypatch: pytest.MonkeyPatch, module: ModuleType, **values: object) -> None:
    for name, value in values.items():
        monkeypatch.setattr(module, name, value)


@pytest.mark.parametrize("benchmark", ["augmentation"], indirect=True)
def test_augmentation(benchmark, monkeypatch, capsys):
    change(monkeypatch, benchmark, CLIPS_PER_ROUND=1)
    monkeypatch.setattr("sys.argv", ["augmentation", "--rounds", "1"])
    benchmark.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[1:]] == list(benchmark.VARIANTS)


@pytest.mark.parametrize("benchmark", ["extraction"], indirect=True)
def test_extraction(benchmark, monkeypatch, capsys):
    change(monkeypatch, benchmark, COPIES=1)
    monkeypatch.setattr("sys.argv", ["extraction", "--rounds", "1"])
    benchmark.main()
    assert "bare ffmpeg" in capsys.readouterr().out


@pytest.mark.parametrize("benchmark", ["loader"], indirect=True)
def test_loader(benchmark, monkeypatch, capsys):
    here = partial(benchmark.load, threads=2)
    few = {"SIZES": {"340x256": "340x256"}, "CLIPS_PER_ROUND": 1, "BATCH": 2, "NUM_BATCHES": 2}
    change(monkeypatch, benchmark, **few, as_train_loads=here)
    monkeypatch.setattr("sys.argv", ["loader", "--rounds", "1"])
    benchmark.main()
    assert "loader cores" in capsys.readouterr().out


@pytest.mark.parametrize("benchmark", ["gradients"], indirect=True)
def test_gradients(benchmark, monkeypatch, capsys):
    # Here all sizes share one process, whose largest size need not grow.
    growing = iter(range(1, 100)).__next__
    here = {"in_a_process": lambda *step: benchmark.run_step(*step) | {"mb": growing()}}
    change(monkeypatch, benchmark, STEPS=(4,), INPUT_PX=32, **here)
    benchmark.main()
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize("benchmark", ["concepts"], indirect=True)
def test_concepts(benchmark, monkeypatch, capsys):
    change(monkeypatch, benchmark, CASES={"training": (4, 3), "scoring": (4, 3)})
    # Here both ways share one process, whose largest size need not grow.
    growing = iter(range(1, 100)).__next__
    change(monkeypatch, benchmark, in_a_process=benchmark.run, largest_mb=growing)
    benchmark.main()
    differences = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()[2:]]
    assert len(differences) == 2
    assert max(differences) < 1e-5


@pytest.mark.parametrize("benchmark", ["training_log"], indirect=True)
def test_training_log(benchmark, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["training_log", "--steps", "50"])
    benchmark.main()
    assert "50 steps: " in capsys.readouterr().out


@pytest.mark.parametrize("benchmark", ["search"], indirect=True)
def test_search(benchmark, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["search", "--rows", "300", "--dims", "8", "--rounds", "2"])
    benchmark.main()
    assert "300" in capsys.readouterr().out


@pytest.mark.parametrize("benchmark", ["scale"], indirect=True)
def test_scale(benchmark, monkeypatch):
    monkeypatch.setenv("NUM_READS", "200")
    reads = {"read 20,000 clips": "read 200 clips"}
    steps = {reads.get(step, step): job for step, job in benchmark.STEPS.items()}
    change(monkeypatch, benchmark, STEPS=steps)
    assert set(benchmark.run_all(1000)) == set(steps)


def test_no_benchmark_is_left_out():
    """Those of a GPU have tests of their own, and the others prepare or print for these."""
    tested = Path(__file__).read_text()
    others = {"workspace", "methods"}
    for path in (ROOT / "benchmarks").glob("*.py"):
        if path.stem not in others and not path.stem.startswith("gpu"):
            assert f'["{path.stem}"]' in tested, path.name

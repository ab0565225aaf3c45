"""`benchmarks/extraction.py --short` to its end, at a size where its times mean nothing."""

import importlib
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_one_process_for_all_videos_makes_the_same_bytes(monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    benchmark = importlib.import_module("extraction")
    few = partial(benchmark.render, count=2, frames=24)
    monkeypatch.setattr(benchmark, "render", few)
    monkeypatch.setattr(benchmark, "SHORT_SECONDS", (0.2, 1))
    monkeypatch.setattr(benchmark, "RATE", 20)  # 4 and 20 frames
    monkeypatch.setattr("sys.argv", ["extraction", "--short", "--rounds", "1"])
    benchmark.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if "PyAV" not in line]
    assert [line.split(",")[0] for line in lines] == ["0.2 s", "0.2 s", "1 s", "1 s"]
    assert all(line.endswith("the same bytes") for line in lines)

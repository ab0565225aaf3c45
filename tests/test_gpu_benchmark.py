"""benchmarks/gpu.py runs to its end at tiny sizes on a CPU, and reports failures."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def run(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *options],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_every_measurement_runs(tmp_path):
    sections = ["machine", "fast", "full", "fed"]
    done = run(
        *("--device", "cpu", "--in-process", "--output", str(tmp_path), "--sections"), *sections
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "gpu-cpu.json").read_text())
    assert list(report["sections"]) == sections
    tables: dict[str, list[dict[str, Any]]] = {}
    for findings in report["sections"].values():
        assert not findings["faults"]
        assert not findings["skipped"]
        tables |= findings["tables"]

    steps = tables["Training steps (x = times the authors' step)"]
    assert [row["step"].split(":")[0] for row in steps] == [
        "as the authors",
        "ours",
        "+ fused AdamW",
        "+ channels-last",
    ]
    for row in steps:
        assert row["clips/s"] == pytest.approx(1000 * row["clips"] / row["ms"])
        assert row["TFLOP/s"] / row["clips/s"] == pytest.approx(3 * forward_tflops(), rel=0.02)
    assert all(row["least x"] <= row["x"] <= row["most x"] for row in steps[1:])
    (goal,) = [key for key in report["sections"]["fast"]["goals"] if "authors" in key]
    best = report["sections"]["fast"]["goals"][goal]
    assert best["value"] == max(row["x"] for row in steps[1:])
    assert best["met"] is (best["value"] >= 3)

    assert {row["loading"] for row in tables["Clips a second of the loader"]} >= {
        "threads",
        "processes",
    }
    (fed,) = tables["Steps fed by the loader (ours, not compiled)"]
    lost = 100 * (1 - fed["fed: clips/s"] / fed["in memory: clips/s"])
    assert fed["lost to waiting %"] == pytest.approx(lost)

    text = (tmp_path / "gpu-cpu.md").read_text()
    assert all(f"## {name} (" in text for name in sections)
    assert f"| {goal} |" in text


def forward_tflops() -> float:
    """Of a clip, by formula: 2 frames of 4 patches of 16 px, and the temporal Transformer."""
    from clipzoo.models.clip import build_clip

    visual: Any = build_clip("ViT-demo-16", 32).visual
    width, layers = visual.transformer.width, len(visual.transformer.resblocks)
    dim, tokens, frames = visual.output_dim, 5, 2

    def transformer(width: int, layers: int, tokens: int) -> int:
        return layers * (24 * tokens * width**2 + 4 * tokens**2 * width)

    patches = 2 * 4 * 3 * 16 * 16 * width
    frame = patches + transformer(width, layers, tokens) + 2 * width * dim
    return (frames * frame + transformer(dim, 6, frames)) / 1e12


def test_without_a_gpu_there_is_nothing_to_do(tmp_path):
    done = run("--output", str(tmp_path), CUDA_VISIBLE_DEVICES="")
    assert (done.returncode, list(tmp_path.iterdir())) == (0, [])
    assert "no CUDA device" in done.stdout


@pytest.mark.slow
def test_a_section_that_is_cut_off_or_dies_loses_no_other(tmp_path):
    """Sections in processes of their own; the first has 12 s left by what later ones need."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys, time\n"
        "if {'--only', 'machine'} <= set(sys.orig_argv): time.sleep(600)\n"
        "if {'--only', 'fast'} <= set(sys.orig_argv): os.abort()\n"
    )
    done = run(
        *("--device", "cpu", "--minutes", "5.2", "--output", str(tmp_path / "out")),
        *("--sections", "machine", "fast", "full"),
        PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT / 'src'}",
    )
    assert done.returncode == 1
    sections = json.loads((tmp_path / "out" / "gpu-cpu.json").read_text())["sections"]
    assert sections["machine"]["faults"] == ["cut off after 22 s"]
    assert sections["fast"]["faults"] == ["killed by SIGABRT"]
    assert sections["full"]["faults"] == []
    assert "FAILED: killed by SIGABRT" in (tmp_path / "out" / "gpu-cpu.md").read_text()

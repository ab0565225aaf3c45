"""benchmarks/gpu.py runs to its end at tiny sizes on a CPU, and reports failures."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from open_clip.transformer import QuickGELU

import tiny
from clipzoo.data.store import ShardStore

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")


def module(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module(name)


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
        "the authors'",
        "the recipe without fused AdamW",
        "the recipe",
        "the recipe in bf16",
        "the recipe in bf16, channels-last",
    ]
    for row in steps:
        assert row["clips/s"] == pytest.approx(1000 * row["clips"] / row["ms"])
        assert row["TFLOP/s"] / row["clips/s"] == pytest.approx(3 * forward_tflops(), rel=0.02)
    assert all(row["least x"] <= row["x"] <= row["most x"] for row in steps[1:])
    (goal,) = [key for key in report["sections"]["fast"]["goals"] if "authors" in key]
    best = report["sections"]["fast"]["goals"][goal]
    assert best["value"] == max(row["x"] for row in steps[1:])
    assert best["met"] is (best["value"] >= 3)

    loaded = tables["Clips a second of the loader"]
    assert {row["loading"] for row in loaded} == {"threads", "processes", "programs"}
    (fed,) = tables["Steps of the recipe, fed by the loader"]
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
    assert (done.returncode, list(tmp_path.iterdir())) == (0, []), done.stderr
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


def test_the_authors_step_nests_checkpoints_and_computes_the_same(monkeypatch):
    """Attention and MLP three times a step, norms twice; gradients are those without checkpoints,
    bit for bit."""
    authors = module("gpu_authors", monkeypatch)
    frames = torch.randn(2, 3, tiny.INPUT_PX, tiny.INPUT_PX)
    found = {}
    for nested in (False, True):
        visual: Any = tiny.clip().visual
        if nested:
            authors.checkpoint_twice(visual)
        (block,), calls = visual.transformer.resblocks, []
        for name in ("ln_1", "attn", "ln_2", "mlp"):
            getattr(block, name).register_forward_hook(lambda *_, n=name, c=calls: c.append(n))
        visual(frames).square().sum().backward()
        found[nested] = {n: p.grad for n, p in visual.named_parameters()}
        times = (2, 3) if nested else (1, 1)
        counts = {name: calls.count(name) for name in ("ln_1", "ln_2", "attn", "mlp")}
        assert counts == dict(ln_1=times[0], ln_2=times[0], attn=times[1], mlp=times[1])
    assert all(torch.equal(found[True][n], gradient) for n, gradient in found[False].items())


def test_the_steps_are_those_of_the_published_recipes(monkeypatch):
    """Each variant is the recipe but for what its name says."""
    steps = module("gpu_steps", monkeypatch)
    smoke = module("gpu_setting", monkeypatch).smoke(CPU)
    for arch, name in steps.RECIPES.items():
        assert steps.params_for(smoke, arch, steps.RECIPE).recipe == name
    fast = (steps.AUTHORS, steps.UNFUSED, steps.RECIPE, steps.BF16, steps.COMPILED)
    found = [steps.params_for(smoke, "ViT-L/14", variant).train for variant in fast]
    assert [(t.precision, t.fused, t.compile) for t in found] == [
        ("fp16", False, False),
        ("fp16", False, False),
        ("fp16", True, False),
        ("bf16", True, False),
        ("bf16", True, True),
    ]
    stepper = steps.Stepper(smoke, "ViT-demo-16", steps.RECIPE, 2)
    assert isinstance(stepper.trial.method.visual.transformer.resblocks[0].mlp.gelu, QuickGELU)
    assert stepper.trial.scaler.is_enabled()


def test_made_up_frames_are_a_frame_store(monkeypatch, tmp_path):
    frames = module("gpu_frames", monkeypatch)
    size_kb = frames.write_frames(tmp_path / "made up", "340x256", 2, 5)
    store = ShardStore(tmp_path / "made up" / "index.parquet")
    assert {n: (v.num_frames, v.width, v.height) for n, v in store.videos.items()} == {
        "000": (5, 340, 256),
        "001": (5, 340, 256),
    }
    read = [jpeg for name in store.videos for jpeg in store.read(name, range(5))]
    assert read == [j for seed in (0, 1) for j in frames.jpegs(seed, 340, 256, 5)]
    assert len(set(read)) == 10
    assert size_kb == pytest.approx(sum(map(len, read)) / 1e4)
    assert 12 < size_kb < 18


@pytest.mark.slow
def test_only_the_packages_of_the_docs_are_needed(tmp_path):
    """All others, as far as the project needs them, are hidden; then one of those that are named,
    whose sections are skipped with its name."""
    named = needed_packages()
    others = {"dvc", "dvclive", "decord", "ffmpeg", "imageio_ffmpeg", "matplotlib", "jinja2"}
    others |= {"psutil", "torchnet", "dask", "distributed", "pandas"}
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "from importlib.machinery import PathFinder\n"
        "find = PathFinder.find_spec\n"
        "def find_spec(name, *others):\n"
        "    hidden = name.partition('.')[0] in os.environ['HIDDEN'].split()\n"
        "    return None if hidden else find(name, *others)\n"
        "PathFinder.find_spec = find_spec\n"
    )
    assert not named & others
    for hidden, skipped in ((others, []), ({"simplejpeg"}, ["fast", "full", "fed"])):
        done = run(
            *("--device", "cpu", "--output", str(tmp_path / "out")),
            *("--sections", "machine", "fast", "full", "fed"),
            PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT / 'src'}",
            HIDDEN=" ".join(hidden),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        sections = json.loads((tmp_path / "out" / "gpu-cpu.json").read_text())["sections"]
        found = {name: section["skipped"] for name, section in sections.items()}
        why = "{} (needs the package simplejpeg, which is not installed)"
        assert found == {name: [why.format(name)] if name in skipped else [] for name in sections}


def needed_packages() -> set[str]:
    """The packages that docs/speed.md lists, by the names they are imported by."""
    text = (ROOT / "docs" / "speed.md").read_text()
    (line,) = [line for line in text.splitlines() if line.strip().startswith("pip install ")]
    imported = {"open_clip_torch": "open_clip", "opencv-python-headless": "cv2", "pillow": "PIL"}
    names = line.split()[2:]
    return {imported.get(name, name.partition(".")[0]) for name in names}


def test_a_folder_that_is_no_frame_store_is_refused(tmp_path):
    done = run("--device", "cpu", "--frames", str(tmp_path))
    assert done.returncode == 2
    assert f"--frames: {tmp_path} has no index.parquet" in done.stderr

"""Every stage ends with its own exit code, many times under load (`ends.py`)."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from videos import make_video

TIMES = 60 if os.environ.get("CLIPZOO_LONG") else 16
AT_A_TIME = 8
"""Runs at the same time: each core has several to switch between, as under load."""
DATASET, RECIPE = "mine", "mine"
BRANCH = {
    "attributes__datasets": [DATASET],
    "attributes__template": "{}",
    "bike_attributes__prefix": "",
    "bike_attributes__num_attributes": 1,
    "attributes__top_k": 1,
}
SMALL = {
    "recipe": "mine",
    "data__dataset": DATASET,
    "data__datasets": [DATASET],
    "data__demo": [],
    "data__zero_shot": [DATASET],
    "model__arch": "ViT-tiny-16",
    "model__weights": "random",
    "model__num_segments": 2,
    "train__epochs": 1,
    "train__warmup_epochs": 0,
    "train__batch_size": 2,
    "train__val_every": 1,
    "runtime__workers": 2,
    "runtime__extract_workers": 1,
    **BRANCH,
}
GROUPS = (
    (("check_names",),),
    (("prepare_clip",),),
    (("extract_frames", DATASET), ("build_lists", DATASET)),
    (
        *(("embed_labels", DATASET), ("train",), ("test",), ("zero_shot", DATASET)),
        *(("attributes", DATASET), ("fuse", RECIPE)),
    ),
    (("report",),),
)
"""Stages in their order; those of a group share the process that imports for them."""
SCRIPT = Path(__file__).with_name("ends.py")
ARCHITECTURE = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}


@pytest.fixture
def ends(fresh_workspace, tmp_path) -> Callable[..., dict[str, dict[str, int]]]:
    """Runs stages TIMES times; returns how often each ended with which exit code.

    In folders 0, 1, ... of a run with two classes of two videos each; with few recipes, for speed.
    """
    workspace = fresh_workspace
    for name in "ab":
        for number in range(2):
            make_video(tmp_path / f"videos/{name}/{number}.avi", 12, "48x36")
    workspace.dvc("scan", DATASET, str(tmp_path / "videos"), module="clipzoo")
    workspace.set(**SMALL)
    for method in ("text4vis", "bike", "actionclip"):
        shutil.rmtree(workspace.path / "recipes" / method)
    (tmp_path / "ViT-tiny-16.json").write_text(json.dumps(ARCHITECTURE))
    for number in range(AT_A_TIME):
        shutil.copytree(workspace.path, tmp_path / str(number), symlinks=True)

    def run(*stages: tuple[str, ...]) -> dict[str, dict[str, int]]:
        words = [" ".join([name, *workspace.command(name, *args)[2:]]) for name, *args in stages]
        done = subprocess.run(
            [sys.executable, SCRIPT, tmp_path, str(TIMES), *words],
            env=workspace.environment(PYTHONPATH=str(workspace.path / "src")),
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.mark.slow
def test_every_stage_ends_with_its_own_code_every_time(ends, tmp_path):
    """All but make_demo, which renders for minutes, and starts no thread and reads no index."""
    kept = f"predictions/zoo/{RECIPE}"  # it is fused with itself
    for folder in tmp_path.glob("[0-9]*"):
        (folder / kept).mkdir(parents=True)
        for name in ("predictions/test.safetensors", "predictions/test.parquet"):
            (folder / kept / Path(name).name).symlink_to(folder / name)
        (folder / kept / "test.json").symlink_to(folder / "metrics/mine/test.json")
    codes = {stage: count for group in GROUPS for stage, count in ends(*group).items()}
    assert codes == {stage: {"0": TIMES} for group in GROUPS for stage, *_ in group}


@pytest.mark.slow
def test_an_error_ends_a_stage_with_code_1_every_time(ends, tmp_path):
    """An error comes soonest after the index has been read."""
    ends(("extract_frames", DATASET))
    for folder in tmp_path.glob("[0-9]*"):
        shutil.rmtree(folder / f"data/annotations/{DATASET}")
    assert ends(("build_lists", DATASET)) == {"build_lists": {"1": TIMES}}

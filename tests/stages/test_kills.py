"""Kills at random moments of all stages; the results are the same bytes.

Harsher than in use: DVC removes a stage's outputs before it runs the stage again; here every stage
finds whatever its killed predecessors left.
"""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

STAGES = [
    ("check_names",),
    ("make_demo", "demo_shapes"),
    ("make_demo", "demo_unseen"),
    ("prepare_clip",),
    ("extract_frames", "demo_shapes"),
    ("extract_frames", "demo_unseen"),
    ("build_lists", "demo_shapes"),
    ("build_lists", "demo_unseen"),
    ("embed_labels", "demo_shapes"),
    ("embed_labels", "demo_unseen"),
    ("attributes", "demo_shapes"),
    ("train",),
    ("test",),
    ("interpolation",),
    ("zero_shot", "demo_unseen"),
    ("fuse", "demo"),
    ("report",),
]
BRANCH = {
    "attributes__datasets": ["demo_shapes"],
    "attributes__template": "{}",
    "bike_attributes__prefix": "",
}
"""The attributes branch, in a run of another method: `fuse` takes that run's scores for both."""
KEPT = "predictions/zoo/demo"
WRITTEN = ("data", "lists", "metrics", "models", "predictions", "plots", "RESULTS.md", "zoo.csv")
NUM_KILLS, OF_A_STAGE = (100, 3) if os.environ.get("CLIPZOO_LONG") else (14, 1)
"""In all, and of each stage at least; a hundred take about 20 minutes on 2 cores."""


def hashes(root: Path) -> dict[str, str]:
    """SHA-256 of every file that stages write."""
    files = [path for name in WRITTEN for path in sorted([root / name, *(root / name).rglob("*")])]
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file()
    }


def run(workspace, stage: tuple[str, ...]) -> float:
    """Run a stage to its end; returns its seconds."""
    began = time.monotonic()
    workspace.run(*stage)
    return time.monotonic() - began


def keep_scores(workspace) -> None:
    """Keep the scores of the run, which is fused with itself."""
    folder = workspace.path / KEPT
    folder.mkdir(parents=True)
    for name in ("predictions/test.safetensors", "predictions/test.parquet"):
        shutil.copy(workspace.path / name, folder)
    shutil.copy(workspace.path / "metrics/demo/test.json", folder)


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.read_text().split()] if listed.exists() else []


def kill(process: subprocess.Popen, how: str) -> None:
    """SIGKILL to a stage and all its processes, to the stage alone, or to one of its processes."""
    others = children(process.pid)
    if how == "all" or (how == "child" and not others):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        os.kill(process.pid if how == "parent" else others[0], signal.SIGKILL)


def test_kills_change_no_byte(workspaces):
    rng = random.Random(2026)
    calm, killed = workspaces
    for workspace in (calm, killed):
        workspace.set(runtime__processes=2, train__checkpoint_every=1, **BRANCH)
    seconds = {}
    for stage in STAGES:
        if stage[0] == "fuse":
            keep_scores(calm)
        seconds[stage] = run(calm, stage)
    share = NUM_KILLS / sum(seconds.values())  # long stages are killed more often
    num_killed = 0
    for stage in STAGES:
        if stage[0] == "fuse":
            keep_scores(killed)
        wanted = num_killed + max(OF_A_STAGE, round(share * seconds[stage]))
        while num_killed < wanted:
            process = killed.start(*stage)
            time.sleep(rng.uniform(0, seconds[stage]))
            if process.poll() is None:  # else it was faster this time
                kill(process, rng.choice(["all", "all", "parent", "child"]))
                num_killed += 1
            process.communicate(timeout=120)
        run(killed, stage)
    assert num_killed >= NUM_KILLS
    expected, found = hashes(calm.path), hashes(killed.path)
    assert len(expected) > 50
    assert found == expected
    assert not list(killed.path.rglob("*.part"))
    for name in ("data/attributes/demo_shapes/val.json", "metrics/demo/fused.json"):
        assert name in found

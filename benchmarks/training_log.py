"""Logging of a training step, against dvclive's own step, at the length of a published run.

    python benchmarks/training_log.py [--steps N]

Both log loss and learning rate. `TrainingLog` logs all N steps, and a resumed run restores their
history; dvclive's `next_step`, which reads the history again, is timed on 50 more steps after it.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from dvclive.live import Live

from clipzoo.train.log import TrainingLog

MORE_STEPS = 50


def rows(first: int, count: int) -> list[dict[str, float]]:
    return [{"step": i, "loss": 1 / (i + 1), "lr": 1e-5 * i} for i in range(first, first + count)]


def log_steps(folder: Path, history: list[dict[str, float]], count: int) -> tuple[float, float]:
    """Seconds until the log stands, and seconds a step."""
    began = time.perf_counter()
    log = TrainingLog(folder, history, len(history) + count, torch.device("cpu"))
    ready = time.perf_counter()
    for row in rows(len(history), count):
        log.add([row], num_clips=1, skipped_steps=0)
    log.close()
    return ready - began, (time.perf_counter() - ready) / count


def next_steps(folder: Path, first: int) -> float:
    """Seconds a step of dvclive alone, in a folder that holds a history."""
    live = Live(str(folder), resume=True, dvcyaml=None, save_dvc_exp=False, report=None)
    live.step = first
    began = time.perf_counter()
    for row in rows(first, MORE_STEPS):
        for key in ("loss", "lr"):
            live.log_metric(key, row[key], timestamp=False)
        live.next_step()
    return (time.perf_counter() - began) / MORE_STEPS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30_000)
    steps = parser.parse_args().steps
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _, ours = log_steps(folder / "log", [], steps)
        restoring, _ = log_steps(folder / "resumed", rows(0, steps), MORE_STEPS)
        theirs = next_steps(folder / "log", steps)
    print(f"{steps} steps: {1e3 * ours:.3f} ms a step; restoring their history: {restoring:.2f} s")
    print(f"dvclive's next_step after them: {1e3 * theirs:.1f} ms a step, {theirs / ours:.0f} x")


if __name__ == "__main__":
    main()

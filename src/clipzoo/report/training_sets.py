"""The number of training videos of a run beside that of the authors, from their lists and logs."""

import csv
from collections.abc import Mapping
from functools import cache
from typing import Any

from clipzoo.report.recipes import Recipe
from clipzoo.report.verdicts import REFERENCE_DIR, video_sets

KEEP_LAST_BATCH = ("text4vis",)
"""Methods whose training has the last, partial batch of an epoch; the others drop it."""


@cache
def _logs() -> dict[tuple[str, str], dict[str, str]]:
    """The rows of reference/training_logs.csv by method and log."""
    with open(REFERENCE_DIR / "training_logs.csv", encoding="utf-8", newline="") as file:
        return {(row["method"], row["log"]): row for row in csv.DictReader(file)}


def describe_training(values: Mapping[str, Any], recipe: str, loaded: Recipe | None) -> str:
    """The training videos of a run beside those of the authors; '' = no log is published.

    Args:
        values: train.json's values: num_videos and videos_sha256.
        loaded: the recipe of that name; None = there is none.

    Whether they are the same videos is known only where the authors' list is published.

    Example: `trained on 240,100 videos; the authors on 240,513 to 240,576, according to their log`.
    """
    method = recipe.partition("/")[0]
    log = _logs().get((method, loaded.authors.log)) if loaded and loaded.authors.log else None
    num = values.get("num_videos", 0)
    if not log or not loaded or not num:
        return ""
    name = log["train_list"].removeprefix("lists/")
    known = next((known for known in video_sets() if known.name == name), None)
    if known and values["videos_sha256"] == known.videos_sha256:
        return f"trained on the authors' {num:,} videos ({known.name})"
    if known:
        return f"trained on {num:,} videos; the authors on {known.num_videos:,} ({known.name})"
    low, high = logged_videos(log, method, loaded.authors.log_gpus)
    return f"trained on {num:,} videos; the authors on {low:,} to {high:,}, according to their log"


def logged_videos(log: Mapping[str, str], method: str, gpus: int) -> tuple[int, int]:
    """The lowest and highest number of videos with as many iterations as an epoch of a log has.

    Args:
        log: a row of reference/training_logs.csv.
        gpus: the number of GPUs of the logged run.

    Example: 3,759 iterations of 2 clips on 32 GPUs, the last one partial: 240,513 to 240,576.
    """
    iterations, batch = int(log["iterations_per_epoch"]), int(log["batch_per_gpu"]) * gpus
    if method in KEEP_LAST_BATCH:
        return (iterations - 1) * batch + 1, iterations * batch
    return iterations * batch, (iterations + 1) * batch - 1

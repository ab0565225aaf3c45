"""summary.json: the few results of the active run that a table of experiments shows.

Its path and keys are the same whatever the recipe is, so experiments of several recipes share their
columns in `dvc exp show`.
"""

from collections.abc import Iterable
from pathlib import Path

from clipzoo.files import write_json
from clipzoo.report.results import Row
from clipzoo.report.tables import run_verdict

SUMMARY_FILE = "summary.json"
NAME = "summary"
"""The key that holds all others: DVC names their columns `summary.top1` and so on."""
OF_TEST = ("top1", "fused_top1")
OF_ZERO_SHOT = ("full_top1", "gain")
INSTEAD = "map"
"""The result of a test of several labels a video, which has no top-1."""


def summarize(rows: Iterable[Row], recipe: str) -> dict[str, object]:
    """The summary of a run, in percent; zero-shot results are under the name of their dataset.

    Example: `{"top1": 97.1, "ucf101": {"full_top1": 80.2, "gain": 3.1}, "verdict": "reproduced"}`.
    """
    measured = [row for row in rows if row.recipe == recipe and row.value is not None]
    has_top1 = any(row.metric == OF_TEST[0] for row in measured)
    shown = OF_TEST if has_top1 else (*OF_TEST, INSTEAD)
    summary: dict[str, object] = {}
    of_datasets: dict[str, dict[str, float | None]] = {}
    for row in measured:
        if row.metric in shown:
            summary[row.metric] = row.value
        elif row.metric in OF_ZERO_SHOT:
            of_datasets.setdefault(row.dataset, {})[row.metric] = row.value
    return {**summary, **of_datasets, "verdict": run_verdict(measured)}


def write_summary(rows: Iterable[Row], recipe: str, root: str | Path = ".") -> None:
    """Write `SUMMARY_FILE` under `root`."""
    write_json({NAME: summarize(rows, recipe)}, Path(root) / SUMMARY_FILE)

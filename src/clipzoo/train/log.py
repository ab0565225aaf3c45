"""What training writes while it runs: curves for `dvc plots`, and the progress bar."""

import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from dvclive.live import Live

from clipzoo.runtime.distributed import rank
from clipzoo.runtime.progress import progress_bar

CURVES = ("loss", "lr", "val_top1")
SUMMARY_EVERY = 500
"""Steps between two summaries of the latest values (metrics.json)."""


class TrainingLog:
    """Logs every step; only rank 0 writes.

    Args:
        directory: of the curves.
        history: rows of the steps that an earlier, killed run took.
        total_steps: of the run.
    """

    def __init__(
        self, directory: Path, history: Sequence[dict[str, float]], total_steps: int
    ) -> None:
        self.started, self.num_clips, self.waited_seconds = time.perf_counter(), 0, 0.0
        self._bar = progress_bar(
            "train", total_steps, "step", initial=len(history), disable=rank() != 0
        )
        self._live: Live | None = None
        if rank() != 0:
            return
        self._live = Live(str(directory), dvcyaml=None, save_dvc_exp=False, report=None)
        if history:
            print(f"resuming after step {len(history)} of {total_steps}", flush=True)
            _write_history(Path(self._live.plots_dir) / "metrics", history)

    def add(self, row: dict[str, float], num_clips: int) -> None:
        """Log one step.

        Args:
            row: `step` (from 0), `loss`, `lr` and, where it was taken, `val_top1`.
            num_clips: clips of the step.
        """
        self.num_clips += num_clips
        seconds = time.perf_counter() - self.started
        self._bar.set_postfix_str(
            f"loss {row['loss']:.3f}, lr {row['lr']:.2e}, {self.num_clips / seconds:.1f} clips/s, "
            f"wait {100 * self.waited_seconds / seconds:.0f}%",
            refresh=False,
        )
        self._bar.update()
        if self._live is None:
            return
        self._live.step = int(row["step"])
        for key in CURVES:
            if key in row:
                self._live.log_metric(key, row[key], timestamp=False)
        if (self._live.step + 1) % SUMMARY_EVERY == 0:
            self._live.make_summary()  # not `next_step`, which reads the whole history again

    def close(self) -> None:
        """Write the steps since the last summary and close the files."""
        self._bar.close()
        if self._live is not None:
            self._live.make_summary()  # otherwise `end` returns to the step of the last one
            self._live.end()


def _write_history(directory: Path, history: Sequence[dict[str, float]]) -> None:
    """The curves of earlier steps in dvclive's form, each in one write."""
    table = pd.DataFrame(history)
    directory.mkdir(parents=True, exist_ok=True)
    for key in CURVES:
        if key in table:
            table[["step", key]].dropna().to_csv(directory / f"{key}.tsv", sep="\t", index=False)

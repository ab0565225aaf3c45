"""What training writes while it runs: curves for `dvc plots`, and the progress bar."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from clipzoo.files import named_disk_errors
from clipzoo.runtime.distributed import rank
from clipzoo.runtime.progress import progress_bar

if TYPE_CHECKING:
    from dvclive.live import Live

CURVES = ("loss", "lr", "val_top1", "val_map")
SUMMARY_EVERY = 500
"""Steps between two summaries of the latest values (metrics.json)."""


class WaitingTime:
    """Seconds in which a device had nothing to do because clips had not been loaded.

    While the CPU waits for clips, a GPU still works through what it was given. So the GPU's clock
    counts, from the end of that work to the arrival of the clips:

        CPU   give step 3 | wait for clips of step 4 | give step 4
        GPU   step 2  | step 3             | idle    | step 4
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds = 0.0
        self._device = device
        self._unread: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def measured(self) -> Iterator[None]:
        """The context in which the CPU waits for clips."""
        if self._device.type != "cuda":
            began = time.perf_counter()
            yield
            self.seconds += time.perf_counter() - began
            return
        done, arrived = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        stream = torch.cuda.current_stream(self._device)
        stream.record_event(done)
        yield
        stream.record_event(arrived)
        self._unread.append((done, arrived))

    def read(self) -> None:
        """Add the times of a GPU; to be called when a transfer has waited for all its work."""
        self.seconds += sum(done.elapsed_time(arrived) for done, arrived in self._unread) / 1000
        self._unread.clear()


class TrainingLog:
    """Logs every step; only rank 0 writes.

    Args:
        history: the rows of the steps that an earlier run took before it was killed.
        device: the device whose waiting is measured.
    """

    def __init__(
        self,
        directory: Path,
        history: Sequence[dict[str, float]],
        total_steps: int,
        device: torch.device,
    ) -> None:
        self.started, self.num_clips, self.waiting = time.perf_counter(), 0, WaitingTime(device)
        self._bar = progress_bar(
            "train", total_steps, "step", initial=len(history), disable=rank() != 0
        )
        self._live: Live | None = None
        self._directory = directory
        if rank() != 0:
            return
        from dvclive import live  # slow

        if history:
            print(f"resuming after step {len(history)} of {total_steps}", flush=True)
        with named_disk_errors(directory):
            self._live = live.Live(str(directory), dvcyaml=None, save_dvc_exp=False, report=None)
            if history:
                _write_history(Path(self._live.plots_dir) / "metrics", history[:-1])
                self._write(self._live, history[-1])  # for the summary, if no step follows

    def add(self, rows: Sequence[dict[str, float]], num_clips: int, skipped_steps: int) -> None:
        """Log some steps, whose losses have been read from the device.

        Args:
            rows: for each step `step` (from 0), `loss`, `lr` and, after a validation, `val_top1`
                or `val_map`.
            skipped_steps: the steps that the scaler of fp16 has skipped in the run so far.
        """
        self.num_clips += num_clips
        self.waiting.read()
        seconds = time.perf_counter() - self.started
        self._bar.set_postfix_str(
            f"loss {rows[-1]['loss']:.3f}, lr {rows[-1]['lr']:.2e}, "
            f"{self.num_clips / seconds:.1f} clips/s, "
            f"wait {100 * self.waiting.seconds / seconds:.0f}%"
            + (f", {skipped_steps} steps skipped" if skipped_steps else ""),
            refresh=False,
        )
        self._bar.update(len(rows))
        if self._live is not None:
            with named_disk_errors(self._directory):
                for row in rows:
                    self._write(self._live, row)

    @staticmethod
    def _write(live: "Live", row: dict[str, float]) -> None:
        live.step = int(row["step"])
        for key in CURVES:
            if key in row:
                live.log_metric(key, row[key], timestamp=False)
        if (live.step + 1) % SUMMARY_EVERY == 0:
            live.make_summary()  # not `next_step`, which reads the whole history again

    def close(self) -> None:
        """Write the steps since the last summary and close the files."""
        self._bar.close()
        if self._live is not None:
            with named_disk_errors(self._directory):
                self._live.make_summary()  # otherwise `end` returns to the last summary's step
                self._live.end()


def _write_history(directory: Path, history: Sequence[dict[str, float]]) -> None:
    """The curves of earlier steps in dvclive's form, each in one write."""
    import pandas as pd  # slow

    table = pd.DataFrame(history)
    directory.mkdir(parents=True, exist_ok=True)
    for key in CURVES:
        if key in table:
            table[["step", key]].dropna().to_csv(directory / f"{key}.tsv", sep="\t", index=False)

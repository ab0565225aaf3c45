"""The progress bar of every stage."""

import sys

from tqdm import tqdm


class _Bar(tqdm):
    """Shows its first estimate of the remaining time as soon as there is one."""

    def update(self, n: float | None = 1) -> bool | None:
        first = not self.disable and self.n == self.initial
        shown = super().update(n)
        return self.refresh() if first and not shown else shown


def progress_bar(
    desc: str, total: int, unit: str, *, initial: int = 0, disable: bool = False
) -> tqdm:
    """A bar with rate and remaining time.

    Without a terminal it is printed after the first update, and then every 10 s at most.
    """
    return _Bar(
        desc=desc,
        total=total,
        unit=unit,
        initial=initial,
        disable=disable,
        dynamic_ncols=True,
        mininterval=0.1 if sys.stderr.isatty() else 10,
    )

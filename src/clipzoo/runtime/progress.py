"""The progress bar of every stage."""

import sys

from tqdm import tqdm


def progress_bar(
    desc: str, total: int, unit: str, *, initial: int = 0, disable: bool = False
) -> tqdm:
    """A bar with rate and remaining time; without a terminal, updated only every 10 s."""
    return tqdm(
        desc=desc,
        total=total,
        unit=unit,
        initial=initial,
        disable=disable,
        dynamic_ncols=True,
        mininterval=0.1 if sys.stderr.isatty() else 10,
    )

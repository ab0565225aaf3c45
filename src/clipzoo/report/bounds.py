"""What a result on a part of the published videos says about all of them.

With c of n videos right and m missing, the accuracy on all N = n + m lies between c / N, if the
missing ones are all wrong, and (c + m) / N, if they are all right.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SETS = ("", "single_view_", "full_", "raw_full_", "fused_", "fused_best_", "video_", "attributes_")
ACCURACIES = {f"{prefix}top{k}" for prefix in SETS for k in (1, 5)} | {"interpolated_top1"}
"""Metrics that are a share of all videos of their file."""
AUTHORS_ACCURACIES = {"authors_top1": "top1", "authors_top5": "top5"}
"""Metrics over the first videos of the list -> the same over all videos of the file."""
STORED = {"half_top1_mean", "raw_half_top1_mean"}
"""Metrics whose bounds the metrics file has, as `<metric>_low` and `<metric>_high`."""
ROUNDING = 1e-9
"""Percentage points: 97.4 - 97.1 may count as 0.3."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The lowest and the highest value possible on the complete set, in percent."""

    low: float
    high: float
    num_videos: int
    """Number of videos of the complete set."""


def bounds_of(values: Mapping[str, Any], key: str, batch: int = 0) -> Bounds | None:
    """The bounds of one metric of a file; None = none are known for this metric.

    They are equal if no video is missing.

    Args:
        values: the metrics file's values.
        key: the metric.
        batch: videos in a batch of the authors' tests, which drop the last, partial one.
    """
    num, total = values["num_videos"], values["num_expected"]
    if num == total:
        return Bounds(low=values[key], high=values[key], num_videos=total)
    missing = total - num
    if key in ACCURACIES:
        low, high = _counts(values[key], num)
        return _share(low, high + missing, total)
    if key in AUTHORS_ACCURACIES and batch and total >= batch:
        # Which videos are dropped of the complete list is not known, but how many.
        low, high = _counts(values[AUTHORS_ACCURACIES[key]], num)
        dropped = total % batch
        kept = total - dropped
        return _share(max(0, low - dropped), min(high + missing, kept), kept)
    if key in STORED and f"{key}_low" in values:
        return Bounds(low=values[f"{key}_low"], high=values[f"{key}_high"], num_videos=total)
    return None


def mean_bounds(parts: Sequence[Bounds | None]) -> Bounds | None:
    """The bounds of a mean over several sets; None if one has none."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    return Bounds(
        low=sum(part.low for part in known) / len(known),
        high=sum(part.high for part in known) / len(known),
        num_videos=sum(part.num_videos for part in known),
    )


def judge(bounds: Bounds, published: float, tolerance: float) -> str:
    """The verdict on a result of which only bounds are known; all values are percentages.

    - reproduced: every possible value is within the tolerance of the published one;
    - within reach: some possible value may be, so [low - tolerance, high + tolerance] has it;
    - not reached: all are further below; above: all are further above.
    """
    low, high = bounds.low, bounds.high
    reach = tolerance + ROUNDING
    span = f"{low:.1f} to {high:.1f} on all {bounds.num_videos:,}"
    if published - reach <= low and high <= published + reach:
        return f"reproduced ({span}; within {tolerance:g})"
    target = f"published {published:g}"
    if low - reach <= published <= high + reach:
        return f"within reach ({span}; {target})"
    words = "not reached" if high < published else "above"
    return f"{words} ({span}; {target}, tolerance {tolerance:g})"


def _counts(percent: float, num_videos: int) -> tuple[int, int]:
    """The lowest and the highest number of right videos that an accuracy stands for: one number, if
    it was divided once; `write_metrics` rounds it to 1e-6, so of a million videos to 0.005."""
    count = percent * num_videos / 100
    if abs(count - round(count)) < 0.01:
        return round(count), round(count)
    return math.floor(count), math.ceil(count)


def _share(low: int, high: int, num_videos: int) -> Bounds:
    return Bounds(low=100 * low / num_videos, high=100 * high / num_videos, num_videos=num_videos)

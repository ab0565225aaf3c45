"""95% intervals of accuracies and of their differences, in percent, from counts of videos.

Both invert a score test: they hold all values that the test does not reject. So they are also right
for few videos, and where all videos are right, or two models differ on none; every resample of a
bootstrap would then give the same number, as if nothing were uncertain. Does not import torch.
"""

import math

Z95 = 1.959963984540054
"""97.5% quantile of the standard normal distribution."""


def wilson_interval(hits: int, num: int) -> tuple[float, float]:
    """The interval of an accuracy (Wilson, JASA 22, 1927); 6 of 6 right give 61.0 to 100.

    Args:
        hits: videos that are right.
        num: all videos, 1 or more.
    """
    # The p with |hits - num p| <= z sqrt(num p (1 - p)): between the roots of a quadratic.
    center = hits + Z95**2 / 2
    margin = Z95 * math.sqrt(hits * (num - hits) / num + Z95**2 / 4)
    low, high = (100 * (center + side) / (num + Z95**2) for side in (-margin, margin))
    # The ends 0 and 100 are exact, but would be rounded.
    return low if hits else 0.0, high if hits < num else 100.0


def paired_interval(won: int, lost: int, num: int) -> tuple[float, float]:
    """The interval, in percentage points, of an accuracy minus another one on the same videos.

    Source: Tango, Statistics in Medicine 17, 1998. Where the two differ on no video, it is plus and
    minus the upper end of Wilson's interval of 0 in `num`.

    Args:
        won: videos that only the first gets right.
        lost: videos that only the second gets right.
        num: all videos, 1 or more.
    """

    def score(delta: float) -> float:
        """(won - lost - num delta), over its standard deviation under this difference."""
        # The share of lost videos that is likeliest under `delta`: 2 n q^2 + b q + c = 0.
        b = -won - lost + (2 * num - won + lost) * delta
        c = -lost * delta * (1 - delta)
        share = (math.sqrt(max(b * b - 8 * num * c, 0.0)) - b) / (4 * num)
        variance = num * (2 * share + delta * (1 - delta))
        distance = won - lost - num * delta
        if variance > 0:
            return distance / math.sqrt(variance)
        return math.copysign(math.inf, distance) if distance else 0.0

    ends = []
    for bound in (Z95, -Z95):  # the score falls with delta
        low, high = -1.0, 1.0
        for _ in range(60):  # halves the bracket of 2 down to the last bits of a float
            middle = (low + high) / 2
            low, high = (middle, high) if score(middle) > bound else (low, middle)
        ends.append(100 * (low + high) / 2)
    return ends[0], ends[1]

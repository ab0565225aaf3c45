"""Intervals of accuracies and of their differences, against the literature and brute force."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from clipzoo.evaluate.intervals import paired_interval, wilson_interval


def test_intervals_do_not_import_torch():
    code = "import sys; import clipzoo.evaluate.intervals; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("hits", "num", "low", "high"),
    [
        # n / (n + z^2) where all are right, and Newcombe's examples (Stat. Med. 17, 1998, table I)
        (6, 6, 60.966, 100),
        (0, 6, 0, 39.034),
        (81, 263, 25.53, 36.62),
        (15, 148, 6.24, 16.05),
        (0, 20, 0, 16.11),
        (1, 29, 0.61, 17.18),
    ],
)
def test_wilson_interval_is_that_of_the_literature(hits: int, num: int, low: float, high: float):
    assert wilson_interval(hits, num) == pytest.approx((low, high), abs=0.005)


@pytest.mark.parametrize("num", [1, 7, 29, 240, 19_881])
def test_the_ends_of_an_interval_are_exact(num: int):
    low, high = wilson_interval(num, num)
    assert 0 < low < high == 100
    assert wilson_interval(0, num)[0] == 0


def test_the_interval_of_no_differing_video_is_wilsons_of_none():
    """z^2 / (n + z^2) = 3.8415 / 243.8415 of 240 videos; a bootstrap would give 0 to 0."""
    low, high = paired_interval(0, 0, 240)
    assert (low, high) == pytest.approx((-1.57540, 1.57540), abs=1e-4)
    assert high == pytest.approx(wilson_interval(0, 240)[1], abs=1e-9)


@pytest.mark.parametrize(("won", "lost", "num"), [(4, 1, 8), (12, 2, 50), (0, 3, 9), (30, 60, 400)])
def test_the_interval_is_all_that_a_score_test_accepts(won: int, lost: int, num: int):
    """At its ends the test's statistic is 1.96, with the likeliest shares found by trying all."""
    ends = [end / 100 for end in paired_interval(won, lost, num)]
    swapped = [end / 100 for end in paired_interval(lost, won, num)]
    assert ends == pytest.approx([-swapped[1], -swapped[0]], abs=1e-9)
    for delta, sign in zip(ends, (1, -1), strict=True):
        # Shares: lost q, won q + delta, equal 1 - 2 q - delta.
        q = torch.linspace(max(0, -delta), (1 - delta) / 2, 400_001, dtype=torch.float64)
        counts = torch.tensor([won, lost, num - won - lost], dtype=torch.float64)
        shares = torch.stack([q + delta, q, 1 - 2 * q - delta]).clamp(min=0)
        likelihood = torch.special.xlogy(counts[:, None], shares).sum(dim=0)
        best = float(q[likelihood.argmax()])
        deviation = math.sqrt(num * (2 * best + delta - delta**2))
        assert (won - lost - num * delta) / deviation == pytest.approx(sign * 1.959964, abs=2e-3)


def test_many_differing_videos_have_the_interval_of_a_bootstrap():
    """Videos are drawn in pairs: each is won, lost or equal, so the counts are multinomial."""
    draws = np.random.default_rng(0).multinomial(5000, [0.06, 0.02, 0.92], 10_000)
    ends = np.percentile(100 * (draws[:, 0] - draws[:, 1]) / 5000, [2.5, 97.5])
    assert paired_interval(300, 100, 5000) == pytest.approx(ends, abs=0.05)

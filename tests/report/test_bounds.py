"""Bounds of a result on the complete set, and the verdict on them."""

import itertools
import random

import pytest
import torch

from clipzoo.evaluate import metrics
from clipzoo.evaluate.protocols import evaluate_whole_batches
from clipzoo.report.bounds import Bounds, bounds_of, judge, mean_bounds


def measured(correct: list[bool], total: int, **more: float) -> dict:
    top1 = 100 * sum(correct) / len(correct)
    return {"num_videos": len(correct), "num_expected": total, "top1": top1, **more}


def test_no_completion_of_a_set_leaves_the_bounds_and_both_are_reached():
    random.seed(0)
    for num, missing in itertools.product(range(1, 6), range(1, 5)):
        correct = [random.random() < 0.6 for _ in range(num)]
        bounds = bounds_of(measured(correct, num + missing), "top1")
        assert bounds is not None
        values = [
            100 * sum([*correct, *rest]) / (num + missing)
            for rest in itertools.product([False, True], repeat=missing)
        ]
        assert (min(values), max(values)) == pytest.approx((bounds.low, bounds.high))
        assert bounds.num_videos == num + missing


@pytest.mark.parametrize("batch", [2, 3, 4])
def test_the_authors_whole_batches_lie_within_the_bounds_wherever_videos_are_missing(batch: int):
    generator = random.Random(batch)
    for _ in range(12):
        total = generator.randint(batch, 8)
        num = generator.randint(1, total)
        kept = sorted(generator.sample(range(total), num))
        here = {i: generator.random() < 0.7 for i in kept}
        bounds = bounds_of(
            measured(list(here.values()), total, authors_top1=0.0), "authors_top1", batch
        )
        assert bounds is not None
        missing = [i for i in range(total) if i not in here]
        for rest in itertools.product([False, True], repeat=len(missing)):
            right = here | dict(zip(missing, rest, strict=True))
            scores = torch.tensor([[0.0, 1.0] if right[i] else [1.0, 0.0] for i in range(total)])
            labels = torch.ones(total, dtype=torch.int64)
            if num < total:
                found = evaluate_whole_batches(scores, labels, batch)["authors_top1"]
                assert bounds.low - 1e-9 <= found <= bounds.high + 1e-9
                assert bounds.num_videos == total // batch * batch


def test_accuracies_in_full_precision_give_whole_counts():
    correct = torch.zeros(18266, dtype=torch.bool)
    correct[:15999] = True
    values = {"num_videos": 18266, "num_expected": 19796, "top5": metrics.percent(correct)}
    bounds = bounds_of(values, "top5")
    assert bounds is not None
    assert bounds.low == 100 * 15999 / 19796
    assert bounds.high == 100 * (15999 + 1530) / 19796
    rounded = bounds_of({**values, "top5": 87.6}, "top5")  # between 16,001 and 16,002
    assert rounded is not None
    assert (rounded.low, rounded.high) == (100 * 16001 / 19796, 100 * (16002 + 1530) / 19796)


@pytest.mark.parametrize("key", ["map", "mean_class_accuracy", "splits_top1_mean", "base_top1"])
def test_other_metrics_have_no_bounds_unless_no_video_is_missing(key: str):
    values = {"num_videos": 9, "num_expected": 10, key: 50.0}
    assert bounds_of(values, key) is None
    assert bounds_of({**values, "num_videos": 10}, key) == Bounds(low=50, high=50, num_videos=10)


def test_a_mean_over_sets_needs_the_bounds_of_each():
    first, second = (Bounds(low=a, high=a + 4, num_videos=10) for a in (50.0, 60.0))
    assert mean_bounds([first, second]) == Bounds(low=55, high=59, num_videos=20)
    assert mean_bounds([first, None]) is None


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (87.2, 87.6, "reproduced (87.2 to 87.6 on all 19,796; within 0.3)"),
        (87.1, 87.7, "reproduced (87.1 to 87.7 on all 19,796; within 0.3)"),
        (86.1, 88.0, "within reach (86.1 to 88.0 on all 19,796; published 87.4)"),
        (87.0, 87.5, "within reach (87.0 to 87.5 on all 19,796; published 87.4)"),
        (87.7, 89.0, "within reach (87.7 to 89.0 on all 19,796; published 87.4)"),
        (86.0, 87.0, "not reached (86.0 to 87.0 on all 19,796; published 87.4, tolerance 0.3)"),
        (87.8, 89.0, "above (87.8 to 89.0 on all 19,796; published 87.4, tolerance 0.3)"),
    ],
)
def test_verdicts_on_bounds(low: float, high: float, words: str):
    assert judge(Bounds(low=low, high=high, num_videos=19796), 87.4, 0.3) == words

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DistributedSampler, TensorDataset
from torchnet.meter import mAPMeter

from clipzoo.evaluate import metrics
from clipzoo.evaluate.intervals import paired_interval, wilson_interval

GOLDEN = Path(__file__).parents[1] / "golden" / "protocol.json"
PROBABILITIES = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.5, 0.2], [0.4, 0.35, 0.25], [0.1, 0.3, 0.6]])
LABELS = torch.tensor([0, 0, 2, 2])


def one_hot(labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(labels, num_classes)


def test_evaluate_on_a_case_computed_by_hand():
    values = metrics.evaluate(PROBABILITIES, LABELS)
    assert values["top1"] == 50  # videos 0 and 3
    assert values["top5"] == 100  # K = 3 <= 5
    assert values["mean_class_accuracy"] == 50  # class 1 has no videos: (1/2 + 1/2) / 2
    # class 0: ranks of its videos 1 and 3 -> (1 + 2/3) / 2; class 2: ranks 1 and 2 -> 1; class 1: 0
    assert values["map"] == pytest.approx(100 * ((1 + 2 / 3) / 2 + 1 + 0) / 3)
    assert list(values) == [
        "top1",
        "top1_ci95_low",
        "top1_ci95_high",
        "top5",
        "mean_class_accuracy",
        "map",
    ]


@pytest.mark.parametrize(("k", "expected"), [(1, [1, 0, 0, 1]), (2, [1, 1, 0, 1]), (3, [1] * 4)])
def test_in_top_k(k: int, expected: list[int]):
    assert metrics.in_top_k(PROBABILITIES, LABELS, k).int().tolist() == expected


def test_a_constant_score_is_no_better_than_chance():
    labels = torch.arange(10)
    probabilities = torch.full((10, 10), 0.1)
    assert metrics.percent(metrics.in_top_k(probabilities, labels, 1)) == 10
    assert metrics.percent(metrics.in_top_k(probabilities, labels, 5)) == 50


def test_mean_class_accuracy_weighs_classes_alike():
    labels = torch.tensor([0, 0, 0, 0, 3])
    correct = torch.tensor([True, True, True, False, False])
    assert metrics.mean_class_accuracy(correct, labels) == (75 + 0) / 2


def test_map_counts_a_class_without_positives_as_zero():
    scores = torch.tensor([[0.9, 0.1], [0.8, 0.2]])
    assert metrics.mean_average_precision(scores, torch.tensor([0, 0])) == 50


def test_map_equals_the_golden_value():
    case = next(c for c in json.loads(GOLDEN.read_text()) if c["kind"] == "mAP")
    num, classes = case["num_videos"], case["num_classes"]
    scores = np.random.RandomState(case["score_seed"]).standard_normal((num, classes))
    labels = torch.from_numpy(np.random.RandomState(case["label_seed"]).randint(0, classes, num))
    logits = torch.from_numpy(scores.astype("float32")) + case["bonus"] * one_hot(labels, classes)
    value = metrics.mean_average_precision(logits.softmax(dim=1), labels)
    assert value == pytest.approx(case["mAP"], abs=1e-5)


def test_multi_label_sets_have_map_alone():
    targets = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]])
    scores = torch.tensor([[0.9, 0.8, 0.1], [0.1, 0.2, 0.3], [0.2, 0.5, 0.4], [0.3, 0.1, 0.2]])
    values = metrics.evaluate(scores, targets)
    # class 0: rank 1; class 1: ranks 1 and 3; class 2: rank 3
    assert values == {"map": pytest.approx(100 * (1 + (1 + 2 / 3) / 2 + 1 / 3) / 3)}


def test_torchnet_warns_of_nothing_else(recwarn: pytest.WarningsRecorder):
    metrics.mean_average_precision(PROBABILITIES, LABELS)
    assert not recwarn.list


def plain_running_map(
    probabilities: torch.Tensor, targets: torch.Tensor, batch: int, processes: int
) -> float:
    """The authors' loop: samplers, batches of each process, one meter over all, weighted mean."""
    videos = TensorDataset(targets)
    shares = [list(DistributedSampler(videos, processes, rank)) for rank in range(processes)]
    each, meter, values, sizes = batch // processes, mAPMeter(), [], []
    for start in range(0, len(shares[0]), each):
        gathered = [video for share in shares for video in share[start : start + each]]
        meter.add(probabilities[gathered], targets[gathered])
        values.append(float(meter.value()))
        sizes.append(len(gathered))
    return 100 * sum(v * n for v, n in zip(values, sizes, strict=True)) / sum(sizes)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("num", "batch", "processes"),
    [(43, 8, 4), (40, 8, 4), (5, 4, 2), (3, 8, 8), (7, 64, 8), (9, 1, 1)],
    ids=["padded", "exact", "example", "padded twice over", "one batch", "one video a batch"],
)
def test_running_map_is_that_of_the_authors_loop(num: int, batch: int, processes: int):
    generator = torch.Generator().manual_seed(num)
    # few distinct scores: the order of equal ones matters
    scores = torch.randint(6, (num, 5), generator=generator).float() / 6
    targets = (torch.rand(num, 5, generator=generator) < 0.3).long()
    expected = plain_running_map(scores, targets, batch, processes)
    assert metrics.running_map(scores, targets, batch, processes) == pytest.approx(expected, 1e-12)


def test_running_map_by_hand():
    # Order 4 0 1 3 2 4, batches {4, 0, 1, 3} and {2, 4}: class 0 has its positives at ranks 1 and 3
    # of 4, then 1, 2 (twice the same video) and 4 of 6; class 1 has none.
    scores = torch.tensor([[0.5, 0.5], [0.4, 0.4], [0.1, 0.1], [0.2, 0.2], [0.9, 0.9]])
    targets = torch.tensor([[0, 0], [1, 0], [0, 0], [0, 0], [1, 0]])
    first, both = (1 + 2 / 3) / 2 / 2, (1 + 1 + 3 / 4) / 3 / 2
    expected = 100 * (4 * first + 2 * both) / 6
    assert metrics.running_map(scores, targets, 4, 2) == pytest.approx(expected, 1e-6)
    assert metrics.running_map(scores, targets, 64) != metrics.mean_average_precision(
        scores, targets
    )  # 8 processes: three videos count twice


def test_running_map_of_single_labels_and_of_an_impossible_batch():
    targets = one_hot(LABELS, 3)
    expected = metrics.running_map(PROBABILITIES, targets, 8)
    assert metrics.running_map(PROBABILITIES, LABELS, 8) == expected
    for batch in (0, 60):
        with pytest.raises(ValueError, match=f"batch: found {batch}; allowed: .* processes = 8"):
            metrics.running_map(PROBABILITIES, LABELS, batch)


def test_accuracies_and_gains_have_the_intervals_of_their_counts():
    correct, other = torch.tensor([1, 1, 1, 0, 0, 1]) > 0, torch.tensor([1, 0, 0, 1, 0, 1]) > 0
    low, high = wilson_interval(4, 6)
    expected = {"top1": 100 * 4 / 6, "top1_ci95_low": low, "top1_ci95_high": high}
    assert metrics.accuracy("top1", correct) == expected
    low, high = paired_interval(2, 1, 6)
    expected = {"gain": 100 / 6, "gain_ci95_low": low, "gain_ci95_high": high}
    assert metrics.gain("gain", correct, other) == expected


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (torch.empty(0, 3), torch.empty(0).long(), "one or more of each"),
        (torch.tensor([[0.5, float("nan")]]), torch.tensor([0]), "1 of 1 videos are not finite"),
        (torch.ones(2, 3), torch.tensor([0]), "labels have shape"),
        (torch.ones(1, 3), torch.tensor([3]), "found 3; allowed: 0 to 2"),
        (torch.ones(1, 3), torch.tensor([-1]), "found -1; allowed: 0 to 2"),
        (torch.ones(1, 3), torch.tensor([[0, 2, 0]]), "targets: found 2; allowed: 0 to 1"),
    ],
)
def test_bad_input_is_refused(probabilities: torch.Tensor, labels: torch.Tensor, message: str):
    with pytest.raises(metrics.MetricsError, match=message):
        metrics.evaluate(probabilities, labels)

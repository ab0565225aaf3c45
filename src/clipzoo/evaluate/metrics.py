"""Metrics of a set of videos, from probabilities and labels.

Everything is counted over single videos and divided once; results are percentages in full
precision. Multi-label sets have 0/1 targets [N, K] instead of labels [N], and mAP is their only
metric.
"""

import math

import torch
from torch import Tensor

from clipzoo.data.targets import as_targets, map_meter, mean_average_precision
from clipzoo.evaluate.intervals import paired_interval, wilson_interval

MAP_PROCESSES = 8
"""Processes of BIKE's Charades evaluation (scripts/run_test_charades.sh)."""


class MetricsError(ValueError):
    """Probabilities and labels that no metric can be computed from."""


def evaluate(probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    """Every metric of one set of videos.

    Args:
        probabilities: [N, K] float, higher is more likely.
        labels: [N] int64 in [0, K), or targets [N, K] of 0 and 1 for a multi-label set.

    Returns:
        top1 with its interval (`accuracy`), top5, mean_class_accuracy and map in percent; only map
        for a multi-label set.

    Raises:
        MetricsError: no videos, a value that is not finite, or shapes and labels that do not fit.
    """
    check(probabilities, labels)
    if labels.dim() == 2:
        return {"map": mean_average_precision(probabilities, labels)}
    correct = in_top_k(probabilities, labels, 1)
    return {
        **accuracy("top1", correct),
        "top5": percent(in_top_k(probabilities, labels, 5)),
        "mean_class_accuracy": mean_class_accuracy(correct, labels),
        "map": mean_average_precision(probabilities, labels),
    }


def check(probabilities: Tensor, labels: Tensor) -> None:
    """Raise MetricsError unless `probabilities` [N, K] and `labels` ([N] or [N, K]) fit."""
    shape = list(probabilities.shape)
    if len(shape) != 2 or 0 in shape:
        raise MetricsError(
            f"probabilities have shape {shape}; allowed: [videos, classes], one or more of each"
        )
    if list(labels.shape) not in (shape[:1], shape):
        raise MetricsError(
            f"labels have shape {list(labels.shape)}; allowed: {shape[:1]} or {shape}"
        )
    bad = int((~torch.isfinite(probabilities)).any(dim=1).sum())
    if bad:
        raise MetricsError(
            f"the probabilities of {bad} of {shape[0]} videos are not finite: the model gives NaN "
            "or infinity; check its training loss or evaluate in fp32"
        )
    top = 1 if labels.dim() == 2 else shape[1] - 1
    wrong = labels[(labels < 0) | (labels > top)]
    if len(wrong):
        name = "targets" if labels.dim() == 2 else "labels"
        raise MetricsError(f"{name}: found {wrong[0].item()}; allowed: 0 to {top}")


def in_top_k(probabilities: Tensor, labels: Tensor, k: int) -> Tensor:
    """Whether each video's label is among its k most likely classes, [N] bool.

    Among equal probabilities the lower class id comes first, so a constant score is no better than
    chance. With K <= k every label is in.

    Args:
        probabilities: [N, K] float.
        labels: [N] int64 in [0, K).
    """
    return ranks(probabilities, labels) <= k


def ranks(probabilities: Tensor, labels: Tensor) -> Tensor:
    """The rank of each video's label among the classes, [N] int64 in [1, K]; 1 = the most likely.

    Args and ties: as in `in_top_k`.
    """
    label_scores = probabilities.gather(1, labels[:, None])  # [N, K] -> [N, 1]
    lower_id = torch.arange(probabilities.shape[1]) < labels[:, None]  # [N, K]
    ahead = (probabilities > label_scores) | ((probabilities == label_scores) & lower_id)
    return 1 + ahead.sum(dim=1)  # [N, K] -> [N]


def first_of_highest(probabilities: Tensor) -> Tensor:
    """The most likely class [N] int64 of probabilities [N, K]; among equals the lowest id."""
    highest = probabilities.max(dim=1, keepdim=True).values  # [N, 1]
    return (probabilities == highest).int().argmax(dim=1)  # [N, K] -> [N]


def percent(correct: Tensor) -> float:
    """Share of true values in a bool tensor of any shape, in percent; counts are divided once."""
    return 100 * int(correct.sum()) / correct.numel()


def accuracy(key: str, correct: Tensor) -> dict[str, float]:
    """KEY, KEY_ci95_low and KEY_ci95_high: the percentage of `correct` [N] bool, and its Wilson
    interval."""
    low, high = wilson_interval(int(correct.sum()), len(correct))
    return {key: percent(correct), f"{key}_ci95_low": low, f"{key}_ci95_high": high}


def gain(key: str, correct: Tensor, baseline: Tensor) -> dict[str, float]:
    """KEY, KEY_ci95_low and KEY_ci95_high: an accuracy minus another one on the same videos, in
    percentage points, and its paired interval; both are [N] bool, in the same order."""
    won, lost = int((correct & ~baseline).sum()), int((baseline & ~correct).sum())
    low, high = paired_interval(won, lost, len(correct))
    value = 100 * (won - lost) / len(correct)
    return {key: value, f"{key}_ci95_low": low, f"{key}_ci95_high": high}


def per_class_counts(correct: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Correct videos and videos of each class, both [K] int64, from `correct` [N] bool."""
    videos = torch.bincount(labels, minlength=num_classes)
    return torch.bincount(labels[correct], minlength=num_classes), videos


def mean_class_accuracy(correct: Tensor, labels: Tensor) -> float:
    """Mean over classes of the accuracy within the class, in percent, of `correct` [N] bool.

    Classes without videos are excluded.
    """
    hits, videos = per_class_counts(correct, labels, int(labels.max()) + 1)
    present = videos > 0
    return 100 * float((hits[present].double() / videos[present]).mean())


def running_map(
    probabilities: Tensor, labels: Tensor, batch: int, processes: int = MAP_PROCESSES
) -> float:
    """Mean of the running mAP, percent, as BIKE evaluates Charades (test_charades.py, 194-241).

    The videos come in global batches. After each, the mAP of all videos so far is taken; the result
    is the mean of these values, weighted by the sizes of their batches. So the first videos count
    in every value, and the last ones hardly at all.

    The order is that of torch's DistributedSampler with seed 0: a random permutation, then its own
    beginning again up to a multiple of `processes`; process r takes the videos r, r + processes,
    ... of it, and a batch is gathered process by process.

    Args:
        probabilities: [N, K] float.
        labels: [N] int64 in [0, K), or targets [N, K] of 0 and 1; in the order of the list.
        batch: videos of all processes in a batch, a multiple of `processes`.
        processes: of the authors' run.

    Raises:
        ValueError: `batch` is not a multiple of `processes`, or one of them is below 1.

    Example: 5 videos, 2 processes, batch 4: permutation 4 0 1 3 2, padded 4 0 1 3 2 4; process 0
    takes 4 1 2, process 1 takes 0 3 4; batches 4 1 0 3 and 2 4; (4 * mAP of the first + 2 * mAP of
    both) / 6.
    """
    if processes < 1 or batch < 1 or batch % processes:
        raise ValueError(
            f"batch: found {batch}; allowed: a multiple of processes = {processes}, above 0"
        )
    targets = as_targets(labels, probabilities.shape[1])
    num = len(targets)
    order = torch.randperm(num, generator=torch.Generator().manual_seed(0))
    num_padded = math.ceil(num / processes) * processes
    order = order.repeat(math.ceil(num_padded / num))[:num_padded]
    total = 0.0
    with map_meter() as meter:
        for part in order.split(batch):
            # [b processes] -> [processes, b] -> [processes b]
            positions = part.view(-1, processes).T.flatten()
            meter.add(probabilities[positions].float(), targets[positions])
            total += len(part) * float(meter.value())
    return 100 * total / num_padded

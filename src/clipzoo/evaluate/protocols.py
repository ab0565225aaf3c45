"""Protocols: which views a video is scored from, and over which classes."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from clipzoo.clips.selection import MeasuredSet
from clipzoo.config import TestConfig, ZeroShotConfig
from clipzoo.evaluate import metrics
from clipzoo.evaluate.retrieval import compare_retrieval
from clipzoo.evaluate.scoring import Scored
from clipzoo.methods.parts.method import AuthorsMap

NUM_HALVES = 10
FIXED_SEED = 2023
"""The seed of the halves that Open-VCLIP's authors published as lists."""
MIN_HALF_CLASSES = 4


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was measured of one model on one set of videos."""

    scored: Scored
    probabilities: Tensor
    """[N, K] float32, from all views."""
    values: dict[str, float]
    """The metrics, in percent."""
    single: Tensor | None = None
    """Probabilities [N, K] from a single view; None = there is no other view, or none is single."""


def describe_test(views: TestConfig, videos: MeasuredSet, sampler: str = "first") -> str:
    """The protocol of a test in words: `clips 2, crops 1, uniform`, or `dense` for 128-frame
    windows, or `random` or `windows` for a method's `test_sampling` of that name; how many videos,
    if not all."""
    sampling = "dense" if views.dense else _sampling(sampler)
    some = "" if videos.complete else f", {videos.share} videos"
    return f"clips {views.clips}, crops {views.crops}, {sampling}{some}"


def describe_zero_shot(views: ZeroShotConfig, videos: MeasuredSet, sampler: str = "first") -> str:
    """The protocol of a zero-shot set in words: `clips 2, crops 1, uniform, all videos (whole)`;
    `random` and `windows` as in `describe_test`."""
    lists = " + ".join(videos.lists)
    sampling = _sampling(sampler)
    return f"clips {views.clips}, crops {views.crops}, {sampling}, {videos.share} videos ({lists})"


def _sampling(sampler: str) -> str:
    return sampler if sampler in ("random", "windows") else "uniform"


def evaluate_test(
    scored: Scored,
    *,
    trained_classes: Sequence[int],
    dense: bool,
    authors: AuthorsMap | None = None,
    authors_batch: int = 0,
) -> Evaluation:
    """Measure the configured views and, with the prefix `single_view_`, a single one.

    The latter is measured if there are several views, except under dense sampling, where clip 0 is
    only the beginning of a video.

    Args:
        scored: all videos.
        trained_classes: ids of the classes trained on; if these are not all classes, the metrics of
            `evaluate_base_to_novel` are added.
        dense: whether clips are dense windows.
        authors: their protocol for mAP, whose value is added as authors_map; None = no other.
        authors_batch: videos in a batch of their tests, where these drop the last, partial batch:
            the metrics of `evaluate_whole_batches` are added; 0 = they drop none.
    """
    probabilities, labels = scored.probabilities(), scored.labels
    values = metrics.evaluate(probabilities, labels)
    if authors is not None:
        values["authors_map"] = authors_map(probabilities, labels, authors)
    if authors_batch:
        values |= evaluate_whole_batches(probabilities, labels, authors_batch)
    single = None
    if len(scored.view_names) > 1 and not dense:
        single = scored.score(scored.single_view(), scored.text)
        values |= with_prefix("single_view_", metrics.evaluate(single, labels))
    if len(trained_classes) < scored.text.num_classes:
        values |= evaluate_base_to_novel(scored, trained_classes)
    return Evaluation(scored=scored, probabilities=probabilities, values=values, single=single)


def authors_map(probabilities: Tensor, labels: Tensor, protocol: AuthorsMap) -> float:
    """mAP in percent as the authors compute it, where that differs from its definition, of
    probabilities [N, K] from the method's `score` and labels [N] or targets [N, K]."""
    for _ in range(protocol.softmaxes - 1):
        probabilities = probabilities.softmax(dim=-1)
    if protocol.running_batch:
        return metrics.running_map(probabilities, labels, protocol.running_batch)
    return metrics.mean_average_precision(probabilities, labels)


def evaluate_whole_batches(probabilities: Tensor, labels: Tensor, batch: int) -> dict[str, float]:
    """Accuracy over the whole batches of a list, as a loader with `drop_last` gives them.

    ActionCLIP's authors test so (test.py of sallymmx/ActionCLIP): the last videos of the list do
    not count. The metrics are authors_num_videos and, if that is not 0, authors_top1 with its
    interval and authors_top5.

    Example: 19,357 videos in batches of 64: authors_num_videos 19,328.
    """
    kept = len(probabilities) // batch * batch
    values: dict[str, float] = {"authors_num_videos": kept}
    if kept:
        found = metrics.evaluate(probabilities[:kept], labels[:kept])
        values |= with_prefix("authors_", _accuracies(found))
    return values


def with_prefix(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    """`values` with `prefix` before each key."""
    return {prefix + key: value for key, value in values.items()}


def _accuracies(values: Mapping[str, float]) -> dict[str, float]:
    """top1, its interval and top5 of `metrics.evaluate`; empty for a multi-label set."""
    return {key: value for key, value in values.items() if key.startswith(("top1", "top5"))}


def half_classes(num_classes: int, split: int) -> Tensor:
    """Class ids of half `split`, int64 [K // 2], in the order in which they are drawn.

    The draw is numpy's legacy generator, as in the published protocol: half i is the first half of
    `numpy.random.RandomState(i).permutation(K)`.
    """
    return torch.from_numpy(
        np.random.RandomState(split).permutation(num_classes)[: num_classes // 2]
    )  # [K] -> [K // 2]


def fixed_half_classes(num_classes: int) -> list[Tensor]:
    """Class ids of each of 10 halves, int64 [K // 2] ascending, one draw after the other.

    Source: Open-VCLIP (arXiv 2302.00624), zs_label_db/*_half_test/process.py of
    wengzejia1/Open-VCLIP: after Python's `random.seed(2023)`, half i is the first half of the i-th
    `random.shuffle` of 0 .. K - 1.
    """
    generator, halves = random.Random(FIXED_SEED), []
    for _ in range(NUM_HALVES):
        classes = list(range(num_classes))
        generator.shuffle(classes)
        halves.append(torch.tensor(sorted(classes[: num_classes // 2])))
    return halves


def evaluate_halves(scored: Scored, *, present_only: bool = False) -> dict[str, list[float]]:
    """Half-class accuracies: only the half's classes compete, on the videos of those classes.

    A score that is normalized over classes is so over those of the half only.

    Args:
        scored: all videos, with one label each.
        present_only: exclude a half's classes without videos, as the authors' code does; if False,
            they compete.

    Returns:
        top1 and top5 of each half that has videos, in percent.
    """
    result: dict[str, list[float]] = {"top1": [], "top5": []}
    for split in range(NUM_HALVES):
        classes = half_classes(scored.text.num_classes, split)
        if present_only:
            classes = classes[torch.isin(classes, scored.labels)]  # [K // 2] -> [M]
        for key, value in _among(scored, classes).items():
            result[key].append(value)
    return result


def half_bounds(
    halves: Sequence[float], labels: Tensor, num_classes: int, num_missing: int
) -> tuple[float, float]:
    """The lowest and highest mean of the halves' accuracies, if videos of the set are missing.

    Of which classes the missing ones are is not known here, so each half may have all of them: with
    c of its n videos right its accuracy is between c / (n + m) and (c + m) / (n + m).

    Args:
        halves: top1 of each half that has videos, of `evaluate_halves`.
        labels: [N] int64, of the videos that are there.
        num_classes: K.
        num_missing: m, above 0.

    Returns:
        both means, in percent.
    """
    lows, highs, values = [], [], iter(halves)
    for split in range(NUM_HALVES):
        num = int(torch.isin(labels, half_classes(num_classes, split)).sum())
        correct = round(next(values) * num / 100) if num else 0
        lows.append(100 * correct / (num + num_missing))
        highs.append(100 * (correct + num_missing) / (num + num_missing))
    return float(np.mean(lows)), float(np.mean(highs))


def _among(scored: Scored, classes: Tensor) -> dict[str, float]:
    """top1 and top5 on the videos of some classes, int64 [M] distinct ids, when only these compete;
    empty without videos."""
    text, labels = scored.text, scored.labels
    position = torch.full((text.num_classes,), -1)  # [K]
    position[classes] = torch.arange(len(classes))
    chosen = position[labels] >= 0  # [N]
    if not chosen.any():
        return {}
    targets = position[labels[chosen]]  # [N] -> [n]
    features, text = scored.features[chosen], text.of_classes(classes.tolist())  # [n, V, ...]
    probabilities = scored.score(features, text)  # [n, M]
    metrics.check(probabilities, targets)
    return {f"top{k}": metrics.percent(metrics.in_top_k(probabilities, targets, k)) for k in (1, 5)}


def evaluate_base_to_novel(scored: Scored, base: Sequence[int]) -> dict[str, float]:
    """Accuracy among the classes trained on, whose ids are `base`, and among all others.

    Source: base-to-novel generalization as in ViFi-CLIP (arXiv 2212.03640).

    The metrics are base_top1, novel_top1 and base_to_novel_hmean, their harmonic mean, in percent.

    Raises:
        MetricsError: a multi-label set, or no videos of the base or of the novel classes.
    """
    if scored.labels.dim() != 1:
        raise metrics.MetricsError("data.classes: base needs one label a video; found several")
    is_base = torch.zeros(scored.text.num_classes, dtype=torch.bool)  # [K]
    is_base[list(base)] = True
    values = []
    for name, members in (("base", is_base), ("novel", ~is_base)):
        classes = members.nonzero()[:, 0]  # [K] -> [M]
        accuracies = _among(scored, classes)
        if not accuracies:
            raise metrics.MetricsError(f"data.classes: base: no video of the {name} classes")
        values.append(accuracies["top1"])
    mean = 2 * values[0] * values[1] / sum(values) if sum(values) else 0.0
    return {"base_top1": values[0], "novel_top1": values[1], "base_to_novel_hmean": mean}


def _listed(
    scored: Scored, probabilities: Tensor, protocols: Sequence[str], listed: Tensor
) -> dict[str, float]:
    """The metrics of `listed` and `fixed_halves`, on the videos at positions int64 [M]."""
    result: dict[str, float] = {}
    if "listed" in protocols:
        found = metrics.evaluate(probabilities[listed], scored.labels[listed])
        result |= with_prefix("listed_", _accuracies(found)) | {"listed_num_videos": len(listed)}
    if "fixed_halves" in protocols and scored.text.num_classes >= MIN_HALF_CLASSES:
        features, labels = scored.features[listed], scored.labels[listed]
        part = replace(scored, features=features, labels=labels)
        halves = [_among(part, classes) for classes in fixed_half_classes(scored.text.num_classes)]
        accuracies = [half["top1"] for half in halves if half]
        result |= _mean_and_std("fixed_half_top1", accuracies) if accuracies else {}
    return result


def evaluate_zero_shot(
    scored: Scored,
    *,
    protocols: Sequence[str],
    splits: Sequence[Tensor] = (),
    listed: Tensor | None = None,
    num_missing: int = 0,
) -> Evaluation:
    """Measure one model by zero-shot protocols.

    The values are, of `full`, full_top1 with its interval and full_top5; of `half`, half_top1_mean
    and half_top1_std and, if videos are missing, half_top1_mean_low and half_top1_mean_high
    (`half_bounds`); of `splits`, splits_top1_mean, splits_top1_std, splits_top5_mean and
    splits_top5_std (all classes compete, on the test videos of one split after the other); of
    `listed`, listed_top1 with its interval, listed_top5 and listed_num_videos; of `fixed_halves`,
    fixed_half_top1_mean and fixed_half_top1_std.

    Args:
        scored: all videos.
        protocols: any of `ZeroShotConfig.protocols`; a half needs two classes, so halves are
            skipped for sets with fewer than 4.
        splits: positions int64 [M] of the test videos of each official split; empty for a set with
            a single split, which gets no `splits` metrics.
        listed: positions int64 [M] of the videos in the training or test set of the split; None =
            not all videos are measured, and there are no metrics of `listed` and `fixed_halves`.
        num_missing: videos of the set that are missing.

    Raises:
        MetricsError: a multi-label set; these protocols need single labels.
    """
    labels, num_classes = scored.labels, scored.text.num_classes
    if labels.dim() != 1:
        raise metrics.MetricsError("zero-shot protocols need one label a video; found several")
    probabilities = scored.probabilities()
    metrics.check(probabilities, labels)
    result = {}
    if "full" in protocols:
        result |= with_prefix("full_", _accuracies(metrics.evaluate(probabilities, labels)))
    if "half" in protocols and num_classes >= MIN_HALF_CLASSES:
        halves = evaluate_halves(scored)["top1"]
        result |= _mean_and_std("half_top1", halves)
        if num_missing:
            low, high = half_bounds(halves, labels, num_classes, num_missing)
            result |= {"half_top1_mean_low": low, "half_top1_mean_high": high}
    if "splits" in protocols and splits:
        for k in (1, 5):
            correct = metrics.in_top_k(probabilities, labels, k)  # [N]
            parts = [metrics.percent(correct[positions]) for positions in splits]
            result |= _mean_and_std(f"splits_top{k}", parts)
    if listed is not None:
        result |= _listed(scored, probabilities, protocols, listed)
    return Evaluation(scored=scored, probabilities=probabilities, values=result)


def _mean_and_std(key: str, values: Sequence[float]) -> dict[str, float]:
    """KEY_mean and KEY_std with ddof 0, as published."""
    return {f"{key}_mean": float(np.mean(values)), f"{key}_std": float(np.std(values))}


def compare_zero_shot(tuned: Evaluation, raw: Evaluation) -> dict[str, float]:
    """The metrics of a fine-tuned model and, with the prefix `raw_`, of the raw CLIP; where all
    classes compete, also gain, the paired difference in percentage points, with its interval; and
    those of retrieval (`compare_retrieval`)."""
    values = tuned.values | with_prefix("raw_", raw.values)
    if "full_top1" in values:
        labels = tuned.scored.labels
        right = [metrics.in_top_k(e.probabilities, labels, 1) for e in (tuned, raw)]  # [N] each
        values |= metrics.gain("gain", *right)
    return values | compare_retrieval(tuned.scored, raw.scored)

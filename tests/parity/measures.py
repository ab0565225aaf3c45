"""Probabilities and accuracies of the methods, from features or scores."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from clipzoo.evaluate import metrics, protocols
from clipzoo.evaluate.scoring import Scored
from clipzoo.methods.parts import similarity
from parity.inputs import Case, class_text, draw_labels, noise


def half_class(
    *,
    feature_seed: int,
    text_seed: int,
    label_seed: int,
    num_videos: int,
    num_classes: int,
    dim: int,
    mix: float,
    unit_parts: bool = False,
) -> Case:
    """Full-class and half-class zero-shot accuracies of noisy copies of the class embeddings.

    Features are noise + mix * text of the label; `unit_parts` L2-normalizes both before they are
    mixed. Features and text are normalized at the end in any case.
    """
    labels = draw_labels(label_seed, num_videos, num_classes)
    text, parts = noise(text_seed, num_classes, dim), noise(feature_seed, num_videos, dim)
    if unit_parts:
        text, parts = functional.normalize(text, dim=-1), functional.normalize(parts, dim=-1)
    features = (parts + mix * text[labels])[:, None]  # [N, V = 1, D]; normalized by the score
    return _zero_shot(similarity.text4vis_probabilities, features, labels, text)


def mean_average_precision(
    *,
    score_seed: int,
    label_seed: int,
    num_videos: int,
    num_classes: int,
    bonus: float,
    softmax: bool,
    multi_label: bool = False,
    positive_share: float | None = None,
) -> Case:
    """mAP (percent) of noise plus `bonus` at each video's classes.

    Multi-label targets [N, K] are coin tosses (0 or 1), or 1 where a uniform draw in [0, 1) is
    below `positive_share`.
    """
    rs, shape = np.random.RandomState(label_seed), (num_videos, num_classes)
    if not multi_label:
        labels = draw_labels(label_seed, num_videos, num_classes)
        targets = functional.one_hot(labels, num_classes)  # [N] -> [N, K]
    elif positive_share is None:
        targets = torch.from_numpy(rs.randint(0, 2, shape))
    else:
        targets = torch.from_numpy(rs.uniform(size=shape) < positive_share).long()
    values = noise(score_seed, num_videos, num_classes) + bonus * targets
    values = values.softmax(dim=-1) if softmax else values
    return {"mAP": metrics.mean_average_precision(values, targets)}


def text4vis_view_fusion(
    *, seed: int, num_videos: int, num_views: int, dim: int, num_classes: int
) -> Case:
    """Probabilities of Text4Vis from several views of each video."""
    features = noise(seed, num_videos, num_views, dim)
    text = noise(seed + 1, num_classes, dim)
    return {"probabilities": similarity.text4vis_probabilities(features, text)}


def bike_view_fusion(*, seed: int, num_videos: int, num_views: int, num_classes: int) -> Case:
    """Probabilities of BIKE from the similarities of several views of each video."""
    similarities = noise(seed, num_videos * num_views, num_classes).tanh()  # [N V, K]
    similarities = similarities.unflatten(0, (num_videos, num_views))  # [N V, K] -> [N, V, K]
    scores = similarities.softmax(dim=-1).mean(dim=1)  # [N, V, K] -> [N, K], as `Bike.score` does
    # The authors' second softmax, which keeps the order of classes and flattens the values.
    return {"probabilities": scores.softmax(dim=-1)}


def bike_zero_shot_frames(
    *,
    text_seed: int,
    label_seed: int,
    feature_seed: int,
    num_videos: int,
    num_frames: int,
    dim: int,
    num_classes: int,
) -> Case:
    """Zero-shot accuracies of BIKE's frame path."""
    balanced = np.arange(num_videos) % num_classes
    labels = torch.from_numpy(np.random.RandomState(label_seed).permutation(balanced))
    text = functional.normalize(noise(text_seed, num_classes, dim), dim=-1)
    offsets = 0.25 * text[labels][:, None]  # [N, D] -> [N, 1, D]
    features = 0.3 * noise(feature_seed, num_videos, num_frames, dim) + offsets  # [N, T, D]
    return _zero_shot(similarity.bike_frame_probabilities, features, labels, text)


def actionclip_template_fusion(
    *,
    video_seed: int,
    text_seed: int,
    num_videos: int,
    num_templates: int,
    num_classes: int,
    dim: int,
) -> Case:
    """Probabilities of ActionCLIP from several templates."""
    text = noise(text_seed, num_templates * num_classes, dim)  # [P K, D]
    text = text.unflatten(0, (num_templates, -1))  # [P K, D] -> [P, K, D]
    video = noise(video_seed, num_videos, dim)
    return {"probabilities": similarity.actionclip_probabilities(video, text)}


def bike_attribute_fusion(
    *, video_seed: int, attribute_seed: int, label_seed: int, num_videos: int, num_classes: int
) -> Case:
    """Accuracies of the fusion of BIKE's two branches."""
    video = noise(video_seed, num_videos, num_classes).softmax(dim=-1)
    attributes = noise(attribute_seed, num_videos, num_classes).softmax(dim=-1)
    fused = similarity.fuse_attributes(video, attributes)
    labels = draw_labels(label_seed, num_videos, num_classes)
    return {f"top{k}": metrics.percent(metrics.in_top_k(fused, labels, k)) for k in (1, 5)}


def _zero_shot(
    score: Callable[[Tensor, Tensor], Tensor], features: Tensor, labels: Tensor, text: Tensor
) -> Case:
    """Accuracies over all classes and over ten halves, of text [K, D]."""
    result: Case = {}
    full = score(features, text)
    scored = Scored(
        score=lambda f, t: score(f, t.class_embeddings[0]),
        features=features,
        view_names=["clip0-center"],
        labels=labels,
        text=class_text(text[None]),
    )
    halves = protocols.evaluate_halves(scored, present_only=True)
    for k in (1, 5):
        result[f"full_top{k}"] = metrics.percent(metrics.in_top_k(full, labels, k))
        half = halves[f"top{k}"]
        result |= {f"half_top{k}": half, f"half_top{k}_mean": np.mean(half)}
        result[f"half_top{k}_std"] = np.std(half)
    return result

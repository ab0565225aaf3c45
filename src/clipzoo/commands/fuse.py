"""`python -m clipzoo fuse VIDEO ATTRIBUTES [--weight W] [--labels FILE]`: two branches' scores."""

import argparse
from dataclasses import replace
from pathlib import Path

from clipzoo.files import ListError

SEED = 0
"""Of the bootstrap of the differences."""


def describe(video: Path, attributes: Path, weight: float, labels: Path | None) -> str:
    """The accuracies of both files and of their weighted sum, as a text.

    Args:
        video, attributes: prediction files of this project (.safetensors), or PyTorch files with
            one tensor [N, K] of single-softmax probabilities, as BIKE's authors save them.
        weight: of the first.
        labels: a PyTorch file with one int64 tensor [N]; needed if both files have none.

    Raises:
        FusionError: the files do not belong together, or hold no probabilities.
        WeightsError, ListError: a file cannot be read.
    """
    from clipzoo.evaluate import fusion, metrics  # slow: they import torch
    from clipzoo.models.archives import read_tensor

    first, second = fusion.read_scores(video), fusion.read_scores(attributes)
    if labels is not None:
        tensor = read_tensor(labels)
        if tensor.dim() != 1 or tensor.is_floating_point():
            raise ListError(
                f"{labels}: found {tensor.dtype} {list(tensor.shape)}; allowed: class ids, int64 "
                "[videos]"
            )
        given = fusion.Scores(
            name=str(labels),
            probabilities=first.probabilities,
            labels=tensor.long(),
            video_ids=None,
        )
        metrics.check(first.probabilities, tensor.long())
        fusion.check_same_videos(first, given)
        second = replace(second, labels=given.labels if second.labels is None else second.labels)
        fusion.check_same_videos(second, given)
    truth = fusion.same_labels(first, second)
    values = fusion.compare(first, second, truth, weight, SEED)
    curve = fusion.weight_curve(first, second, truth)
    best = fusion.best_weight(curve, weight)
    lines = [f"{len(truth)} videos, {first.probabilities.shape[1]} classes"]
    titles = {
        "fused": f"fused, {weight:g} of the first",
        "video": str(video),
        "attributes": str(attributes),
    }
    width = max(map(len, titles.values()))
    for name, title in titles.items():
        low, high = values[f"{name}_ci95_low"], values[f"{name}_ci95_high"]
        lines.append(
            f"{title:{width}}  top-1 {values[f'{name}_top1']:.4f} ({low:.2f} to {high:.2f})  "
            f"top-5 {values[f'{name}_top5']:.4f}"
        )
    for name in ("video", "attributes"):
        key = f"fused_gain_over_{name}"
        low, high = values[f"{key}_ci95_low"], values[f"{key}_ci95_high"]
        lines.append(f"gain over {titles[name]}: {values[key]:+.2f} ({low:+.2f} to {high:+.2f})")
    lines.append(
        f"best weight {best:g}: top-1 {dict(curve)[best]:.4f}, chosen on these very labels: not a "
        "result"
    )
    return "\n".join(lines) + "\n"


def fuse_command(arguments: argparse.Namespace) -> None:
    """`python -m clipzoo fuse VIDEO ATTRIBUTES [--weight W] [--labels FILE]`."""
    if not 0 <= arguments.weight <= 1:
        raise ListError(f"--weight: found {arguments.weight}; allowed: 0 to 1")
    text = describe(arguments.video, arguments.attributes, arguments.weight, arguments.labels)
    print(text, end="")

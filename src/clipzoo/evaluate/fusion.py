"""Fusion of two branches' probabilities: weight * video + (1 - weight) * attributes.

Both are single-softmax probabilities of the same videos in the same order. The best weight is
chosen on the training videos of both branches, never on those that are measured. Source: BIKE,
arXiv 2301.00182 (weights 0.7 and 0.3; how they were chosen is not published).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import torch
from matplotlib.figure import Figure
from pyarrow import parquet
from torch import Tensor

from clipzoo.evaluate import metrics
from clipzoo.evaluate.plots import save_figure
from clipzoo.files import ListError, file_sha256, raise_all, write_csv
from clipzoo.methods import MODEL_FILE
from clipzoo.methods.parts.similarity import fuse_attributes
from clipzoo.models.archives import read_tensor
from clipzoo.tensors import WeightsError, read_safetensors

WEIGHTS = [step / 100 for step in range(101)]
"""Of the video branch, on the curve."""
SUM_TOLERANCE = 0.01
"""Of a video's probabilities, which sum to 1: the authors' files may be float16."""
KEPT_DIR = Path("predictions/zoo")
"""Predictions of recipes that others are fused with."""


class FusionError(ValueError):
    """Two branches do not belong together; the message lists the differences."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The probabilities of one branch on one set of videos."""

    name: str
    """Of the branch and its file, for messages."""
    probabilities: Tensor
    """[N, K] float32."""
    labels: Tensor | None
    """[N] int64; None = the file has none."""
    video_ids: list[str] | None
    """Of the rows; None = the file has none."""
    about: dict[str, str] = field(default_factory=dict)
    """The metadata of the file."""


def read_scores(path: str | Path) -> Scores:
    """The probabilities of a prediction file of this project, or of a file with a bare tensor.

    Args:
        path: predictions/<set>.safetensors, with the ids in the .parquet of that name, or a
            PyTorch file that holds one tensor [N, K], as the authors save scores.

    Raises:
        WeightsError, ListError: the file cannot be read, or is neither.
        FusionError: its rows are no probabilities.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        scores = Scores(
            name=str(path), probabilities=read_tensor(path), labels=None, video_ids=None
        )
        return _checked(scores)
    tensors, about = read_safetensors(path)
    missing = [name for name in ("probabilities", "labels") if name not in tensors]
    if missing:
        raise WeightsError(
            f"{path}: found the tensors {sorted(tensors)}; missing {', '.join(missing)}: not a "
            "prediction file of `test`"
        )
    table = path.with_suffix(".parquet")
    try:
        ids: list[str] = parquet.read_table(table, columns=["video_id"])["video_id"].to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise ListError(
            f"{table}: cannot be read ({error}); it has the video ids of {path}"
        ) from error
    return _checked(
        Scores(
            name=str(path),
            probabilities=tensors["probabilities"],
            labels=tensors["labels"],
            video_ids=ids,
            about=about,
        )
    )


def read_training_scores(first: str | Path, second: str | Path) -> tuple[Scores, Scores] | None:
    """The probabilities of the training videos in two prediction files of `test`; None unless
    `score_training` was true in both runs."""
    pair = []
    for path in (first, second):
        tensors, metadata = read_safetensors(path)
        if "train_probabilities" not in tensors:
            return None
        scores = Scores(
            name=f"{path} (training videos)",
            probabilities=tensors["train_probabilities"],
            labels=tensors["train_labels"],
            video_ids=json.loads(metadata["train_video_ids"]),
        )
        pair.append(_checked(scores))
    return pair[0], pair[1]


def _checked(scores: Scores) -> Scores:
    """The scores in float32; FusionError unless they are probabilities, one label a video."""
    found = scores.probabilities
    if found.dim() != 2 or not found.is_floating_point() or 0 in found.shape:
        raise FusionError(
            f"{scores.name}: found {found.dtype} {list(found.shape)}; allowed: probabilities "
            "[videos, classes] of floating point"
        )
    probabilities = found.float()
    sums = probabilities.sum(dim=1)  # [N]
    low = float(probabilities.min())
    wrong = ~((sums - 1).abs() <= SUM_TOLERANCE)  # also NaN
    if bool(wrong.any()) or low < 0:
        raise FusionError(
            f"{scores.name}: {int(wrong.sum())} of {len(sums)} rows do not sum to 1 (the first "
            f"sums to {float(sums[0]):.4g}, the lowest value is {low:.4g}); allowed: probabilities "
            "after one softmax"
        )
    if scores.labels is not None and scores.labels.dim() != 1:
        raise FusionError(f"{scores.name}: several labels a video; allowed: one")
    return replace(scores, probabilities=probabilities)


def check_model(scores: Scores) -> None:
    """Raise FusionError unless a run's predictions are those of its model file."""
    if scores.about.get("model_sha256") != file_sha256(MODEL_FILE):
        raise FusionError(
            f"{scores.name}: it was computed by another model than {MODEL_FILE}; run the stage "
            "`test` again, as `dvc repro` does"
        )


def check_same_videos(first: Scores, second: Scores) -> None:
    """Raise FusionError unless two branches have the same videos, in one order, and classes.

    Without ids only the shapes, and the labels of both, can be compared.
    """
    pair = f"{first.name} and {second.name}"
    if first.video_ids is not None and second.video_ids is not None:
        ids = (first.video_ids, second.video_ids)
        only = [sorted(set(ids[i]) - set(ids[1 - i])) for i in (0, 1)]
        lines = [f"only in {first.name}: {key}" for key in only[0]]
        lines += [f"only in {second.name}: {key}" for key in only[1]]
        if not lines:
            lines = [
                f"row {row}: {a} and {b}"
                for row, (a, b) in enumerate(zip(*ids, strict=False))
                if a != b
            ]
        if not lines and len(ids[0]) != len(ids[1]):
            lines = [f"{len(ids[0])} and {len(ids[1])} rows"]
        raise_all(f"{pair} are not of the same videos in the same order", lines, FusionError)
    shapes = [list(part.probabilities.shape) for part in (first, second)]
    if shapes[0] != shapes[1]:
        raise FusionError(f"{pair} have the shapes {shapes[0]} and {shapes[1]}; allowed: the same")
    if first.labels is not None and second.labels is not None:
        differ = (first.labels != second.labels).nonzero()[:, 0].tolist()
        lines = [
            f"row {row}: labels {int(first.labels[row])} and {int(second.labels[row])}"
            for row in differ
        ]
        raise_all(f"{pair} have different labels", lines, FusionError)


def same_labels(first: Scores, second: Scores) -> Tensor:
    """The labels of two branches, [N] int64, after `check_same_videos`.

    Raises:
        FusionError: neither has labels.
    """
    check_same_videos(first, second)
    labels = first.labels if first.labels is not None else second.labels
    if labels is None:
        raise FusionError(
            f"{first.name} and {second.name} have no labels; give a file of them (--labels)"
        )
    return labels.to(torch.int64)


Curve = list[tuple[float, float]]
"""(weight of the video branch, top-1 in percent)."""


def weight_curve(video: Scores, attributes: Scores, labels: Tensor) -> Curve:
    """Top-1 of every weight in `WEIGHTS`; labels are [N] int64."""
    return [(weight, percent_in(_fuse(video, attributes, weight), labels, 1)) for weight in WEIGHTS]


def _fuse(video: Scores, attributes: Scores, weight: float) -> Tensor:
    return fuse_attributes(video.probabilities, attributes.probabilities, weight)  # [N, K]


def percent_in(probabilities: Tensor, labels: Tensor, k: int) -> float:
    """Percentage of videos whose label is among the k likeliest classes."""
    return metrics.percent(metrics.in_top_k(probabilities, labels, k))


def best_weight(curve: Curve, published: float) -> float:
    """The weight with the highest top-1; among equals the one closest to the published weight."""
    highest = max(top1 for _, top1 in curve)
    best = [weight for weight, top1 in curve if top1 == highest]
    return min(best, key=lambda weight: (abs(weight - published), weight))


def compare(
    video: Scores, attributes: Scores, labels: Tensor, weight: float, seed: int
) -> dict[str, float]:
    """Metrics of the fusion with one weight, of both parts, and of their differences.

    Args:
        video, attributes: of the same videos.
        labels: [N] int64.
        weight: of the video branch.
        seed: of the bootstrap.

    Returns:
        fused_weight; fused_, video_ and attributes_ with top1, ci95_low, ci95_high and top5, in
        percent; fused_gain_over_video and fused_gain_over_attributes in percentage points, with
        _ci95_low and _ci95_high of the paired difference.
    """
    parts = {"video": video.probabilities, "attributes": attributes.probabilities}
    values = {"fused_weight": weight}
    correct: dict[str, Tensor] = {}
    for name, probabilities in {"fused": _fuse(video, attributes, weight), **parts}.items():
        metrics.check(probabilities, labels)
        correct[name] = metrics.in_top_k(probabilities, labels, 1)
        values |= _accuracies(name, probabilities, labels)
    for name in parts:
        key = f"fused_gain_over_{name}"
        low, high = metrics.paired_interval(correct["fused"], correct[name], seed)
        values[key] = values["fused_top1"] - values[f"{name}_top1"]
        values |= {f"{key}_ci95_low": low, f"{key}_ci95_high": high}
    return values


def measure_best(
    video: Scores, attributes: Scores, labels: Tensor, weight: float
) -> dict[str, float]:
    """Metrics of the weight that is best on the training videos: fused_best_weight, and in percent
    fused_best_top1, fused_best_ci95_low, fused_best_ci95_high and fused_best_top5.

    Args:
        video, attributes: of the videos that are measured.
        labels: of these, [N] int64.
        weight: of the video branch.
    """
    fused = _fuse(video, attributes, weight)
    return {"fused_best_weight": weight, **_accuracies("fused_best", fused, labels)}


def _accuracies(name: str, probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    low, high = metrics.wilson_interval(metrics.in_top_k(probabilities, labels, 1))
    return {
        f"{name}_top1": percent_in(probabilities, labels, 1),
        f"{name}_ci95_low": low,
        f"{name}_ci95_high": high,
        f"{name}_top5": percent_in(probabilities, labels, 5),
    }


def describe(video: Scores, attributes: Scores, recipe: str) -> dict[str, int | str]:
    """The metrics that identify the set of videos (`predictions.describe_set`), the branches and
    their files."""
    about = attributes.about
    described: dict[str, int | str] = {
        "dataset": about["dataset"],
        "protocol": f"{video.about['protocol']}; fused with attributes",
        "num_videos": int(about["num_videos"]),
        "num_expected": int(about["num_expected"]),
        "videos_sha256": about["videos_sha256"],
        "missing_sha256": about.get("missing_sha256", ""),
        "video_recipe": recipe,
        "video_model_sha256": video.about["model_sha256"],
    }
    if "expected_sha256" in about:
        described["expected_sha256"] = about["expected_sha256"]
    return described


def add_video_branch(provenance: Mapping[str, str], video_metrics: Path) -> dict[str, str]:
    """The provenance of a fusion with that of its video branch, by the metrics kept with it.

    Returns:
        `environment`, of both; and `video_source`, if a user gave a file for the branch.
    """
    kept = json.loads(video_metrics.read_text(encoding="utf-8"))
    found = [*kept["environment"].split("; "), *provenance["environment"].split("; ")]
    source = {"video_source": kept["source"]} if "source" in kept else {}
    return {**provenance, "environment": "; ".join(dict.fromkeys(found)), **source}


def plot_weights(
    directory: str | Path, curves: Mapping[str, Curve], marked: Mapping[str, float]
) -> None:
    """Write weights.csv (weight, and a column for each curve) and weights.png.

    Args:
        directory: created if missing.
        curves: by name; all have the same weights.
        marked: weights by name, drawn as vertical lines.
    """
    directory = Path(directory)
    rows = zip(WEIGHTS, *([top1 for _, top1 in c] for c in curves.values()), strict=True)
    write_csv(("weight", *(f"{name}_top1" for name in curves)), rows, directory / "weights.csv")
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.plot(*zip(*curve, strict=True), label=name)
    for (name, weight), style in zip(marked.items(), (":", "--"), strict=False):
        axes.axvline(weight, color="gray", linestyle=style, label=f"{name}: {weight:g}")
    axes.set_xlabel("weight of the video branch (0 = attributes alone)")
    axes.set_ylabel("top-1 (%)")
    axes.legend()
    save_figure(figure, directory / "weights.png")

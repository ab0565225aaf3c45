"""Fusion of two branches' probabilities: weight * video + (1 - weight) * attributes.

Both are single-softmax probabilities of the same videos in the same order. The best weight is
chosen on the training videos of both branches, never on those that are measured. Source: BIKE,
arXiv 2301.00182 (weights 0.7 and 0.3; how they were chosen is not published).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from clipzoo.evaluate import metrics
from clipzoo.evaluate.plots import save_figure
from clipzoo.evaluate.prediction_files import AGAIN, About, check_videos, read_about, read_videos
from clipzoo.files import file_sha256, raise_all, read_json, require_regular, write_csv
from clipzoo.methods.parts.similarity import fuse_attributes
from clipzoo.models.archives import read_tensor
from clipzoo.paths import KEPT_PREDICTIONS_DIR, MODEL_FILE, PICTURES
from clipzoo.recorded import MadeWith, VideoSet
from clipzoo.sections import build
from clipzoo.tensors import WeightsError, read_safetensors

WEIGHTS = [step / 100 for step in range(101)]
"""The weights of the video branch on the curve."""
SUM_TOLERANCE = 0.01
"""How far the sum of a video's probabilities may be from 1: the authors' files may be float16."""


class FusionError(ValueError):
    """Two branches do not belong together; the message lists the differences."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The probabilities of one branch on one set of videos."""

    name: str
    """Names the branch and its file in messages."""
    probabilities: Tensor
    """[N, K] float32."""
    labels: Tensor | None = None
    """[N] int64; None = the file has none."""
    video_ids: list[str] | None = None
    """The ids of the rows; None = the file has none."""
    about: About | None = None
    """The metadata of the file; None = it has none."""
    training: "Scores | None" = None
    """The scores of the training videos; None unless `score_training` was true in the run."""


class Kept(MadeWith):
    """test.json beside the kept predictions of a recipe: the metrics of its run, or what a user's
    file is."""

    source: str = ""
    """The file that a user gave; '' = the predictions are those of a run."""
    videos_sha256: str = ""


def read_scores(path: str | Path, recipe: str = "") -> Scores:
    """The probabilities of a prediction file of this project, or of a file with a bare tensor.

    Args:
        path: predictions/<set>.safetensors, with the ids in the .parquet of that name, or a
            PyTorch file that holds one tensor [N, K], as the authors save scores.
        recipe: whose run must have written the file; '' = any.

    Raises:
        WeightsError, ListError, ConfigError: the file cannot be read, or is neither.
        FusionError: its rows are not probabilities, or not those of the parquet file or of the
            recipe.
    """
    path = Path(path)
    require_regular(path, WeightsError)
    if path.suffix != ".safetensors":
        return _checked(Scores(name=str(path), probabilities=read_tensor(path)))
    tensors, metadata = read_safetensors(path)
    about, table = read_about(metadata, path), path.with_suffix(".parquet")
    if recipe and about.recipe != recipe:
        writer = f"the run {about.recipe}" if about.recipe else "an older version"
        raise FusionError(f"{path}: written by {writer}; allowed: predictions of {recipe}; {AGAIN}")
    videos = read_videos(table)
    check_videos(videos, table, metadata)
    scores = _scores(path, tensors, "", [video.video_id for video in videos])
    assert scores.labels is not None
    if scores.labels.tolist() != [video.label for video in videos]:
        raise FusionError(f"{table}: it has other labels than {path}; {AGAIN}")
    ids = about.train_video_ids
    training = None if ids is None else _scores(path, tensors, "train_", ids)
    return replace(scores, about=about, training=training)


def _scores(path: Path, tensors: Mapping[str, Tensor], prefix: str, ids: list[str]) -> Scores:
    """The tensors `<prefix>probabilities` and `<prefix>labels` of a file, checked."""
    missing = [n for n in ("probabilities", "labels") if f"{prefix}{n}" not in tensors]
    if missing:
        raise WeightsError(
            f"{path}: found the tensors {sorted(tensors)}; missing {prefix}{missing[0]}: not a "
            f"prediction file of `test`; {AGAIN}"
        )
    scores = Scores(
        name=f"{path} (training videos)" if prefix else str(path),
        probabilities=tensors[f"{prefix}probabilities"],
        labels=tensors[f"{prefix}labels"],
        video_ids=ids,
    )
    return _checked(scores)


def read_kept(recipe: str) -> tuple[Scores, Kept]:
    """The predictions that are kept of a recipe, or that a user gave for them, and `Kept`.

    Raises:
        WeightsError, ListError, ConfigError, FusionError: as `read_scores`; those that a run left
            must be of that recipe, and of one run.
    """
    path = KEPT_PREDICTIONS_DIR / recipe / "test.json"
    again = f"run `clipzoo zoo {recipe} --again`"
    kept = build(Kept, read_json(path), path, again=again)
    scores = read_scores(path.with_suffix(".safetensors"), "" if kept.source else recipe)
    assert scores.about is not None
    for key in () if kept.source else ("videos_sha256", "model_sha256"):
        found, expected = getattr(kept, key), getattr(scores.about, key)
        if found and found != expected:
            raise FusionError(
                f"{path}: {key}: found {found}; {scores.name} has {expected}; {again}"
            )
    return scores, kept


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
    rows, labels, ids = len(found), scores.labels, scores.video_ids
    if labels is not None and (labels.dtype != torch.int64 or len(labels) != rows):
        raise FusionError(
            f"{scores.name}: labels: found {labels.dtype} {list(labels.shape)}; allowed: int64, "
            f"one for each of {rows} rows"
        )
    if ids is not None and len(ids) != rows:
        raise FusionError(f"{scores.name}: found {rows} rows of probabilities, {len(ids)} ids")
    return replace(scores, probabilities=probabilities)


def check_model(scores: Scores) -> None:
    """Raise FusionError unless a run's predictions are those of its model file."""
    if scores.about is None or scores.about.model_sha256 != file_sha256(MODEL_FILE):
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
    """The labels of two branches, [N] int64, after `check_same_videos`; FusionError if there are
    none."""
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


def compare(video: Scores, attributes: Scores, labels: Tensor, weight: float) -> dict[str, float]:
    """Metrics of the fusion with one weight of the video branch, of both parts, and of their
    differences.

    They are fused_weight; fused_, video_ and attributes_ with top1, its interval and top5, in
    percent; fused_gain_over_video and fused_gain_over_attributes in percentage points, with their
    intervals. The labels are [N] int64.
    """
    parts = {"video": video.probabilities, "attributes": attributes.probabilities}
    values = {"fused_weight": weight}
    correct: dict[str, Tensor] = {}
    for name, probabilities in {"fused": _fuse(video, attributes, weight), **parts}.items():
        metrics.check(probabilities, labels)
        correct[name] = metrics.in_top_k(probabilities, labels, 1)
        values |= _accuracies(name, probabilities, labels)
    for name in parts:
        values |= metrics.gain(f"fused_gain_over_{name}", correct["fused"], correct[name])
    return values


def measure_best(
    video: Scores, attributes: Scores, labels: Tensor, weight: float
) -> dict[str, float]:
    """Metrics, on the videos that are measured, of the weight that is best on the training videos:
    fused_best_weight, and in percent fused_best_top1 with its interval and fused_best_top5."""
    fused = _fuse(video, attributes, weight)
    return {"fused_best_weight": weight, **_accuracies("fused_best", fused, labels)}


def _accuracies(name: str, probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    return {
        **metrics.accuracy(f"{name}_top1", metrics.in_top_k(probabilities, labels, 1)),
        f"{name}_top5": percent_in(probabilities, labels, 5),
    }


def describe(video: Scores, attributes: Scores, recipe: str) -> dict[str, int | str]:
    """The metrics that identify the set of videos (`predictions.describe_set`), the branches and
    their files."""
    about = attributes.about
    assert about is not None, "both are predictions of this project"
    assert video.about is not None
    return {
        **about.model_dump(include=set(VideoSet.keys()), exclude_unset=True),
        "protocol": f"{video.about.protocol}; fused with attributes",
        "video_recipe": recipe,
        "video_model_sha256": video.about.model_sha256,
    }


def add_video_branch(provenance: Mapping[str, str], kept: Kept) -> dict[str, str]:
    """The provenance of a fusion with that of its video branch: the `environment` of both, and
    `video_source` if a user gave a file for the branch."""
    found = [*kept.environment.split("; "), *provenance["environment"].split("; ")]
    source = {"video_source": kept.source} if kept.source else {}
    return {**provenance, "environment": "; ".join(dict.fromkeys(filter(None, found))), **source}


def plot_weights(
    directory: str | Path, curves: Mapping[str, Curve], marked: Mapping[str, float]
) -> None:
    """Write weights.csv (weight, and a column for each curve) and pictures/weights.png, where
    vertical lines are the `marked` weights."""
    directory = Path(directory)
    rows = zip(WEIGHTS, *([top1 for _, top1 in c] for c in curves.values()), strict=True)
    write_csv(("weight", *(f"{name}_top1" for name in curves)), rows, directory / "weights.csv")
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.plot(*zip(*curve, strict=True), label=name)
    # Weights that are equal have one line with both names, where two would lie on each other.
    names = {weight: [n for n, w in marked.items() if w == weight] for weight in marked.values()}
    for (weight, equal), style in zip(names.items(), (":", "--"), strict=False):
        label = f"{' and '.join(equal)}: {weight:g}"
        axes.axvline(weight, color="gray", linestyle=style, label=label)
    axes.set_xlabel("weight of the video branch (0 = attributes alone)")
    axes.set_ylabel("top-1 (%)")
    figure.legend(loc="outside lower center", ncols=2)
    save_figure(figure, directory / PICTURES / "weights.png")

"""Plots of a test: confusion matrix and accuracy of each class, as csv for `dvc plots` and as png.

With more classes than fit in a readable picture, only the least accurate ones are drawn.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from clipzoo.evaluate import metrics
from clipzoo.files import replacing, write_csv

MAX_CLASSES = 40
OTHERS = "(other classes)"


def plot_test(
    directory: str | Path, probabilities: Tensor, labels: Tensor, class_names: Sequence[str]
) -> None:
    """Write confusion.csv, confusion.png, per_class.csv and per_class.png into `directory`.

    Multi-label sets have no confusions: they get the number of videos of each class alone.

    Args:
        directory: made where it is absent.
        probabilities: [N, K] float.
        labels: [N] int64, or targets [N, K] of 0 and 1.
        class_names: K names.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    if labels.dim() == 2:
        rows = zip(class_names, labels.sum(dim=0).tolist(), strict=True)
        write_csv(("class", "videos"), rows, directory / "per_class.csv")
        return
    correct = metrics.in_top_k(probabilities, labels, 1)
    hits, videos = metrics.per_class_counts(correct, labels, len(class_names))
    accuracy = 100 * hits.double() / videos  # NaN where there are no videos
    order = [int(k) for k in torch.argsort(accuracy, stable=True) if videos[k] > 0]
    rows = [(class_names[k], float(accuracy[k]), int(videos[k])) for k in order]
    write_csv(("class", "accuracy", "videos"), rows, directory / "per_class.csv")
    _draw_per_class(directory / "per_class.png", rows)

    names = {k: class_names[k] for k in sorted(order[:MAX_CLASSES])}
    pairs = zip(labels.tolist(), first_of_highest(probabilities).tolist(), strict=True)
    named = [(names[a], names.get(p, OTHERS)) for a, p in pairs if a in names]
    write_csv(("actual", "predicted"), named, directory / "confusion.csv")
    _draw_confusion(directory / "confusion.png", named, list(names.values()), len(order))


def plot_interpolation(path: Path, curves: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """Draw top-1 against alpha with its intervals.

    Args:
        path: of the png.
        curves: rows of (alpha, top1, ci95_low, ci95_high), in percent, of each set of videos.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, rows in curves.items():
        alpha, top1, low, high = zip(*rows, strict=True)
        axes.plot(alpha, top1, marker="o", label=name)
        axes.fill_between(alpha, low, high, alpha=0.2)
    axes.set_xlabel("share of the fine-tuned vision tower (0 = raw CLIP's)")
    axes.set_ylabel("top-1 (%), with 95% intervals")
    axes.legend()
    _save(figure, path)


def first_of_highest(probabilities: Tensor) -> Tensor:
    """The most likely class [N] int64 of probabilities [N, K]; among equals the lowest id."""
    highest = probabilities.max(dim=1, keepdim=True).values
    return (probabilities == highest).int().argmax(dim=1)


def _draw_per_class(path: Path, rows: Sequence[tuple[str, float, int]]) -> None:
    shown = rows[:MAX_CLASSES]
    figure = Figure(figsize=(8, 1.2 + 0.22 * len(shown)), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(shown)), [row[1] for row in shown], color="tab:blue")
    axes.set_yticks(range(len(shown)), [f"{_short(row[0])} ({row[2]})" for row in shown])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("top-1 accuracy (%); number of videos in brackets")
    axes.set_title(_title("Accuracy of each class", len(shown), len(rows)))
    _save(figure, path)


def _draw_confusion(
    path: Path, pairs: Sequence[tuple[str, str]], names: Sequence[str], num_classes: int
) -> None:
    columns = [*names, OTHERS] if OTHERS in (p for _, p in pairs) else [*names]
    rows, places = ({n: i for i, n in enumerate(x)} for x in (names, columns))
    counts = np.zeros((len(names), len(columns)))
    for actual, predicted in pairs:
        counts[rows[actual], places[predicted]] += 1
    shares = 100 * counts / counts.sum(axis=1, keepdims=True)
    side = 3 + 0.24 * len(columns)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, vmin=0, vmax=100, cmap="Blues")
    axes.set_xticks(range(len(columns)), [_short(n) for n in columns], rotation=90)
    axes.set_yticks(range(len(names)), [_short(n) for n in names])
    axes.set_xlabel("predicted")
    axes.set_ylabel("actual")
    axes.set_title(_title("Confusion matrix", len(names), num_classes))
    figure.colorbar(image, label="% of the actual class", shrink=0.7)
    _save(figure, path)


def _title(what: str, shown: int, total: int) -> str:
    return what if shown == total else f"{what}: the {shown} least accurate of {total}"


def _short(name: str) -> str:
    short = name if len(name) <= 32 else name[:31] + "…"
    return short.replace("$", r"\$")  # a pair of $ would be read as a formula


def _save(figure: Figure, path: Path) -> None:
    """As png without the software's version, so that equal numbers give equal bytes."""
    with replacing(path) as part, warnings.catch_warnings():
        # Names in a script that the font lacks are drawn as boxes; the csv has them right.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(part, format="png", dpi=100, metadata={"Software": None})

"""Plots of a test: confusion matrix and accuracy of each class, as csv for `dvc plots` and as png,
and a picture of some videos with their true and predicted classes.

A picture shows the least accurate classes if there are more than it has room for.
"""

import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from clipzoo.clips.inputs import Views
from clipzoo.evaluate import metrics
from clipzoo.files import replacing, write_csv
from clipzoo.paths import PICTURES

MAX_CLASSES = 40
"""Classes of confusion.csv, and bars of per_class.png."""
MAX_CONFUSED = 60
"""Classes of confusion.png."""
MAX_EXAMPLES = 6
"""Videos in the picture of examples: half right and half wrong, if there are enough."""
MAX_FRAMES = 8
"""Frames of each video, spread evenly over the clip if it has more."""
MAX_LETTERS = 60
"""Letters of a class name; a longer one is cut in its middle, as names differ mostly at an end."""
FRAME_INCHES = 0.72
GAP_INCHES = 0.1
GAP_PX = 2
OTHERS = "(other classes)"


def plot_test(
    directory: str | Path, probabilities: Tensor, labels: Tensor, class_names: Sequence[str]
) -> None:
    """Write confusion.csv and per_class.csv into `directory`, and a png of each into its folder
    `PICTURES`.

    For multi-label sets, which have no confusions, only the number of videos of each class is
    written.

    Args:
        directory: created if missing.
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
    _draw_per_class(directory / PICTURES / "per_class.png", rows)

    predicted = metrics.first_of_highest(probabilities).tolist()
    pairs = list(zip(labels.tolist(), predicted, strict=True))
    names = {k: class_names[k] for k in order[:MAX_CLASSES]}
    named = [(names[a], names.get(p, OTHERS)) for a, p in pairs if a in names]
    write_csv(("actual", "predicted"), named, directory / "confusion.csv")
    names = {k: class_names[k] for k in sorted(order[:MAX_CONFUSED])}
    _draw_confusion(directory / PICTURES / "confusion.png", pairs, names, len(order))


def plot_interpolation(path: Path, curves: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """Draw top-1 against alpha with its intervals: each set of videos has rows of alpha, top-1 and
    the interval's ends, in percent."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, rows in curves.items():
        alpha, top1, low, high = zip(*rows, strict=True)
        axes.plot(alpha, top1, marker="o", label=name)
        axes.fill_between(alpha, low, high, alpha=0.2)
    axes.set_xlabel("share of the fine-tuned vision tower (0 = raw CLIP's)")
    axes.set_ylabel("top-1 (%), with 95% intervals")
    axes.legend()
    save_figure(figure, path)


def draw_examples(
    clips: Views,
    predictions: Mapping[str, Tensor],
    class_names: Sequence[str],
    directory: str | Path,
) -> None:
    """Draw some videos with their true and predicted classes as pictures/examples.png, and with
    the weights of their frames as pictures/saliency.png.

    Multi-label sets have no single true class, and sentences no frames: nothing is drawn for them.

    Args:
        clips: the N videos that were tested.
        predictions: probabilities [N, K], labels [N] int64 or targets [N, K], and perhaps saliency
            [N, K, T] of the first clip's center crop.
        class_names, directory: as in `plot_test`.

    Raises:
        StoreError: a frame cannot be read; names the video.
    """
    probabilities, labels = predictions["probabilities"], predictions["labels"]
    if labels.dim() != 1 or not clips.pictures([0]):
        return
    figure = examples_figure(clips, probabilities, labels, class_names)
    save_figure(figure, Path(directory) / PICTURES / "examples.png")
    if "saliency" in predictions:
        weights = predictions["saliency"].float()
        figure = saliency_figure(clips, weights, probabilities, labels, class_names)
        save_figure(figure, Path(directory) / PICTURES / "saliency.png")


def examples_figure(
    clips: Views, probabilities: Tensor, labels: Tensor, class_names: Sequence[str]
) -> Figure:
    """One row for each example: frames of the first clip's center crop, then the two classes.

    Green rows are right, red ones wrong. The arguments are those of `draw_examples`.
    """
    predicted = metrics.first_of_highest(probabilities)  # [N]
    examples = _choose_examples(clips, predicted == labels, labels)
    figure, rows = _draw_strips(clips.pictures(examples))
    for axes, position in zip(rows, examples, strict=True):
        true, best = int(labels[position]), int(predicted[position])
        words = (
            f"true: {_short(class_names[true])}\n"
            f"predicted: {_short(class_names[best])} ({float(probabilities[position, best]):.2f})"
        )
        _write_beside(axes, words, 0.5, "tab:green" if true == best else "tab:red")
    return figure


def saliency_figure(
    clips: Views,
    weights: Tensor,
    probabilities: Tensor,
    labels: Tensor,
    class_names: Sequence[str],
) -> Figure:
    """The videos of `examples_figure`, each under bars: the weights that classes give its frames.

    The weights of the true class are green, those of the predicted one red if it is another. All
    bars have one scale; the dotted line is at 1 / T, the weight of each frame in a plain mean.
    The arguments are those of `draw_examples`, with weights [N, K, T] float32.
    """
    predicted = metrics.first_of_highest(probabilities)  # [N]
    examples = _choose_examples(clips, predicted == labels, labels)
    num_frames = weights.shape[-1]
    steps = _shown(num_frames)
    figure, rows = _draw_strips(clips.pictures(examples), every=2)
    # Rounded up to a tenth, so that the scale ends at a short number.
    top = math.ceil(10 * max(float(weights[examples].max()), 2 / num_frames)) / 10
    for bars, position in zip(rows[::2], examples, strict=True):
        true, best = int(labels[position]), int(predicted[position])
        shown = {true: "tab:green", best: "tab:red"} if true != best else {true: "tab:green"}
        for i, (class_id, color) in enumerate(shown.items()):
            # Two classes have their bars side by side over each frame.
            places = np.arange(len(steps)) + (i + 0.5) / len(shown)
            heights = weights[position, class_id, steps].numpy()  # [shown frames]
            bars.bar(places, heights, 0.9 / len(shown), color=color)
            words = "true" if class_id == true else "predicted"
            _write_beside(bars, f"{words}: {_short(class_names[class_id])}", 0.7 - 0.3 * i, color)
        bars.axhline(1 / num_frames, color="gray", linestyle=":", linewidth=0.8)
        place = (1.005 * len(steps), 1 / num_frames)
        bars.text(*place, f"1/{num_frames}", va="center", fontsize=8, color="gray")
        bars.set(xlim=(0, len(steps)), ylim=(0, top), xticks=[])
        bars.set_yticks([0, top], ["0", f"{top:g}"], fontsize=8)
        bars.spines[["top", "right"]].set_visible(False)
    rows[0].set_title("weight of each frame; those of a class sum to 1", fontsize=9, loc="left")
    return figure


def _filled_figure(width: float, row_height: float, num_rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure that its rows of axes fill, without margins for labels.

    Labels lie outside of it, and `save_figure` makes the picture as large as they need, so that
    long names neither are cut nor take the room of what they name. All sizes are in inches.
    """
    gap = GAP_INCHES * (num_rows - 1)
    figure = Figure(figsize=(width, row_height * num_rows + gap))
    rows = figure.subplots(num_rows, 1, squeeze=False)[:, 0]
    figure.subplots_adjust(0, 0, 1, 1, hspace=GAP_INCHES / row_height)
    return figure, list(rows)


def _draw_strips(pictures: Sequence[Tensor], every: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure with the frames of each clip, uint8 [T, 3, S, S], side by side in every `every`-th
    row: 2 leaves a row above each clip."""
    width = min(len(pictures[0]), MAX_FRAMES) * FRAME_INCHES
    figure, rows = _filled_figure(width, FRAME_INCHES, every * len(pictures))
    for axes, frames in zip(rows[every - 1 :: every], pictures, strict=True):
        shown = frames[_shown(len(frames))]  # [at most MAX_FRAMES, 3, S, S]
        images = shown.permute(0, 2, 3, 1).numpy()  # [..., 3, S, S] -> [..., S, S, 3]
        gap = np.full((images.shape[1], GAP_PX, 3), 255, np.uint8)
        parts = [part for image in images for part in (gap, image)]
        axes.imshow(np.concatenate(parts[1:], axis=1))  # [S, W, 3]
        axes.set_axis_off()
    return figure, rows


def _write_beside(axes: Axes, words: str, height: float, color: str) -> None:
    """Words to the right of a row, at a share of its height."""
    axes.text(1.02, height, words, transform=axes.transAxes, va="center", fontsize=9, color=color)


def _shown(num_frames: int) -> np.ndarray:
    """The frames of a clip that a picture shows: all, or MAX_FRAMES spread evenly."""
    return np.linspace(0, num_frames - 1, min(num_frames, MAX_FRAMES)).round().astype(int)


def _choose_examples(clips: Views, right: Tensor, labels: Tensor) -> list[int]:
    """Positions of the examples, the right ones ([N] bool) first: the first video of each class by
    id, then the second of each, and so on."""
    ids = [(record.video_id, record.start_frame) for record in clips.records]
    seen: Counter[tuple[int, bool]] = Counter()
    turns = []  # (how many videos of this class and outcome come before, position), by id
    for position in sorted(range(len(ids)), key=ids.__getitem__):
        kind = (int(labels[position]), bool(right[position]))
        turns.append((seen[kind], position))
        seen[kind] += 1
    order = [position for _, position in sorted(turns, key=lambda turn: turn[0])]
    good, bad = ([p for p in order if bool(right[p]) == outcome] for outcome in (True, False))
    num_bad = min(len(bad), max(MAX_EXAMPLES // 2, MAX_EXAMPLES - len(good)))
    return good[: MAX_EXAMPLES - num_bad] + bad[:num_bad]


def _draw_per_class(path: Path, rows: Sequence[tuple[str, float, int]]) -> None:
    """Bars for the classes below 100 %; the others would be bars of equal length. A row is a class
    name, its accuracy in percent and its number of videos, the least accurate class first."""
    below = [row for row in rows if row[1] < 100]
    shown = below[:MAX_CLASSES]
    if len(shown) < len(below):
        which = f"the {len(shown)} least accurate of {len(rows)}"
    else:
        which = f"{len(shown) or 'none'} of {len(rows)} below 100 %"
    figure, (axes,) = _filled_figure(6, 0.22 * max(len(shown), 1))
    bars = axes.barh(range(len(shown)), [row[1] for row in shown], color="tab:blue")
    axes.bar_label(bars, fmt="%.3g", padding=3, fontsize=9)  # a bar of 0 is not seen otherwise
    axes.set_yticks(range(len(shown)), [f"{_short(row[0])} ({row[2]})" for row in shown])
    axes.margins(y=0.02)
    axes.invert_yaxis()
    axes.set(title=f"Accuracy of each class: {which}", xlim=(0, 100))
    axes.set_xlabel("top-1 accuracy (%); number of videos in brackets")
    axes.spines[["top", "right"]].set_visible(False)
    axes.axis("on" if shown else "off")  # without bars, the title alone
    save_figure(figure, path)


def _draw_confusion(
    path: Path, pairs: Sequence[tuple[int, int]], names: Mapping[int, str], num_classes: int
) -> None:
    place = {k: i for i, k in enumerate(names)}
    counts = np.zeros((len(names), len(names) + 1))  # the last column is of the other classes
    for actual, predicted in pairs:
        if actual in place:
            counts[place[actual], place.get(predicted, -1)] += 1
    shares = 100 * counts / counts.sum(axis=1, keepdims=True)
    labels = [_short(name) for name in names.values()]
    columns = [*labels, OTHERS] if counts[:, -1].any() else labels
    height = 1 + 0.2 * len(names)
    figure, (axes,) = _filled_figure(1.25 * height, height)
    image = axes.imshow(shares[:, : len(columns)], vmin=0, vmax=100, cmap="Blues")
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=9)
    axes.set_yticks(range(len(labels)), labels, fontsize=9)
    which = f": the {len(names)} least accurate of {num_classes}"
    title = "Confusion matrix" + (which if len(names) < num_classes else "")
    axes.set(xlabel="predicted", ylabel="actual", title=title)
    figure.colorbar(image, label="% of the actual class", shrink=0.7)
    save_figure(figure, path)


def _short(name: str) -> str:
    """A class name as a label of a picture."""
    half = (MAX_LETTERS - 1) // 2
    short = name if len(name) <= MAX_LETTERS else f"{name[:half]}…{name[-half:]}"
    return short.replace("$", r"\$")  # a pair of $ would be read as a formula


def save_figure(figure: Figure, path: Path) -> None:
    """Save as png, cropped to what is drawn, and without the software's version, so that equal
    numbers give equal bytes."""
    with replacing(path) as part, warnings.catch_warnings():
        # Characters missing from the font are drawn as boxes; the csv has the full names.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        options = {"metadata": {"Software": None}, "pil_kwargs": {"optimize": True}}
        figure.savefig(part, format="png", dpi=100, bbox_inches="tight", **options)

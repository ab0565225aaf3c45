"""Plots of a test: confusion matrix and accuracy of each class, as csv for `dvc plots` and as png,
and a picture of some videos with their true and predicted classes.

With more classes than fit in a readable picture, only the least accurate ones are drawn.
"""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from clipzoo.clips.inputs import Views
from clipzoo.evaluate import metrics
from clipzoo.files import replacing, write_csv

MAX_CLASSES = 40
MAX_EXAMPLES = 6
"""Videos in the picture of examples: half right and half wrong, if there are enough."""
MAX_FRAMES = 8
"""Frames of each video, spread evenly over the clip if it has more."""
PALETTE_SIZE = 256
"""Colours of that picture: it takes a third of the bytes of a full-colour one."""
FRAME_INCHES = 0.64
TEXT_INCHES = 3.6
GAP_PX = 2
OTHERS = "(other classes)"


def plot_test(
    directory: str | Path, probabilities: Tensor, labels: Tensor, class_names: Sequence[str]
) -> None:
    """Write confusion.csv, confusion.png, per_class.csv and per_class.png into `directory`.

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
    _draw_per_class(directory / "per_class.png", rows)

    names = {k: class_names[k] for k in sorted(order[:MAX_CLASSES])}
    pairs = zip(labels.tolist(), metrics.first_of_highest(probabilities).tolist(), strict=True)
    named = [(names[a], names.get(p, OTHERS)) for a, p in pairs if a in names]
    write_csv(("actual", "predicted"), named, directory / "confusion.csv")
    _draw_confusion(directory / "confusion.png", named, list(names.values()), len(order))


def plot_interpolation(path: Path, curves: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """Draw top-1 against alpha with its intervals.

    Args:
        path: of the png.
        curves: rows of alpha, top-1 and its interval's ends, in percent, of each set of videos.
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
    save_figure(figure, path)


def draw_examples(
    clips: Views,
    predictions: Mapping[str, Tensor],
    class_names: Sequence[str],
    directory: str | Path,
) -> None:
    """Draw some videos with their true and predicted classes as examples.png, and with the weights
    of their frames as saliency.png.

    Multi-label sets have no single true class, and sentences no frames: nothing is drawn for them.

    Args:
        clips: the N videos that were tested.
        predictions: probabilities [N, K], labels [N] int64 or targets [N, K], and perhaps saliency
            [N, K, T] of the first clip's centre crop.
        class_names: K names.
        directory: of both pictures.

    Raises:
        StoreError: a frame cannot be read; names the video.
    """
    probabilities, labels = predictions["probabilities"], predictions["labels"]
    if labels.dim() != 1 or not clips.pictures([0]):
        return
    figure = examples_figure(clips, probabilities, labels, class_names)
    save_figure(figure, Path(directory) / "examples.png", PALETTE_SIZE)
    if "saliency" in predictions:
        weights = predictions["saliency"].float()
        figure = saliency_figure(clips, weights, probabilities, labels, class_names)
        save_figure(figure, Path(directory) / "saliency.png", PALETTE_SIZE)


def examples_figure(
    clips: Views, probabilities: Tensor, labels: Tensor, class_names: Sequence[str]
) -> Figure:
    """One row for each example: frames of the first clip's centre crop, then the two classes.

    Green rows are right, red ones wrong. Arguments: as the keys of `draw_examples`.
    """
    predicted = metrics.first_of_highest(probabilities)  # [N]
    examples = _choose_examples(clips, predicted == labels, labels)
    pictures = clips.pictures(examples)
    width = min(len(pictures[0]), MAX_FRAMES) * FRAME_INCHES
    size = (width + TEXT_INCHES, len(examples) * (FRAME_INCHES + 0.1))
    figure = Figure(figsize=size)
    rows = figure.subplots(len(examples), 1, squeeze=False)[:, 0]
    figure.subplots_adjust(left=0.01, right=width / size[0], bottom=0.01, top=0.99, hspace=0.1)
    for axes, position, frames in zip(rows, examples, pictures, strict=True):
        axes.imshow(_strip(frames))
        axes.set_axis_off()
        true, best = int(labels[position]), int(predicted[position])
        axes.annotate(
            f"true: {_short(class_names[true])}\n"
            f"predicted: {_short(class_names[best])} ({float(probabilities[position, best]):.2f})",
            (1.02, 0.5),
            xycoords="axes fraction",
            verticalalignment="center",
            fontsize=9,
            color="tab:green" if true == best else "tab:red",
        )
    return figure


def saliency_figure(
    clips: Views,
    weights: Tensor,
    probabilities: Tensor,
    labels: Tensor,
    class_names: Sequence[str],
) -> Figure:
    """The same videos as in `examples_figure`, under the weights that classes give their frames.

    Bars show the weights of the true class (green) and of the predicted one (red, if another); the
    dotted line is 1 / T. Arguments as in `draw_examples`, with weights [N, K, T] float32.
    """
    predicted = metrics.first_of_highest(probabilities)  # [N]
    examples = _choose_examples(clips, predicted == labels, labels)
    num_frames = weights.shape[-1]
    steps = _shown(num_frames)
    width = len(steps) * FRAME_INCHES
    size = (width + TEXT_INCHES, len(examples) * 2 * (FRAME_INCHES + 0.1))
    figure = Figure(figsize=size)
    rows = figure.subplots(2 * len(examples), 1, squeeze=False)[:, 0]
    figure.subplots_adjust(left=0.01, right=width / size[0], bottom=0.01, top=0.99, hspace=0.06)
    pairs = zip(rows[::2], rows[1::2], strict=True)
    pictures = clips.pictures(examples)
    for (bars, strip), position, frames in zip(pairs, examples, pictures, strict=True):
        strip.imshow(_strip(frames), aspect="auto")
        strip.set_axis_off()
        true, best = int(labels[position]), int(predicted[position])
        shown = {true: "tab:green", best: "tab:red"} if true != best else {true: "tab:green"}
        for i, (class_id, colour) in enumerate(shown.items()):
            places = np.arange(len(steps)) + (i + 0.5) / len(shown)
            heights = weights[position, class_id, steps].numpy()  # [shown frames]
            bars.bar(places, heights, 0.9 / len(shown), color=colour)
            words = "true" if class_id == true else "predicted"
            bars.annotate(
                f"{words}: {_short(class_names[class_id])}",
                (1.02, 0.6 - 0.5 * i),
                xycoords="axes fraction",
                fontsize=9,
                color=colour,
            )
        bars.axhline(1 / num_frames, color="gray", linestyle=":", linewidth=0.8)
        bars.set_xlim(0, len(steps))
        bars.set_ylim(0, max(float(weights[examples].max()), 2 / num_frames))
        bars.set_axis_off()
    return figure


def _choose_examples(clips: Views, right: Tensor, labels: Tensor) -> list[int]:
    """Positions of the examples, the right ones first: the first video of each class by id, then
    the second of each, and so on.

    Args:
        clips: the N videos.
        right: [N] bool.
        labels: [N] int64.
    """
    ids = [(record.video_id, record.start_frame) for record in clips.records]
    order = sorted(range(len(ids)), key=ids.__getitem__)
    chosen = []
    for outcome in (True, False):
        seen: Counter[int] = Counter()
        turns = []
        for position in order:
            label = int(labels[position])
            if bool(right[position]) == outcome:
                turns.append((seen[label], len(turns), position))
                seen[label] += 1
        chosen.append([position for _, _, position in sorted(turns)])
    good, bad = chosen
    num_bad = min(len(bad), max(MAX_EXAMPLES // 2, MAX_EXAMPLES - len(good)))
    return good[: MAX_EXAMPLES - num_bad] + bad[:num_bad]


def _strip(frames: Tensor) -> np.ndarray:
    """Frames uint8 [T, 3, S, S] side by side, with white gaps, as uint8 [S, W, 3]."""
    shown = frames[_shown(len(frames))]  # [at most MAX_FRAMES, 3, S, S]
    images = shown.permute(0, 2, 3, 1).numpy()  # [..., 3, S, S] -> [..., S, S, 3]
    gap = np.full((images.shape[1], GAP_PX, 3), 255, np.uint8)
    parts = [part for image in images for part in (gap, image)]
    return np.concatenate(parts[1:], axis=1)  # [S, W, 3]


def _shown(num_frames: int) -> np.ndarray:
    """The frames of a clip that a picture shows: all, or MAX_FRAMES spread evenly."""
    return np.linspace(0, num_frames - 1, min(num_frames, MAX_FRAMES)).round().astype(int)


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
    save_figure(figure, path)


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
    save_figure(figure, path)


def _title(title: str, shown: int, total: int) -> str:
    return title if shown == total else f"{title}: the {shown} least accurate of {total}"


def _short(name: str) -> str:
    short = name if len(name) <= 32 else name[:31] + "…"
    return short.replace("$", r"\$")  # a pair of $ would be read as a formula


def save_figure(figure: Figure, path: Path, num_colours: int = 0) -> None:
    """Save as png without the software's version, so that equal numbers give equal bytes.

    Args:
        figure: to save.
        path: of the png.
        num_colours: size of a palette made for the picture; 0 = all colours.
    """
    with replacing(path) as part:
        with warnings.catch_warnings():
            # Characters missing from the font are drawn as boxes; the csv has the full names.
            warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
            figure.savefig(part, format="png", dpi=100, metadata={"Software": None})
        if num_colours:
            with Image.open(part) as image:
                reduced = image.convert("RGB").quantize(num_colours, Image.Quantize.MAXCOVERAGE)
            reduced.save(part, format="png", optimize=True)

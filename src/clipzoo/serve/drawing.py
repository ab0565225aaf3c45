"""Pictures of predictions: the frames that the model saw with the scores, and a curve over time."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from torch import Tensor

from clipzoo.evaluate.plots import GAP_INCHES, GAP_PX, MAX_LETTERS, save_figure
from clipzoo.files import shown
from clipzoo.serve.prediction import Prediction, Window

FRAMES_A_ROW = 8
MAX_FRAMES = 32
"""Frames of a picture, spread evenly if the model saw more."""
MAX_CURVES = 8
"""Classes of a curve: those with the highest mean probability."""
LEAST_SHARE = 0.05
"""Classes whose curves stay below this share of the highest one are left out."""
NUM_STILLS = 10
"""Frames above a curve."""
ROW_INCHES, BARS_INCHES, SCORE_INCHES = 1.2, 0.7, 0.26
WIDTH_INCHES = ROW_INCHES * FRAMES_A_ROW


def frames_to_draw(prediction: Prediction) -> list[int]:
    """Those that have weights, or those that the model saw; at most MAX_FRAMES."""
    weights = prediction.weights
    frames = weights.frames if weights else prediction.frames
    return [frames[place] for place in _spread(len(frames), MAX_FRAMES)]


def draw_prediction(path: Path, title: str, prediction: Prediction, pictures: Tensor) -> None:
    """Draw frames under their weights, and the scores below them, as a png.

    Args:
        title: the name of the video.
        prediction: what the model says of it.
        pictures: uint8 [n, 3, S, S], those of `frames_to_draw`.
    """
    weights = prediction.weights
    rows = [list(range(n, min(n + FRAMES_A_ROW, len(pictures)))) for n in
            range(0, len(pictures), FRAMES_A_ROW)]  # fmt: skip
    num_labels = len(prediction.labels)
    heights = [*([BARS_INCHES] * bool(weights) + [ROW_INCHES]) * len(rows)]
    heights.append(SCORE_INCHES * num_labels)
    figure = Figure(figsize=(WIDTH_INCHES, sum(heights) + GAP_INCHES * (len(heights) - 1)))
    axes: list[Axes] = list(
        figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    )
    figure.subplots_adjust(0, 0, 1, 1, hspace=GAP_INCHES * len(heights) / sum(heights))
    axes[0].set_title(_label(title), loc="left", fontsize=11, parse_math=False)
    *drawn, scores = axes
    step = len(drawn) // len(rows)
    for i, row in enumerate(rows):
        if weights:
            places = _spread(len(weights.frames), MAX_FRAMES)
            values = np.asarray(weights.by_label[0])[places][row]
            _draw_weights(drawn[i * step], values, len(weights.frames), max(weights.by_label[0]))
        _draw_strip(drawn[i * step + step - 1], pictures[row], FRAMES_A_ROW)
    if weights:
        words = f"weights that “{_label(prediction.labels[0])}” gives the frames; they sum to 1"
        drawn[0].text(1, 1.02, words, transform=drawn[0].transAxes, ha="right", fontsize=9,
                      color="tab:blue", parse_math=False)  # fmt: skip
    _draw_scores(scores, prediction)
    save_figure(figure, path)


def _draw_weights(axes: Axes, values: np.ndarray, num_frames: int, highest: float) -> None:
    axes.bar(np.arange(len(values)) + 0.5, values, 0.9, color="tab:blue")
    axes.axhline(1 / num_frames, color="gray", linestyle=":", linewidth=0.8)
    top = max(highest, 2 / num_frames)
    axes.text(1.005 * FRAMES_A_ROW, 1 / num_frames, f"1/{num_frames}", va="center", fontsize=8,
              color="gray")  # fmt: skip
    axes.set(xlim=(0, FRAMES_A_ROW), ylim=(0, top), xticks=[])
    axes.set_yticks([0, top], ["0", f"{top:.2g}"], fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_strip(axes: Axes, pictures: Tensor, room: int) -> None:
    """Pictures uint8 [n, 3, S, S] side by side, in a row that has room for `room` of them."""
    side = pictures.shape[-1]
    images = pictures.permute(0, 2, 3, 1).numpy()  # [n, 3, S, S] -> [n, S, S, 3]
    strip = np.full((side, room * side, 3), 255, np.uint8)
    for i, image in enumerate(images):
        strip[:, i * side + GAP_PX : (i + 1) * side] = image[:, GAP_PX:]
    axes.imshow(strip, aspect="auto")
    axes.set_axis_off()


def _draw_scores(axes: Axes, prediction: Prediction) -> None:
    places, values = range(len(prediction.labels)), prediction.probabilities
    axes.barh(places, values, 0.7, color="tab:green")
    highest = max(*values, 1e-6)
    for i, (value, cosine) in enumerate(zip(values, prediction.cosines, strict=True)):
        words = f"{value:.3f}  (cosine {cosine:.3f})"
        axes.text(value + 0.005 * highest, i, words, va="center", fontsize=9)
    axes.set_yticks(places, [_label(x) for x in prediction.labels], fontsize=9, parse_math=False)
    axes.set(xlim=(0, 1.2 * highest), ylim=(len(places) - 0.5, -0.5), xticks=[])
    axes.spines[["top", "right", "bottom"]].set_visible(False)


class Curve:
    """The probabilities of all classes in the windows of a video, of which few numbers are kept."""

    def __init__(self) -> None:
        self.edges: list[float] = []
        """The starts of the windows and the end of the last one (seconds)."""
        self._middles: list[int] = []
        self._names: list[str] = []
        self._rows: list[np.ndarray] = []  # [K] float32 each, in the order of `_names`

    def add(self, window: Window) -> None:
        """Add the next window, whose prediction has all classes."""
        self._names = self._names or sorted(window.labels)
        values = dict(zip(window.labels, window.probabilities, strict=True))
        self._rows.append(np.asarray([values[name] for name in self._names], np.float32))
        self._middles.append(window.frames[len(window.frames) // 2])
        self.edges = [*self.edges[:-1], window.start, window.end] if self.edges else [
            window.start, window.end]  # fmt: skip

    def stills(self) -> list[int]:
        """Frames at equal distances in time: each is in the middle of the window shown then."""
        starts = np.asarray(self.edges[:-1])
        times = np.linspace(self.edges[0], self.edges[-1], 2 * NUM_STILLS + 1)[1::2]
        return [self._middles[i] for i in np.searchsorted(starts, times, side="right") - 1]

    def curves(self) -> list[tuple[str, np.ndarray]]:
        """Names and probabilities [windows] of the classes to draw, the most likely one first."""
        table = np.stack(self._rows)  # [windows, K]
        mean = np.average(table, axis=0, weights=np.diff(self.edges))  # [K]
        order = np.argsort(-mean, kind="stable")
        order = order[table[:, order].max(axis=0) >= LEAST_SHARE * table.max()][:MAX_CURVES]
        return [(self._names[k], table[:, k]) for k in order]

    @property
    def num_classes(self) -> int:
        """K, the number of classes that competed."""
        return len(self._names)


def draw_curve(path: Path, title: str, curve: Curve, stills: Tensor) -> None:
    """Draw the probabilities of the most likely classes over time, under frames of the video.

    Args:
        title: the name of the video.
        curve: all its windows.
        stills: uint8 [n, 3, S, S], those of `Curve.stills`.
    """
    figure = Figure(figsize=(WIDTH_INCHES, 4.2))
    strip, axes = figure.subplots(2, 1, height_ratios=[WIDTH_INCHES / NUM_STILLS, 3.2])
    figure.subplots_adjust(0, 0, 1, 1, hspace=0.05)
    strip.set_title(_label(title), loc="left", fontsize=11, parse_math=False)
    _draw_strip(strip, stills, NUM_STILLS)
    lines = curve.curves()
    for number, (name, values) in enumerate(lines):
        axes.stairs(values, curve.edges, baseline=None, color=f"C{number}", linewidth=1.5,
                    label=_label(name))  # fmt: skip
    highest = max(float(values.max()) for _, values in lines)
    # Probabilities may be softmaxes of cosines, all of them near 1 / K.
    top = 1.03 if highest > 0.5 else 1.2 * highest
    axes.set(xlim=(curve.edges[0], curve.edges[-1]), ylim=(0, top))
    axes.set(xlabel="time", ylabel="probability")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: clock(seconds)))
    axes.spines[["top", "right"]].set_visible(False)
    others = f"{len(lines)} of {curve.num_classes} classes"
    legend = axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=9, title_fontsize=9,
                         title=others if len(lines) < curve.num_classes else None)  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
    save_figure(figure, path)


def clock(seconds: float) -> str:
    """A time as people write it: 7.5 -> `7.5 s`, 75 -> `1:15`, 3675 -> `1:01:15`."""
    if seconds < 60:
        return f"{seconds:g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _spread(count: int, most: int) -> Sequence[int]:
    """All places of `count`, or `most` of them spread evenly."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()


def _label(name: str) -> str:
    """A name of any length and with any characters as a label of a picture."""
    name = shown(name)
    half = (MAX_LETTERS - 1) // 2
    return name if len(name) <= MAX_LETTERS else f"{name[:half]}…{name[-half:]}"

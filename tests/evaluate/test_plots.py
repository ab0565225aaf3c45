"""What a test's plots show: the csv files, and the figures before they become pixels."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from clipzoo.clips.clips import ViewClips
from clipzoo.clips.transforms import ViewTransform
from clipzoo.data.records import Record
from clipzoo.data.store import VideoInfo
from clipzoo.evaluate import metrics, plots


def read(path: Path) -> list[list[str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def scores(predicted: list[int], num_classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(predicted), num_classes).float()


def axes_titled(figures: list[Figure], start: str) -> Axes:
    (axes,) = [a for figure in figures for a in figure.axes if a.get_title().startswith(start)]
    return axes


def bars(axes: Axes) -> dict[str, float]:
    """Label -> width of horizontal bars, from the top of the picture to its bottom."""
    (container,) = [c for c in axes.containers if isinstance(c, BarContainer)]
    at = {bar.get_y() + bar.get_height() / 2: bar.get_width() for bar in container}
    ticks = zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    shown = {label.get_text(): at[tick] for tick, label in sorted(ticks, key=lambda t: t[0])}
    low, high = axes.get_ylim()
    return shown if low > high else dict(reversed(shown.items()))


def matrix(axes: Axes) -> tuple[list[str], list[str], list[list[float]]]:
    """Labels of rows and of columns, and the values between them."""
    rows = [label.get_text() for label in axes.get_yticklabels()]
    columns = [label.get_text() for label in axes.get_xticklabels()]
    (image,) = axes.get_images()
    array = image.get_array()
    assert array is not None
    assert (len(rows), len(columns)) == array.shape
    return rows, columns, array.tolist()


def test_small_sets_are_shown_whole(tmp_path: Path, figures: list[Figure]):
    labels = torch.tensor([0, 0, 2, 2])  # class 1 has no videos, yet is predicted
    names = ["up, fast", "down $1 $2", "轉"]
    plots.plot_test(tmp_path, scores([0, 1, 2, 2], 3), labels, names)
    assert read(tmp_path / "per_class.csv") == [
        ["class", "accuracy", "videos"],
        ["up, fast", "50.0", "2"],
        ["轉", "100.0", "2"],
    ]
    assert read(tmp_path / "confusion.csv") == [
        ["actual", "predicted"],
        ["up, fast", "up, fast"],
        ["up, fast", plots.OTHERS],
        ["轉", "轉"],
        ["轉", "轉"],
    ]
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.*")) == [
        "confusion.csv",
        "per_class.csv",
        "pictures/confusion.png",
        "pictures/per_class.png",
    ]
    accuracies = axes_titled(figures, "Accuracy of each class")
    assert bars(accuracies) == {"up, fast (2)": 50}
    assert accuracies.get_title().endswith(": 1 of 2 below 100 %")
    confusion = axes_titled(figures, "Confusion matrix")
    columns = ["up, fast", "轉", plots.OTHERS]
    assert matrix(confusion) == (["up, fast", "轉"], columns, [[50, 0, 50], [0, 100, 0]])
    assert (confusion.get_ylabel(), confusion.get_xlabel()) == ("actual", "predicted")
    assert confusion.get_images()[0].get_clim() == (0, 100)


def test_confusions_lie_in_the_row_of_the_actual_class(tmp_path: Path, figures: list[Figure]):
    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    plots.plot_test(tmp_path, scores([0, 1, 1, 1, 1, 1], 2), labels, ["x", "y $z$"])
    shown = matrix(axes_titled(figures, "Confusion matrix"))
    assert shown == (["x", r"y \$z\$"], ["x", r"y \$z\$"], [[25, 75], [0, 100]])


def test_bars_are_of_the_classes_below_100(tmp_path: Path, figures: list[Figure]):
    labels = torch.arange(3).repeat(4)  # class 1 has 1 of 4 right, class 2 has 3 of 4
    predicted = [0, 1, 2, 0, 0, 2, 0, 0, 2, 0, 0, 0]
    plots.plot_test(tmp_path, scores(predicted, 3), labels, ["a", "b", "c"])
    shown = bars(axes_titled(figures, "Accuracy of each class: 2 of 3 below 100 %"))
    assert list(shown.items()) == [("b (4)", 25), ("c (4)", 75)], "the least accurate is on top"
    plots.plot_test(tmp_path, scores(labels.tolist(), 3), labels, ["a", "b", "c"])
    assert bars(axes_titled(figures, "Accuracy of each class: none of 3 below 100 %")) == {}


@pytest.mark.parametrize("num_classes", [48, 61])
def test_pictures_of_confusions_show_up_to_60_classes(
    num_classes: int, tmp_path: Path, figures: list[Figure]
):
    labels = torch.arange(num_classes)
    predicted = labels.roll(1)
    names = [f"class {k}" for k in range(num_classes)]
    plots.plot_test(tmp_path, scores(predicted.tolist(), num_classes), labels, names)
    rows, columns, _ = matrix(axes_titled(figures, "Confusion matrix"))
    assert rows == names[: plots.MAX_CONFUSED]
    assert columns == (names if num_classes == 48 else [*rows, plots.OTHERS])


def test_long_names_keep_both_ends(tmp_path: Path, figures: list[Figure]):
    name = "a person who holds " + "something very " * 4 + "bright"
    plots.plot_test(tmp_path, scores([1], 2), torch.tensor([0]), [name, "y"])
    (label,) = bars(axes_titled(figures, "Accuracy of each class"))
    assert label == "a person who holds something …ng very something very bright (1)"


def test_large_sets_show_their_least_accurate_classes(tmp_path: Path, figures: list[Figure]):
    labels = torch.arange(400).repeat(2)
    wrong = labels.clone()
    wrong[5:100] = 7  # one of two videos is right, but for 7
    wrong[300], wrong[700] = 5, 5  # class 300 is wrong in both of its videos
    names = [f"class {k}" for k in range(400)]
    plots.plot_test(tmp_path, scores(wrong.tolist(), 400), labels, names)
    accuracies = read(tmp_path / "per_class.csv")[1:]
    assert len(accuracies) == 400
    assert accuracies[:2] == [["class 300", "0.0", "2"], ["class 5", "50.0", "2"]]
    confusions = read(tmp_path / "confusion.csv")[1:]
    assert len({row[0] for row in confusions}) == plots.MAX_CLASSES
    assert confusions.count(["class 300", "class 5"]) == 2
    accuracy = axes_titled(figures, "Accuracy of each class")
    assert list(bars(accuracy).items())[:3] == [
        ("class 300 (2)", 0),
        ("class 5 (2)", 50),
        ("class 6 (2)", 50),
    ]
    assert len(bars(accuracy)) == plots.MAX_CLASSES
    confusion = axes_titled(figures, "Confusion matrix")
    rows, columns, shares = matrix(confusion)
    assert len(rows) == plots.MAX_CONFUSED
    assert columns == [*rows, plots.OTHERS], "7, for which others are taken, is not shown"
    assert shares[rows.index("class 5")][columns.index(plots.OTHERS)] == 50
    assert shares[rows.index("class 300")][columns.index("class 5")] == 100
    assert [sum(row) for row in shares] == [100] * plots.MAX_CONFUSED
    for axes, shown in ((accuracy, plots.MAX_CLASSES), (confusion, plots.MAX_CONFUSED)):
        assert axes.get_title().endswith(f": the {shown} least accurate of 400")
        assert axes.figure.get_figwidth() < 20  # pyright: ignore[reportAttributeAccessIssue]
        assert axes.figure.get_figheight() < 20  # pyright: ignore[reportAttributeAccessIssue]


def test_plots_are_the_same_every_time(tmp_path: Path):
    for folder in ("a", "b"):
        plots.plot_test(tmp_path / folder, scores([0, 1], 2), torch.tensor([0, 0]), ["x", "y"])
    files = [path for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert len(files) == 4
    for path in files:
        other = tmp_path / "b" / path.relative_to(tmp_path / "a")
        assert path.read_bytes() == other.read_bytes(), path.name


def test_multi_label_sets_get_counts(tmp_path: Path):
    targets = torch.tensor([[1, 1], [0, 1], [0, 0]])
    plots.plot_test(tmp_path, torch.rand(3, 2), targets, ["x", "y"])
    assert read(tmp_path / "per_class.csv")[1:] == [["x", "1"], ["y", "2"]]


@pytest.mark.parametrize(("row", "expected"), [([0.5, 0.5, 0.0], 0), ([0.0, 0.5, 0.5], 1)])
def test_the_first_of_equals_is_predicted(row: list[float], expected: int):
    assert metrics.first_of_highest(torch.tensor([row])).tolist() == [expected]


class ColorStore:
    """Every pixel of frame i of video `v<k>` is (i, 10 * k, 0); the left eighth is white."""

    def __init__(self, num_videos: int) -> None:
        self.videos = {f"v{k}": VideoInfo(64, 64, 32, 0.0, k) for k in range(num_videos)}

    def read(self, video_id, indices):
        video = np.zeros((len(indices), 32, 64, 3), np.uint8)
        video[..., 0] = np.asarray(indices)[:, None, None]
        video[..., 1] = 10 * int(video_id[1:])
        video[:, :, :8] = 255
        return video


def view_clips(order: list[int], num_segments: int = 4, crops: int = 3) -> ViewClips:
    """Videos `v<k>` in the given order; three crops, of which the left one is partly white."""
    records = [Record(f"v{k}", 64, 0) for k in order]
    transform = ViewTransform(32, 32, crops)
    return ViewClips(ColorStore(len(order)), records, transform, num_segments, 2, False)


def drawn(figure) -> list[tuple[int, str, str]]:
    """(video, text, color) of each row."""
    return [
        (
            int(axes.images[0].get_array()[0, 0, 1]) // 10,
            axes.texts[0].get_text(),
            axes.texts[0].get_color(),
        )
        for axes in figure.axes
    ]


def test_examples_are_half_right_and_half_wrong_first_by_id():
    order = [7, 6, 5, 4, 3, 2, 1, 0]  # v7 comes first in the list and last by id
    labels = torch.tensor([2, 0, 0, 0, 1, 1, 0, 0])
    predicted = [2, 0, 0, 0, 0, 2, 0, 1]  # v3, v2 and v0 are wrong
    probabilities = scores(predicted, 3) * 0.75
    figure = plots.examples_figure(view_clips(order), probabilities, labels, ["a", "b $1 $2", "c"])
    assert drawn(figure) == [
        (1, "true: a\npredicted: a (0.75)", "tab:green"),
        (7, "true: c\npredicted: c (0.75)", "tab:green"),  # another class before a second of `a`
        (4, "true: a\npredicted: a (0.75)", "tab:green"),
        (0, "true: a\npredicted: b \\$1 \\$2 (0.75)", "tab:red"),
        (2, "true: b \\$1 \\$2\npredicted: c (0.75)", "tab:red"),
        (3, "true: b \\$1 \\$2\npredicted: a (0.75)", "tab:red"),
    ]
    assert to_hex("tab:red") != to_hex("tab:green")


@pytest.mark.parametrize(("num_wrong", "expected"), [(0, 0), (1, 1), (5, 3), (7, 5), (8, 6)])
def test_examples_of_one_kind_fill_the_places_of_the_other(num_wrong: int, expected: int):
    labels = torch.zeros(8, dtype=torch.int64)
    probabilities = scores([1] * num_wrong + [0] * (8 - num_wrong), 2)
    figure = plots.examples_figure(view_clips(list(range(8))), probabilities, labels, ["a", "b"])
    colors = [color for _, _, color in drawn(figure)]
    assert colors == ["tab:green"] * (6 - expected) + ["tab:red"] * expected


@pytest.mark.parametrize(
    ("num_segments", "crops", "frames"),
    [(4, 3, [0, 16, 32, 48]), (4, 1, [0, 16, 32, 48]), (32, 1, [0, 8, 18, 26, 36, 44, 54, 62])],
)
def test_examples_show_the_frames_of_the_first_clips_center(num_segments, crops, frames):
    clips = view_clips([0, 1, 2], num_segments, crops)
    figure = plots.examples_figure(clips, scores([0] * 3, 2), torch.zeros(3).long(), ["a", "b"])
    strip = np.asarray(figure.axes[2].images[0].get_array())
    assert strip.shape == (32, len(frames) * (32 + plots.GAP_PX) - plots.GAP_PX, 3)
    for i, frame in enumerate(frames):
        start = i * (32 + plots.GAP_PX)
        assert (strip[:, start : start + 32] == (frame, 20, 0)).all(), i
        assert (strip[:, start + 32 : start + 32 + plots.GAP_PX] == 255).all(), i


def test_the_picture_of_examples_is_small_and_the_same_every_time(tmp_path: Path):
    predictions = {"probabilities": scores([0, 1], 2), "labels": torch.tensor([0, 0])}
    for name in ("a", "b"):
        plots.draw_examples(view_clips([0, 1]), predictions, ["x", "轉"], tmp_path / name)
    (first,) = (tmp_path / "a/pictures").iterdir()
    assert first.read_bytes() == (tmp_path / "b/pictures/examples.png").read_bytes()
    assert first.stat().st_size < 150_000
    image = cv2.imread(str(first))
    assert image is not None
    assert image.shape[0] < image.shape[1] < 1000
    edges = [image[0], image[-1], image[:, 0], image[:, -1]]
    assert all((edge == 255).all() for edge in edges), "a margin all around, and no label is cut"
    assert (image[:, -30:] != 255).any(), "no empty column beside the labels"


def test_bars_are_the_weights_of_the_true_and_the_predicted_class(tmp_path: Path):
    clips, labels = view_clips([0, 1]), torch.tensor([0, 0])
    weights = torch.tensor([[[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]]] * 2)  # [N, K, T]
    weights[1] = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.0, 0.0, 0.5, 0.5]])
    probabilities = scores([0, 1], 2)  # the second video is wrong
    figure = plots.saliency_figure(clips, weights, probabilities, labels, ["a", "b"])
    bars = [[p for p in axes.patches if isinstance(p, Rectangle)] for axes in figure.axes[::2]]
    heights = [[bar.get_height() for bar in row] for row in bars]
    assert heights[0] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert heights[1] == pytest.approx([0.7, 0.1, 0.1, 0.1, 0.0, 0.0, 0.5, 0.5])
    predictions = {"probabilities": probabilities, "labels": labels, "saliency": weights.half()}
    plots.draw_examples(clips, predictions, ["a", "b"], tmp_path)
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {
        "examples.png",
        "saliency.png",
    }


def test_multi_label_sets_get_no_picture(tmp_path: Path):
    predictions = {"probabilities": torch.rand(2, 2), "labels": torch.tensor([[1, 1], [0, 1]])}
    plots.draw_examples(view_clips([0, 1]), predictions, ["x", "y"], tmp_path)
    assert not list(tmp_path.iterdir())

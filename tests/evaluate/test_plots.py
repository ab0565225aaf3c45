import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from clipzoo.evaluate import plots


def read(path: Path) -> list[list[str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def scores(predicted: list[int], num_classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(predicted), num_classes).float()


def test_small_sets_are_shown_whole(tmp_path: Path):
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
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "confusion.csv",
        "confusion.png",
        "per_class.csv",
        "per_class.png",
    ]


def test_large_sets_show_their_least_accurate_classes(tmp_path: Path):
    labels = torch.arange(400).repeat(2)
    wrong = labels.clone()
    wrong[5], wrong[300], wrong[700] = 7, 5, 5  # class 300 is wrong in both of its videos
    names = [f"class {k}" for k in range(400)]
    plots.plot_test(tmp_path, scores(wrong.tolist(), 400), labels, names)
    accuracies = read(tmp_path / "per_class.csv")[1:]
    assert len(accuracies) == 400
    assert accuracies[:2] == [["class 300", "0.0", "2"], ["class 5", "50.0", "2"]]
    confusions = read(tmp_path / "confusion.csv")[1:]
    assert len({row[0] for row in confusions}) == plots.MAX_CLASSES
    assert confusions.count(["class 300", "class 5"]) == 2
    for name in ("confusion.png", "per_class.png"):
        image = cv2.imread(str(tmp_path / name))
        assert image is not None
        assert max(image.shape) < 2000
        assert len(np.unique(image)) > 10  # something is drawn


def test_plots_are_the_same_every_time(tmp_path: Path):
    for folder in ("a", "b"):
        plots.plot_test(tmp_path / folder, scores([0, 1], 2), torch.tensor([0, 0]), ["x", "y"])
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_multi_label_sets_get_counts(tmp_path: Path):
    targets = torch.tensor([[1, 1], [0, 1], [0, 0]])
    plots.plot_test(tmp_path, torch.rand(3, 2), targets, ["x", "y"])
    assert read(tmp_path / "per_class.csv")[1:] == [["x", "1"], ["y", "2"]]


@pytest.mark.parametrize(("row", "expected"), [([0.5, 0.5, 0.0], 0), ([0.0, 0.5, 0.5], 1)])
def test_the_first_of_equals_is_predicted(row: list[float], expected: int):
    assert plots.first_of_highest(torch.tensor([row])).tolist() == [expected]

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from clipzoo import report

SHA = "ab12cd34" * 8
SET = {
    "dataset": "ucf101",
    "protocol": "clips 2, crops 1, uniform",
    "num_videos": 240,
    "num_expected": 240,
    "videos_sha256": SHA,
}
TEST = {
    **SET,
    "top1": 97.08333333333333,
    "ci95_low": 94.6,
    "ci95_high": 98.9,
    "top5": 100.0,
    "mean_class_accuracy": 96.0,
    "map": 99.25,
}
ZERO_SHOT = {
    **SET,
    "dataset": "hmdb51",
    "num_expected": 250,
    "full_top1": 81.0,
    "ci95_low": 75.0,
    "ci95_high": 86.0,
    "half_top1_mean": 88.05,
    "half_top1_std": 2.5,
    "gain": 40.0,
    "gain_ci95_low": 33.0,
    "gain_ci95_high": 46.5,
}


def put(root: Path, name: str, values: Any) -> None:
    path = root / "metrics" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    put(tmp_path, "demo/test.json", TEST)
    put(tmp_path, "demo/zero_shot_hmdb51.json", ZERO_SHOT)
    put(tmp_path, "demo/clip.json", {"retrieval_top1": 91.25, "weights": "demo"})
    put(tmp_path, "bike/vit-l/test.json", {**TEST, "top1": 88.0})
    return tmp_path


def line(text: str, result: str) -> list[str]:
    """Cells of the last table line with this result."""
    rows = [[c.strip() for c in row.split("|")[1:-1]] for row in text.splitlines() if "|" in row]
    return [row for row in rows if row[1] == result][-1]


def test_results_are_readable(root: Path):
    rows = report.write_report(root)
    text = (root / "RESULTS.md").read_text()
    assert [part.split("\n")[0] for part in text.split("## ")[1:]] == ["bike/vit-l", "demo"]
    assert line(text, "top-1") == [
        "ucf101",
        "top-1",
        "97.1 (94.6 to 98.9)",
        "240 (ab12cd34)",
        "clips 2, crops 1, uniform",
        "",
        "",
        "no published value",
    ]
    assert line(text, "zero-shot top-1, half of the classes")[2] == "88.0 ± 2.5"
    assert line(text, "gain in zero-shot top-1 over the raw CLIP")[2] == "40.0 (33.0 to 46.5)"
    assert line(text, "zero-shot top-1")[3] == "240 of 250 (ab12cd34)"
    assert "CLIP weights: retrieval_top1 91.25, weights demo." in text
    assert len(rows) == 4 + 4 + 3


def test_zoo_csv_has_full_precision(root: Path):
    report.write_report(root)
    rows = list(csv.DictReader((root / "zoo.csv").read_text().splitlines()))
    assert [r["recipe"] for r in rows] == ["bike/vit-l"] * 4 + ["demo"] * 7
    top1 = next(r for r in rows if r["recipe"] == "demo" and r["result"] == "top-1")
    assert float(top1["value"]) == TEST["top1"]
    assert (top1["videos_sha256"], top1["published"], top1["std"]) == (SHA, "", "")


def test_the_report_is_the_same_every_time(root: Path):
    names = ("RESULTS.md", "zoo.csv")
    report.write_report(root)
    first = [(root / name).read_bytes() for name in names]
    report.write_report(root)
    assert [(root / name).read_bytes() for name in names] == first
    assert not list(root.glob("*.part"))


def test_single_view_results_have_rows_of_their_own(tmp_path: Path):
    single = {"single_view_top1": 95.0, "single_view_ci95_low": 92, "single_view_ci95_high": 97}
    put(tmp_path, "demo/test.json", {**TEST, **single})
    report.write_report(tmp_path)
    text = (tmp_path / "RESULTS.md").read_text()
    assert line(text, "single view, top-1")[2] == "95.0 (92.0 to 97.0)"


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (None, None, "no metrics file"),
        ("demo/test.json", [1], "found a list"),
        ("demo/test.json", {"top1": 1.0}, r"metrics/demo/test\.json: missing 'dataset'"),
    ],
)
def test_bad_metrics_are_named(tmp_path: Path, name: str | None, values: Any, message: str):
    if name:
        put(tmp_path, name, values)
    with pytest.raises(report.ReportError, match=message):
        report.write_report(tmp_path)


def test_a_broken_metrics_file_is_named(tmp_path: Path):
    put(tmp_path, "demo/test.json", {})
    (tmp_path / "metrics/demo/test.json").write_text("{")
    with pytest.raises(report.ReportError, match=r"test\.json: not a JSON file"):
        report.write_report(tmp_path)

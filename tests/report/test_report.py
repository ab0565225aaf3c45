"""RESULTS.md, zoo.csv and the results of one run, from made-up metrics."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from clipzoo.files import json_sha256
from clipzoo.report import recipes
from clipzoo.report import tables as report
from clipzoo.report.recipes import recipe_settings
from clipzoo.report.results import ReportError
from clipzoo.report.verdicts import named_set
from clipzoo.yaml_files import ConfigError

ROOT = Path(__file__).parents[2]

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
    "top1_ci95_low": 94.6,
    "top1_ci95_high": 98.9,
    "top5": 100.0,
    "mean_class_accuracy": 96.0,
    "map": 99.25,
}
ZERO_SHOT = {
    **SET,
    "dataset": "hmdb51",
    "num_expected": 250,
    "full_top1": 81.0,
    "full_top1_ci95_low": 75.0,
    "full_top1_ci95_high": 86.0,
    "half_top1_mean": 88.05,
    "half_top1_std": 2.5,
    "gain": 40.0,
    "gain_ci95_low": 33.0,
    "gain_ci95_high": 46.5,
}


RECIPES = {
    "zoo/ucf": {
        "about": "UCF101, fine-tuned.",
        "video_sets": {"test": "ucf101/val_rgb_split_1.txt"},
        "published": [
            {"metric": "top1", "clips": 2, "crops": 1, "value": 97.0, "tolerance": 0.3},
            {"metric": "top1", "clips": 1, "crops": 1, "value": 95.5, "tolerance": 0.3},
            {"metric": "top1", "clips": 4, "crops": 3, "value": 98.0, "tolerance": 0.3},
        ],
        "params": {"model": {"arch": "ViT-B/32"}},
    },
    "zoo/kinetics": {
        "about": "Kinetics-600, zero-shot.",
        "published": [
            {"metric": "splits_top1_mean", "dataset": "kinetics600", "clips": 1, "crops": 1}
            | {"value": 70.0, "tolerance": 1.0}
        ],
        "video_sets": {
            f"zero_shot_kinetics600_split{i}": f"k600/test_split{i}_exist.txt" for i in (1, 2, 3)
        },
    },
    "zoo/other": {"about": "Nothing published."},
    "zoo/shapes": {
        "about": "Expected from runs on other machines.",
        "expected": [
            {"metric": "top1", "dataset": "ucf101", "value": 97.5, "tolerance": 0.5},
            {"metric": "full_top1", "dataset": "hmdb51", "value": 85.5, "tolerance": 3},
        ],
    },
}


def put(root: Path, name: str, values: Any) -> None:
    path = root / "metrics" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"settings_sha256": "none", "environment": "torch 2, x86_64 AVX2"}
    path.write_text(json.dumps({**about, **values} if "num_videos" in values else values))


def record(root: Path, name: str, **changes: Any) -> None:
    """The settings of a run: those of its recipe, but for `changes` (`__` is a dot)."""
    recipe, _, stem = name.rpartition("/")
    values = recipe_settings(recipe.removesuffix("-released"), root)
    values |= {key.replace("__", "."): value for key, value in changes.items()}
    path = root / "plots" / recipe / stem / "settings.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))
    metrics = root / "metrics" / f"{name}.json"
    measured = {**json.loads(metrics.read_text()), "settings_sha256": json_sha256(values)}
    metrics.write_text(json.dumps(measured))


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A repository with recipes and nothing run."""
    (tmp_path / "recipes/zoo").mkdir(parents=True)
    shutil.copy(ROOT / "recipes/demo.yaml", tmp_path / "recipes")
    for name, values in RECIPES.items():
        rows = [{"dataset": "ucf101", "source": "a table"} | r for r in values.get("published", [])]
        text = yaml.safe_dump({**values, "published": rows})
        (tmp_path / f"recipes/{name}.yaml").write_text(text)
    return tmp_path


@pytest.fixture
def root(empty: Path) -> Path:
    put(empty, "demo/test.json", TEST)
    put(empty, "demo/zero_shot_hmdb51.json", ZERO_SHOT)
    put(empty, "clip.json", {"retrieval_top1": 91.25, "weights": "demo"})
    put(empty, "bike/vit-l/test.json", {**TEST, "top1": 88.0})
    record(empty, "demo/test")
    record(empty, "demo/zero_shot_hmdb51", train__lr=1.0)
    return empty


def line(text: str, result: str) -> list[str]:
    """Cells of the last table line that starts with this."""
    return [row for row in cells(text) if row[0] == result][-1]


def full(root: Path, run: str) -> str:
    """What `clipzoo results RUN` prints."""
    return report.read_report(root).run_markdown(run)


def cells(text: str) -> list[list[str]]:
    """Cells of every table line."""
    return [[c.strip() for c in row.split("|")[1:-1]] for row in text.splitlines() if "|" in row]


def test_results_are_readable(root: Path):
    rows = report.write_report(root).rows
    text = (root / "RESULTS.md").read_text()
    assert [part.split("\n")[0] for part in text.split("## ")[1:]] == [
        "Published rows",
        "Recipes without a published row",
        "Runs",
    ]
    values = ["97.1 (94.6 to 98.9)", "81.0 (75.0 to 86.0)", "40.0 (33.0 to 46.5)"]
    assert line(text, "demo") == ["demo", "ucf101, hmdb51", *values]
    assert "Environment: torch 2, x86_64 AVX2." in text
    assert line(text, "bike/vit-l") == ["bike/vit-l", "ucf101", "88.0 (94.6 to 98.9)", "", ""]
    demo = full(root, "demo")
    assert line(demo, "top-1") == ["top-1", "97.1 (94.6 to 98.9)"]
    protocol = "Protocol: clips 2, crops 1, uniform."
    environment = "Environment: torch 2, x86_64 AVX2."
    assert (
        f"\nDataset: ucf101. Videos: 240 (ab12cd34). {protocol} {environment} "
        "Verdict: no published value.\n\n"
    ) in demo
    assert f"\nDataset: hmdb51. Videos: 240 of 250 (ab12cd34). {protocol} {environment} " in demo
    assert line(demo, "zero-shot top-1, half of the classes")[1] == "88.0 ± 2.5"
    assert line(demo, "gain in zero-shot top-1 over the raw CLIP")[1] == "40.0 (33.0 to 46.5)"
    assert "CLIP weights of the last run: retrieval_top1 91.25, weights demo." in text
    assert "Verdict: modified: train.lr." in demo
    assert "Settings that differ from the recipe's: `train.lr`." in demo
    with pytest.raises(ReportError, match=r"found 'dem' .did you mean demo.*allowed: a run"):
        full(root, "dem")
    assert len([row for row in rows if row.value is not None]) == 4 + 4 + 3


def test_zoo_csv_has_full_precision(root: Path):
    report.write_report(root)
    rows = list(csv.DictReader((root / "zoo.csv").read_text().splitlines()))
    names = ["bike/vit-l"] * 4 + ["demo"] * 7 + ["zoo/kinetics"] + ["zoo/ucf"] * 3
    assert [r["recipe"] for r in rows] == names
    assert {r["verdict"] for r in rows[:4]} == {"own run"}
    assert {(r["value"], r["verdict"]) for r in rows[-4:]} == {("", "not run here")}
    top1 = next(r for r in rows if r["recipe"] == "demo" and r["result"] == "top-1")
    assert float(top1["value"]) == TEST["top1"]
    assert (top1["videos_sha256"], top1["published"], top1["std"]) == (SHA, "", "")


@pytest.mark.parametrize(("num", "note"), [(29, ", few videos"), (30, "")])
def test_intervals_over_few_videos_are_marked(empty: Path, num: int, note: str):
    counts = {"num_videos": num, "num_expected": num}
    put(empty, "demo/test.json", {**TEST, **counts})
    put(empty, "demo/zero_shot_hmdb51.json", {**ZERO_SHOT, **counts})
    report.write_report(empty)
    text = (empty / "RESULTS.md").read_text()
    top1, zero_shot = f"97.1 (94.6 to 98.9{note})", f"81.0 (75.0 to 86.0{note})"
    assert line(full(empty, "demo"), "top-1")[1] == top1
    assert (
        line(full(empty, "demo"), "gain in zero-shot top-1 over the raw CLIP")[1]
        == f"40.0 (33.0 to 46.5{note})"
    )
    (run,) = [row for row in cells(text.split("## Runs")[1]) if row[0] == "demo"]
    assert run[2:4] == [top1, zero_shot]
    assert '"few videos" marks fewer than 30' in text


def test_an_own_run_is_compared_with_nothing(empty: Path):
    put(empty, "demo/test.json", {**TEST, "dataset": "mine"})
    record(empty, "demo/test")
    for folder in ("metrics", "plots"):
        (empty / folder / "demo").rename(empty / folder / "mine")
    rows = report.write_report(empty).rows
    assert {(row.verdict, row.modified) for row in rows if row.recipe == "mine"} == {
        ("own run", "")
    }
    section = full(empty, "mine")
    assert "Verdict: own run." in section
    assert "differ from the recipe" not in section


def test_the_report_is_the_same_every_time(root: Path):
    names = ("RESULTS.md", "zoo.csv")
    report.write_report(root)
    first = [(root / name).read_bytes() for name in names]
    report.write_report(root)
    assert [(root / name).read_bytes() for name in names] == first
    assert not list(root.glob("*.part"))


SINGLE = {
    "single_view_top1": 95.0,
    "single_view_top1_ci95_low": 92,
    "single_view_top1_ci95_high": 97,
}


def test_results_stand_beside_the_published_value_of_the_same_views(empty: Path):
    sha = named_set("ucf101/val_rgb_split_1.txt").videos_sha256
    put(empty, "zoo/ucf/test.json", {**TEST, **SINGLE, "videos_sha256": sha})
    record(empty, "zoo/ucf/test")
    rows = report.write_report(empty).rows
    text = (empty / "RESULTS.md").read_text()
    section = full(empty, "zoo/ucf")
    reproduced = ["97.0", "+0.1", "reproduced (within 0.3)"]
    assert line(section, "top-1") == ["top-1", "97.1 (94.6 to 98.9)", *reproduced]
    assert line(section, "single view, top-1") == [
        "single view, top-1",
        "95.0 (92.0 to 97.0)",
        "95.5",
        "-0.5",
        "0.5 below (tolerance 0.3)",
    ]
    assert line(section, "mAP")[2:] == ["", "", "no published value"]
    assert "Videos of ucf101: the published ucf101/val_rgb_split_1.txt." in section
    left = [row for row in rows if row.recipe == "zoo/ucf" and row.value is None]
    assert [row.published for row in left] == [98.0]
    published = [row[1:] for row in cells(text) if row[0] == "`zoo/ucf`"]
    assert len(published) == 3
    model, ours = ["ucf101", "ViT-B/32, 8 frames"], "97.1 (94.6 to 98.9)"
    views = "clips 2, crops 1, uniform"
    verdict, videos = "reproduced (within 0.3)", f"240 ({sha[:8]})"
    environment = "torch 2, x86_64 AVX2"
    assert [*model, "top-1", views, "97", ours, videos, "+0.1", environment, verdict] in published
    assert [*model, "top-1", "clips 4, crops 3", "98", "", "", "", "", "not run here"] in published


UCF_LIST = named_set("ucf101/val_rgb_split_1.txt")


def test_a_run_on_a_part_of_the_published_videos_gets_bounds(empty: Path):
    """3,600 of 3,783 videos, 3,500 of them right: 92.5 to 97.4 on all."""
    about = {"num_videos": 3600, "num_expected": 3783, "expected_sha256": UCF_LIST.videos_sha256}
    about |= {"missing_sha256": "99ff" * 16, "top1": 100 * 3500 / 3600}
    put(empty, "zoo/ucf/test.json", {**TEST, **about})
    record(empty, "zoo/ucf/test")
    rows = report.write_report(empty).rows
    top1 = next(row for row in rows if row.metric == "top1" and row.value is not None)
    assert top1.verdict == "within reach (92.5 to 97.4 on all 3,783; published 97)"
    assert (top1.complete_low, top1.complete_high) == (100 * 3500 / 3783, 100 * 3683 / 3783)
    assert (top1.missing_sha256, top1.videos_sha256) == ("99ff" * 16, SHA)
    text = (empty / "RESULTS.md").read_text()
    assert "3600 of 3783 (ab12cd34; missing.csv 99ff99ff)" in text
    mean = next(row for row in rows if row.metric == "map" and row.value is not None)
    assert (mean.verdict, mean.complete_low) == ("no published value", None)
    other = {**TEST, **about, "expected_sha256": "0" * 64}
    put(empty, "zoo/ucf/test.json", other)
    record(empty, "zoo/ucf/test")
    verdicts = [row.verdict for row in report.write_report(empty).rows if row.metric == "top1"]
    assert "no verdict: other videos" in verdicts
    del other["missing_sha256"]  # of older runs
    put(empty, "zoo/ucf/test.json", {**other, "expected_sha256": UCF_LIST.videos_sha256})
    record(empty, "zoo/ucf/test")
    verdicts = [row.verdict for row in report.write_report(empty).rows if row.metric == "top1"]
    assert "within reach (92.5 to 97.4 on all 3,783; published 97)" in verdicts


def test_a_mean_over_splits_has_bounds_if_each_split_has(empty: Path):
    for i in (1, 2, 3):
        name = f"zero_shot_kinetics600_split{i}"
        known = named_set(f"k600/test_split{i}_exist.txt")
        section = {"dataset": f"kinetics600_split{i}", "full_top1": 70.0, "full_top1_ci95_low": 0.0}
        section |= {"videos_sha256": known.videos_sha256, "num_videos": known.num_videos}
        section |= {"num_expected": known.num_videos, "full_top1_ci95_high": 99.0}
        if i == 2:  # 14,067 videos, 1,407 of which are missing
            section |= {"num_videos": 12660, "videos_sha256": SHA}
            section |= {"expected_sha256": known.videos_sha256}
        put(empty, f"zoo/kinetics/{name}.json", {**SET, **section})
        record(empty, f"zoo/kinetics/{name}")
    (mean,) = [row for row in report.write_report(empty).rows if row.metric == "splits_top1_mean"]
    low, high = (70 * 2 + 100 * right / 14067 for right in (8862, 8862 + 1407))
    assert (mean.complete_low, mean.complete_high) == pytest.approx((low / 3, high / 3))
    assert mean.verdict == "within reach (67.7 to 71.0 on all 42,347; published 70)"


@pytest.mark.parametrize(
    ("top1", "changes", "verdict"),
    [
        (97.05, {}, "released weights: reproduced (within 0.1)"),
        (97.2, {}, "released weights: 0.2 above (tolerance 0.1)"),
        (97.05, {"train__lr": 1.0, "augment__flip": 0.0}, "released weights: reproduced"),
        (97.05, {"train__epochs": 3}, "modified: train.epochs"),
        (97.05, {"train__raw_clip_share": 0.5}, "modified: train.raw_clip_share"),
        (97.05, {"model__checkpoint": ""}, "modified: model.checkpoint"),
        (97.05, {"model__arch": "ViT-B/16"}, "modified: model.arch"),
    ],
)
def test_released_weights_are_judged_beside_the_trained_run(empty: Path, top1, changes, verdict):
    measured = {**TEST, "videos_sha256": UCF_LIST.videos_sha256}
    put(empty, "zoo/ucf/test.json", {**measured, "top1": 96.5})
    record(empty, "zoo/ucf/test")
    digest = {"checkpoint_sha256": "cd" * 32}
    put(empty, "zoo/ucf-released/test.json", {**measured, **digest, "top1": top1})
    released = {"train__epochs": 0, "model__checkpoint": "models/zoo/a.pt", **changes}
    record(empty, "zoo/ucf-released/test", **released)
    rows = report.write_report(empty).rows
    found = [row for row in rows if row.recipe == "zoo/ucf-released" and row.published == 97.0]
    assert [row.verdict.startswith(verdict) for row in found] == [True]
    assert found[0].checkpoint_sha256 == "cd" * 32
    assert len([row for row in rows if row.recipe == "zoo/ucf-released"]) == 4  # its results alone
    text = (empty / "RESULTS.md").read_text()
    names = [row[0] for row in cells(text.split("## Recipes without")[0]) if "zoo/ucf" in row[0]]
    assert names[-1] == "`zoo/ucf-released`"
    assert names[:-1] == ["`zoo/ucf`"] * 3
    if "reproduced" in verdict:
        runs = text.split("## Runs")[1]
        assert line(runs, "zoo/ucf-released")[-1] == found[0].verdict


def test_a_result_stands_beside_every_number_published_for_it(empty: Path):
    """Of two sources for the same views; and the authors' mAP with theirs."""
    recipe = yaml.safe_load((empty / "recipes/zoo/ucf.yaml").read_text())
    first = {**recipe["published"][0], "dataset": "ucf101", "source": "a log"}
    recipe["published"] += [
        {**first, "value": 97.5},
        {**first, "metric": "authors_map", "value": 99.0},
    ]
    (empty / "recipes/zoo/ucf.yaml").write_text(yaml.safe_dump(recipe))
    sha = named_set("ucf101/val_rgb_split_1.txt").videos_sha256
    put(empty, "zoo/ucf/test.json", {**TEST, "authors_map": 98.9, "videos_sha256": sha})
    record(empty, "zoo/ucf/test")
    rows = [row for row in report.write_report(empty).rows if row.recipe == "zoo/ucf"]
    found = [(row.published, row.verdict) for row in rows if row.metric == "top1" and row.value]
    assert found == [(97.0, "reproduced (within 0.3)"), (97.5, "0.4 below (tolerance 0.3)")]
    values = {row.metric: (row.published, row.verdict) for row in rows if "map" in row.metric}
    assert values["map"] == (None, "no published value")
    assert values["authors_map"] == (99.0, "reproduced (within 0.3)")


def test_a_run_without_published_rows_is_compared_with_the_expected_values(empty: Path):
    put(empty, "zoo/shapes/test.json", TEST)
    put(empty, "zoo/shapes/zero_shot_hmdb51.json", ZERO_SHOT)
    record(empty, "zoo/shapes/test")
    rows = report.write_report(empty).rows
    text = (empty / "RESULTS.md").read_text()
    assert line(full(empty, "zoo/shapes").split("hmdb51.")[0], "top-1")[2:] == [
        "97.5",
        "-0.4",
        "reproduced (within 0.5)",
    ]
    unrecorded = "zero-shot top-1 no verdict: settings not recorded"
    assert line(text, "zoo/shapes")[-1] == unrecorded
    record(empty, "zoo/shapes/zero_shot_hmdb51")
    rows = report.write_report(empty).rows
    text = (empty / "RESULTS.md").read_text()
    assert line(text, "zoo/shapes")[-1] == "zero-shot top-1 4.5 below (tolerance 3)"
    top1 = next(row for row in rows if row.metric == "top1" and row.recipe == "zoo/shapes")
    assert (top1.published, top1.expected) == (None, 97.5)
    put(empty, "zoo/shapes/zero_shot_hmdb51.json", {**ZERO_SHOT, "full_top1": 84.0})
    record(empty, "zoo/shapes/zero_shot_hmdb51")
    report.write_report(empty)
    assert line((empty / "RESULTS.md").read_text(), "zoo/shapes")[-1] == "reproduced"


def test_runs_of_two_machines_are_told_apart(root: Path):
    other = "torch 2, x86_64 AVX512; torch 2, x86_64 AVX2"
    put(root, "demo/zero_shot_hmdb51.json", {**ZERO_SHOT, "environment": other})
    rows = report.write_report(root).rows
    text = (root / "RESULTS.md").read_text()
    assert line(text, "demo")[-1] == f"torch 2, x86_64 AVX2 / {other}"
    assert line(text, "bike/vit-l")[-1] == "torch 2, x86_64 AVX2"
    assert {row.environment for row in rows if row.dataset == "hmdb51"} == {other}


def test_settings_of_another_run_give_no_verdict(empty: Path):
    put(empty, "zoo/shapes/test.json", TEST)
    record(empty, "zoo/shapes/test")
    put(empty, "zoo/shapes/test.json", {**TEST, "settings_sha256": "of another run"})
    rows = report.write_report(empty).rows
    verdicts = {row.verdict for row in rows if row.recipe == "zoo/shapes"}
    assert verdicts == {"no verdict: settings not recorded"}


def test_constant_columns_stand_above_their_table():
    header = ("Name", "Set", "Value", "Note")
    table = "| Name | Value |\n|------|-------|\n| a    | 1     |\n| a    | 2     |\n"
    rows = [("a", "ucf101", "1", ""), ("a", "ucf101", "2", "")]
    assert report._table(header, rows) == f"Set: ucf101.\n\n{table}"
    assert report._table(header, [rows[0], ("b", "hmdb51", "1", "")]) == (
        "Value: 1.\n\n| Name | Set    |\n|------|--------|\n| a    | ucf101 |\n| b    | hmdb51 |\n"
    )
    assert report._table(header, rows[:1]).splitlines()[2] == "| a    | ucf101 | 1     |      |"
    assert report._table(header, []).splitlines()[0] == "| Name | Set | Value | Note |"


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"model__arch": "ViT-B/16"}, "modified: model.arch"),
        ({"model__checkpoint": "a.pt"}, "modified: model.checkpoint"),
        ({}, "no verdict: other videos"),
    ],
)
def test_no_verdict_without_the_recipes_settings_and_videos(empty: Path, changes, verdict):
    put(empty, "zoo/ucf/test.json", TEST)
    record(empty, "zoo/ucf/test", **changes)
    rows = report.write_report(empty).rows
    assert next(row.verdict for row in rows if row.metric == "top1") == verdict
    words = "Videos of ucf101: at least 3543 videos differ from the published"
    assert words in full(empty, "zoo/ucf")


def test_the_mean_over_splits_needs_all_of_them(empty: Path):
    values = [69.0, 71.0, 72.0]
    for i, value in enumerate(values, 1):
        name = f"zero_shot_kinetics600_split{i}"
        sha = named_set(f"k600/test_split{i}_exist.txt").videos_sha256
        section = {"dataset": f"kinetics600_split{i}", "videos_sha256": sha, "full_top1": value}
        interval = {"full_top1_ci95_low": 0.0, "full_top1_ci95_high": 99.0}
        put(empty, f"zoo/kinetics/{name}.json", {**SET, **section, **interval})
        record(empty, f"zoo/kinetics/{name}")
        rows = report.write_report(empty).rows
        means = [row for row in rows if row.metric == "splits_top1_mean"]
        assert [row.value is None for row in means] == [i < 3]
    (mean,) = means
    assert mean.value == pytest.approx(212 / 3)
    assert mean.std == pytest.approx(1.2472191, abs=1e-6)  # ddof 0
    assert mean.num_videos == 3 * 240
    assert mean.verdict == "reproduced (within 1)"


def test_a_result_over_fewer_videos_says_how_many(empty: Path):
    """ActionCLIP's tests drop the last batch, so the fingerprint is of more videos."""
    authors = {"authors_top1": 96.5, "authors_top5": 99.5, "authors_num_videos": 192}
    authors |= {"authors_top1_ci95_low": 93.0, "authors_top1_ci95_high": 98.0}
    put(empty, "demo/test.json", {**TEST, **authors})
    rows = {row.metric: row for row in report.write_report(empty).rows if row.recipe == "demo"}
    assert (rows["authors_top1"].num_videos, rows["authors_top1"].videos_sha256) == (192, "")
    assert (rows["top1"].num_videos, rows["top1"].videos_sha256) == (240, SHA)
    run = full(empty, "demo")
    assert line(run, "top-1, authors' protocol")[:3] == [
        "top-1, authors' protocol",
        "96.5 (93.0 to 98.0)",
        "192 of 240",
    ]
    del authors["authors_num_videos"]
    put(empty, "demo/test.json", {**TEST, **authors})
    with pytest.raises(ConfigError, match=r"missing key authors_num_videos.*an older version: run"):
        report.write_report(empty)


@pytest.mark.parametrize("method", ["text4vis", "bike", "actionclip"])
def test_every_published_row_of_the_zoo_is_listed(method: str, tmp_path: Path):
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    put(tmp_path, "demo/test.json", TEST)
    rows = report.write_report(tmp_path).rows
    with open(ROOT / "src/clipzoo/reference/published.csv", newline="") as file:
        published = [row for row in csv.DictReader(file) if row["method"] == method]
    listed = [row for row in rows if row.recipe.startswith(f"{method}/")]
    assert len(listed) == len(published)
    assert {row.verdict for row in listed} == {"not run here"}
    text = (tmp_path / "RESULTS.md").read_text()
    assert text.count(f"\n| `{method}/") == len(published)
    assert "- `demo/head-none`: " in text


def test_a_report_reads_every_recipe_file_once(tmp_path: Path, monkeypatch):
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    put(tmp_path, "demo/test.json", TEST)
    put(tmp_path, "text4vis/k400-vitb32-f8/test.json", TEST)
    read, load = [], recipes.read_yaml
    monkeypatch.setattr(recipes, "read_yaml", lambda path: read.append(path) or load(path))
    report.write_report(tmp_path)
    assert sorted(read) == sorted((tmp_path / "recipes").rglob("*.yaml"))


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (None, None, "no metrics file"),
        ("demo/test.json", [1], r"demo/test\.json: the file: found \[1\]"),
        ("demo/test.json", {"map": 1.0}, r"(?s)demo/test\.json: .*missing key dataset"),
        (
            "demo/test.json",
            {**SET, "top1": 50.0, "ci95_low": 40.0, "ci95_high": 60.0},
            r"(?s)demo/test\.json: .*ci95_low, ci95_high.*top1_ci95_low.*zoo demo --again",
        ),
    ],
)
def test_bad_metrics_are_named(empty: Path, name: str | None, values: Any, message: str):
    if name:
        put(empty, name, values)
    with pytest.raises((ReportError, ConfigError), match=message):
        report.write_report(empty)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "is not JSON .*Expecting"),
        ('{"top1": NaN}', "top1: found nan; allowed: a finite number"),
        ("[-Infinity]", "found .-inf"),
    ],
)
def test_a_broken_metrics_file_is_named(tmp_path: Path, text: str, fault: str):
    put(tmp_path, "demo/test.json", {})
    (tmp_path / "metrics/demo/test.json").write_text(text)
    with pytest.raises((ReportError, ConfigError), match=rf"(?s)demo/test\.json: .*{fault}"):
        report.write_report(tmp_path)

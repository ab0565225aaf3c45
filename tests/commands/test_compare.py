"""The page of `compare` from small made-up runs, whose differences are known by hand."""

import json
from collections.abc import Callable, Set
from pathlib import Path
from typing import Any

import pytest
import torch

from clipzoo.__main__ import make_parser
from clipzoo.commands.compare import PAGE
from clipzoo.comparison.page import BENCHMARK
from clipzoo.comparison.runs import CompareError
from clipzoo.data.records import Record, videos_sha256
from clipzoo.evaluate import metrics, predictions
from clipzoo.evaluate.intervals import paired_interval
from clipzoo.files import json_sha256, write_json
from clipzoo.yaml_files import ConfigError

RECORDS = [Record(f"video {i}", 30, i % 3) for i in range(8)]
SETTINGS = {
    "recipe": "",
    "seed": 7,
    "data.dataset": "shapes",
    "data.zero_shot": ["unseen"],
    "model.weights": "demo",
    "model.method": "text4vis",
    "test.clips": 2,
    "test.crops": 1,
    "test.dense": False,
    "train.epochs": 20,
    "train.lr": 0.002,
    "text.templates": ["{}"],
    "text4vis.head": "Transf",
}


@pytest.fixture(autouse=True)
def _root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def probabilities(wrong: Set[int], num: int) -> torch.Tensor:
    """[N, 3]: the label is likeliest, except in some rows, where the next class is."""
    rows = [(RECORDS[i].label + (i in wrong)) % 3 for i in range(num)]
    return torch.eye(3)[rows]


def write_set(
    name: str,
    stem: str,
    wrong: Set[int],
    settings: dict[str, Any],
    num: int = 8,
    single: Set[int] | None = None,
) -> None:
    """The files of a set of videos, as the stages write them; `single` = wrong from one view."""
    records = RECORDS[:num]
    labels = torch.tensor([record.label for record in records])
    tensors = {"labels": labels, "probabilities": probabilities(wrong, num)}
    values = metrics.evaluate(tensors["probabilities"], labels)
    results = {key: values[key] for key in ("top1", "top1_ci95_low", "top1_ci95_high")}
    if stem != "test":
        tensors["raw_probabilities"] = probabilities({0, 1}, num)
        results = {f"full_{key}": value for key, value in results.items()}
        results |= {"half_top1_mean": 87.25, "half_top1_std": 2.5}
    plots = Path("plots") / name / stem
    if single is None:
        predictions.write_videos(plots, records, tensors)
    else:
        scores = probabilities(single, num)
        predictions.write_videos(plots, records, tensors, scores)
        of_one = metrics.evaluate(scores, labels)
        keys = ("top1", "top1_ci95_low", "top1_ci95_high")
        results |= {f"single_view_{key}": of_one[key] for key in keys}
    write_json(settings, plots / "settings.json")
    described = {
        "dataset": "shapes" if stem == "test" else "unseen",
        "protocol": f"clips {settings['test.clips']}, crops 1, uniform",
        "num_videos": num,
        "num_expected": num,
        "videos_sha256": videos_sha256([record.video_id for record in records]),
        "settings_sha256": json_sha256(settings),
        "environment": "torch 2.15.0, cpu",
    }
    write_json({**described, **results}, Path("metrics") / name / f"{stem}.json")


def write_run(
    name: str, wrong: Set[int] = frozenset(), unseen: Set[int] = frozenset(), **changes: Any
) -> None:
    """A finished run; `train__lr` changes the setting `train.lr`."""
    settings = {**SETTINGS, "recipe": name}
    settings |= {key.replace("__", "."): value for key, value in changes.items()}
    write_set(name, "test", wrong, settings)
    write_set(name, "zero_shot_unseen", unseen, settings)
    training = {"num_videos": 40, "videos_sha256": "0123456789abcdef", "steps": 100}
    write_json(training, Path("metrics") / name / "train.json")


def compare(*names: str) -> str:
    """Run the command; returns the page with single spaces."""
    arguments = make_parser().parse_args(["compare", *names])
    arguments.run(arguments)
    return " ".join(PAGE.read_text(encoding="utf-8").split())


def change_json(path: str, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(Path(path).read_text())
    change(values)
    write_json(values, path)


def test_differences_are_of_the_same_videos():
    """8 videos: 6 and 3 are right; 4 only in the first run, 1 only in the second."""
    write_run("a", wrong={0, 1})
    write_run("b", wrong={0, 2, 3, 4, 5}, unseen={2})
    text = compare("a", "b")
    low, high = paired_interval(4, 1, 8)
    assert f"| `a` - `b` | +37.5 ({low:+.1f} to {high:+.1f}) | 4 | 1 | not shown |" in text
    assert "| `a` | text4vis | 75.0 (" in text
    assert "| `b` | text4vis | 37.5 (" in text
    low, high = paired_interval(1, 0, 8)
    assert f"| `a` - `b` | +12.5 ({low:+.1f} to {high:+.1f}) | 1 | 0 | not shown |" in text
    assert "| `b` | text4vis | 87.5 (52.9 to 97.8) | 87.2 ± 2.5 |" in text
    assert "8 videos of unseen" in text


def test_runs_with_other_views_are_compared_by_a_single_one():
    """Of 2 views `a` has all videos right, of one 5; `b` has 7 right, and no second view."""
    write_run("a")
    write_run("b", wrong={0}, test__clips=1)
    write_set("a", "test", frozenset(), {**SETTINGS, "recipe": "a"}, single={1, 2, 3})
    text = compare("a", "b")
    low, high = paired_interval(1, 3, 8)
    assert f"| `a` - `b` | -25.0 ({low:+.1f} to {high:+.1f}) | 1 | 3 | not shown |" in text
    assert "the differences are those of a single view" in text
    assert "The views of the test do not matter to the paired differences" in text
    assert "| `a` | text4vis | 100.0 (67.6 to 100.0) | 62.5 (" in text
    change_json("metrics/a/test.json", lambda values: values.update(single_view_top1=75.0))
    with pytest.raises(CompareError, match=r"62\.5000; .* another single_view_top1, 75\.0"):
        compare("a", "b")


def test_dense_windows_are_not_paired_with_other_views():
    write_run("a", test__dense=True, test__clips=4)
    write_run("b")
    assert "The views differ, so there are no paired differences." in compare("a", "b")


def test_a_difference_that_the_videos_show_names_the_better_run():
    write_run("a", wrong=set(range(8)))
    write_run("b")
    low, high = paired_interval(0, 8, 8)
    # Of the share that is lost, Wilson's interval of 8 in 8 begins at 8 / (8 + z^2).
    assert (low, high) == pytest.approx((-100, 100 - 200 * 8 / (8 + 1.959964**2)), abs=1e-3)
    assert f"| -100.0 ({low:+.1f} to {high:+.1f}) | 0 | 8 | `b` |" in compare("a", "b")


def test_unequal_budgets_and_settings_are_named():
    write_run("a", text4vis__loss="ce")
    change = {"model__method": "bike", "train__epochs": 12, "train__lr": 0.01, "bike__loss": "nce"}
    write_run("b", **change)
    for stem in ("test", "zero_shot_unseen"):  # a method has its own section alone
        path = f"plots/b/{stem}/settings.json"
        change_json(path, lambda values: values.pop("text4vis.head"))
        sha = json_sha256(json.loads(Path(path).read_text()))
        change_json(f"metrics/b/{stem}.json", lambda v, sha=sha: v.update(settings_sha256=sha))
    text = compare("a", "b")
    assert "**The budgets are not equal**" in text
    assert "| `train.epochs` | 20 | 12 |" in text
    assert "| `train.lr` | 0.002 | 0.01 |" in text
    assert "| `model.method` | text4vis | bike |" in text
    assert "here `a`: `text4vis.head` Transf, `text4vis.loss` ce." in text
    assert "here `b`: `bike.loss` nce." in text
    assert "`data.dataset` shapes" in text.partition("Equal for all runs:")[2].partition("##")[0]
    assert "`seed`" not in text, "it is the same"


def test_equal_budgets_are_told_and_the_demo_is_no_real_data():
    write_run("a")
    write_run("b", model__weights="openai")
    write_run("c")
    write_run("d", model__weights="openai")
    text = compare("a", "c")
    assert "**" not in text
    assert "The budgets are equal: `data.dataset` shapes" in text
    assert "training videos 40 (01234567), optimizer steps 100." in text.replace("`", "")
    assert "rendered world" in text
    assert "rendered world" not in compare("b", "d")


def test_one_view_is_a_single_view():
    write_run("a", wrong={0}, test__clips=1)
    write_run("b", wrong={0})
    write_set("b", "test", {0}, {**SETTINGS, "recipe": "b"}, single={1, 2, 3, 4})
    text = compare("a", "b")
    value = "87.5 (52.9 to 97.8)"
    assert f"| `a` | text4vis | {value} | {value} |" in text
    assert f"| `b` | text4vis | {value} | 50.0 (21.5 to 78.5) |" in text
    assert "| `test.clips` | 1 | 2 |" in text


def test_equal_files_give_equal_bytes():
    write_run("a", wrong={3})
    write_run("b")
    compare("a", "b")
    first = PAGE.read_bytes()
    compare("a", "b")
    assert PAGE.read_bytes() == first
    assert first.endswith(b"\n")
    assert not first.endswith(b"\n\n")
    assert max(map(len, first.decode().splitlines()[:25])) <= 100, "the introduction"


def test_other_videos_are_refused():
    write_run("a")
    write_run("b")
    write_set("b", "test", set(), {**SETTINGS, "recipe": "b"}, num=7)
    with pytest.raises(CompareError, match=r"videos_sha256: [0-9a-f]+ in metrics/a/test\.json"):
        compare("a", "b")


def test_another_order_of_the_videos_is_refused():
    """The fingerprint is of the sorted ids."""
    write_run("a")
    write_run("b")
    path = Path("plots/b/test/videos.csv")
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *reversed(rows)]) + "\n")
    with pytest.raises(CompareError, match=r"order in plots/a/test/videos\.csv \(8 rows\)"):
        compare("a", "b")


@pytest.mark.parametrize(
    ("path", "match"),
    [
        ("metrics/b/test.json", r"metrics/b/test\.json: there is none.*make zoo RECIPES='b'"),
        ("metrics/b/train.json", r"metrics/b/train\.json: .*clipzoo zoo b --again"),
        ("metrics/b/zero_shot_unseen.json", r"metrics/b/zero_shot_unseen\.json: .*zoo b --again"),
        ("plots/b/test/videos.csv", r"plots/b/test/videos\.csv: .*zoo b --again"),
        ("plots/b/test/settings.json", r"plots/b/test/settings\.json: .*zoo b --again"),
    ],
)
def test_a_missing_file_says_what_to_run(path: str, match: str):
    write_run("a")
    write_run("b")
    Path(path).unlink()
    with pytest.raises(CompareError, match=match):
        compare("a", "b")
    assert not PAGE.exists()


def test_files_of_another_run_are_refused():
    write_run("a")
    write_run("b", wrong={1})
    Path("plots/b/test/videos.csv").write_bytes(Path("plots/a/test/videos.csv").read_bytes())
    with pytest.raises(
        CompareError, match=r"videos, top-1 100\.0000; metrics/b/test\.json .*87\.5"
    ):
        compare("a", "b")
    write_set("b", "test", set(), {**SETTINGS, "recipe": "b", "seed": 8})
    with pytest.raises(CompareError, match=r"metrics/b/: test\.json and zero_shot_unseen\.json"):
        compare("a", "b")


def test_runs_are_named_by_patterns_and_two_are_needed():
    for name in ("few/1", "few/2", "mine"):
        write_run(name)
    text = compare("few/*", "few/2", "mine")
    assert text.count("not shown |") == 2 * 3  # 3 pairs of 2 sets
    with pytest.raises(CompareError, match="found one run, mine"):
        compare("mine")
    with pytest.raises(CompareError, match=r"metrics/mime/test\.json: .*did you mean mine\?"):
        compare("mine", "mime")
    with pytest.raises(CompareError, match="demo/single-view/test"):  # the first method
        compare()


def test_zero_shot_sets_of_some_runs_are_named_and_not_compared():
    write_run("a")
    settings = {**SETTINGS, "recipe": "b", "data.zero_shot": []}
    write_run("b")
    write_set("b", "test", set(), settings)
    text = compare("a", "b")
    assert "## Zero-shot" not in text
    assert "not all of these runs have: unseen." in text


def test_multi_label_sets_have_no_top1_to_compare():
    write_run("a")
    write_run("b")
    change_json("metrics/b/test.json", lambda values: values.pop("top1"))
    with pytest.raises(CompareError, match=r"metrics/b/test\.json: no top1; .*one label a video"):
        compare("a", "b")


def test_long_values_are_cut_in_the_table():
    write_run("a", text__templates=["{}"])
    write_run("b", text__templates=["a video of {}"] * 16)
    start = json.dumps(["a video of {}"] * 16)[:58]
    assert f'| `text.templates` | ["{{}}"] | {start} … |' in compare("a", "b")


def test_the_benchmark_is_shown_and_marked_where_the_settings_are_others():
    for name in ("a", "b", "c"):
        write_run(name)
    assert "Not measured: `python benchmarks/methods.py`" in compare("a", "b")
    kinds = {"seconds": 0.5, "ratio": 1.25, "least": 1.1, "most": 2.0, "mb": 300.4}
    measured = {f"{key}_{kind}": kinds[kind] for key in ("step", "clip") for kind in kinds}
    measured["parameters"] = 2_101_761
    sha = json.loads(Path("metrics/a/test.json").read_text())["settings_sha256"]
    benchmark = {
        "machine": "a processor",
        "base": "a",
        "settings_sha256": {"a": sha, "b": "0" * 64},
        "cases": [{"title": "Small", "runs": {"a": measured, "b": measured}}],
    }
    write_json(benchmark, BENCHMARK)
    text = compare("a", "b", "c")
    cells = "500 ms | 1.25 (1.10 to 2.00) | 300 MB"
    assert f"| `b` | 2.10 M | {cells} | {cells} |" in text
    assert "| `c` | not measured |" in text
    assert "other settings than the runs above: b." in text
    change_json(str(BENCHMARK), lambda values: values["cases"][0]["runs"]["a"].pop("step_mb"))
    with pytest.raises(ConfigError, match=r"missing key cases\[0\]\.runs\.a\.step_mb"):
        compare("a", "b")
    change_json(str(BENCHMARK), lambda values: values.pop("cases"))
    with pytest.raises(ConfigError, match=r"json: missing key cases.*older .*/methods\.py"):
        compare("a", "b")


def test_the_page_of_the_docs_is_written_only_by_request():
    write_run("a", wrong={3})
    write_run("b")
    text = compare("a", "b")
    assert not Path("docs/comparison.md").exists()
    assert "`clipzoo compare a b` from" in text
    compare("a", "b", "--output", "docs/comparison.md")
    page = Path("docs/comparison.md").read_text(encoding="utf-8")
    assert "`clipzoo compare a b --output docs/comparison.md`\n" in page

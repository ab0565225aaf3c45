"""The card of a published recipe, from metrics files that are written here."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from clipzoo.config import Params
from clipzoo.report.recipes import load_recipe
from clipzoo.serve import card
from clipzoo.serve.folder import FolderConfig, FramesOfVideos
from clipzoo.tensors import WeightsError

ROOT = Path(__file__).parents[2]
RECIPE, MODEL = "text4vis/k400-vitb16-f8", "ab" * 32


def values(**changes: Any) -> dict[str, Any]:
    """A test.json of the recipe with 90 of 100 videos."""
    return {
        "dataset": "kinetics400",
        "protocol": "clips 4, crops 3, uniform",
        "num_videos": 90,
        "num_expected": 100,
        "videos_sha256": "cd" * 32,
        "missing_sha256": "ef" * 32,
        "settings_sha256": "12" * 32,
        "model_sha256": MODEL,
        "environment": "torch 2.9",
        "top1": 80.0,
        "top1_ci95_low": 70.6,
        "top1_ci95_high": 86.9,
        "top5": 95.5,
    } | changes


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """run(stem=values, ...): what the metrics files say, in a folder with all recipes."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    (tmp_path / "datasets").symlink_to(ROOT / "datasets")
    monkeypatch.chdir(tmp_path)

    def read(**files: dict[str, Any]) -> card.MeasuredRun:
        folder = Path("metrics") / RECIPE
        folder.mkdir(parents=True)
        for stem, content in files.items():
            (folder / f"{stem}.json").write_text(json.dumps(content))
        return card.read_run(RECIPE, MODEL)

    return read


def config(params: Params, kind: str = "open", **changes: Any) -> FolderConfig:
    content: dict[str, Any] = {
        "clip": {
            "arch": "ViT-B-16",
            "input_px": 224,
            "quick_gelu": True,
            "source": "/home/ann/openai.pt",
            "environment": "",
        },
        "method": "text4vis",
        "num_segments": 8,
        "options": {"head": "Transf"},
        "format": 1,
        "kind": kind,
        "frames": FramesOfVideos(size=params.frames.size, quality=3).model_dump(),
        "views": params.test.model_dump(),
        "templates": ["a video of a person {}."],
        "class_names": [f"class {i}" for i in range(400)],
        "recipe": RECIPE,
        "weights_sha256": "0",
        "version": "0.1.0",
    }
    return FolderConfig.model_validate(content | changes)


def test_a_card_says_what_is_missing(run):
    measured = run(test=values())
    params = load_recipe(RECIPE)[1]
    text = card.model_card(config(params), params, measured)
    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == "unknown"
    (result,) = front["model-index"][0]["results"]
    assert result["dataset"]["args"]["num_videos"] == 90
    metrics = {row["type"]: row for row in result["metrics"]}
    assert metrics["top1"]["args"] == {"ci95_low": 70.6, "ci95_high": 86.9}
    assert "args" not in metrics["top5"]
    assert "10 of 100 videos of kinetics400" in text
    assert "Classes other than its own." in text
    assert "the CLIP weights `openai` (ViT-B/16), the videos of kinetics400" in text.replace(
        " and the videos", ", the videos"
    )
    assert "/home" not in text
    assert "rendered shapes" not in text
    assert "class 29" in text
    assert "class 30" not in text
    assert "`config.json` has all." in text
    for row in measured.rows:
        if row.value is None:
            assert f"The published {row.result} on {row.dataset}" in text
    assert card.model_card(config(params), params, measured) == text


def test_the_results_have_one_file_for_each_dataset(run):
    zero_shot = values(dataset="ucf101", num_expected=90, full_top1=50.0, full_top5=70.0) | {
        "full_top1_ci95_low": 40.0, "full_top1_ci95_high": 60.0
    }  # fmt: skip
    files = card.result_files(run(test=values(), zero_shot_ucf101=zero_shot, train={
        "num_videos": 5, "videos_sha256": "0", "steps": 3}))  # fmt: skip
    assert list(files) == ["kinetics400.yaml", "ucf101.yaml"]
    entries = {e["dataset"]["task_id"]: e for e in yaml.safe_load(files["ucf101.yaml"])}
    assert entries["full_top1"]["value"] == 50.0
    assert "95% interval 40.00 to 60.00" in entries["full_top1"]["notes"]
    assert "90 of 90 videos (sha256 of their ids cdcd" in entries["full_top1"]["notes"]
    assert "top1" not in entries, "a key of tests is none of zero_shot"


def test_metrics_of_two_models_are_refused(run):
    with pytest.raises(WeightsError, match=r"zero_shot_ucf101\.json: was measured with another"):
        run(test=values(), zero_shot_ucf101=values(dataset="ucf101", model_sha256="0"))

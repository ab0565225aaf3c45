import copy
import json
from pathlib import Path
from typing import Any

import pytest

from parity import model
from parity.check import TOPICS, check, kind_of
from parity.command import main

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = (
    *("text4vis_model", "bike_model", "actionclip_model", "protocol", "preprocess", "scores"),
    *("next_schedules", "next_augmentation", "mote_model"),
)


def load(name: str) -> list[dict[str, Any]]:
    return json.loads((GOLDEN / f"{name}.json").read_text())


CASES = [(name, i, case) for name in FILES for i, case in enumerate(load(name))]


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=f"{name}-{i}-{kind_of(case)}") for name, i, case in CASES]
)
def test_golden_case(case: dict[str, Any]):
    assert check(case) == "ok"


def test_every_kind_of_the_golden_files_is_known():
    assert {kind_of(case) for _, _, case in CASES} <= set(TOPICS)


def whole_model(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(load("text4vis_model")[0]) | changes


def test_gelu_instead_of_quick_gelu_fails():
    assert check(whole_model(quick_gelu=True)) == "ok"
    assert "differs by" in check(whole_model(quick_gelu=False))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "None"}, "differs by"),
        ({"temporal_module": "tsm"}, "differs by"),
        ({"joint": True}, "frame_embeddings has shape [2, 64], golden [8, 64]"),
        ({"input_seed": 12}, "differs by"),
    ],
)
def test_another_model_or_input_fails(changes: dict[str, Any], message: str):
    case = whole_model(**changes)
    del case["checkpoint_shapes"], case["clip_shapes"], case["grad_norms"]
    assert message in check(case)


@pytest.mark.parametrize(
    ("name", "key", "factor"),
    [
        ("text4vis_model", "logits", 1.0003),
        ("text4vis_model", "loss", 1.0003),
        ("protocol", "values", 1.00001),
        ("scores", "probabilities", 1.00001),
        ("scores", "half_top1_std", 1.0001),
        ("preprocess", "probe", 1.05),
    ],
)
def test_a_small_difference_is_found(name: str, key: str, factor: float):
    case = copy.deepcopy(next(c for c in load(name) if key in c))
    case[key] = scale(case[key], factor)
    assert check(case).startswith(f"{key} differs by ")


def test_the_gradient_or_name_that_differs_is_named():
    case = whole_model()
    case["grad_norms"]["logit_scale"] *= 1.001
    assert check(case).startswith("grad_norms of logit_scale differs by 0.00348, allowed 0.000349")
    case = whole_model()
    case["checkpoint_shapes"]["visual.other"] = [1]
    assert check(case) == "checkpoint_shapes has no visual.other"


def scale(values: Any, factor: float) -> Any:
    return [scale(v, factor) for v in values] if isinstance(values, list) else values * factor


def test_a_single_wrong_index_is_found():
    case = copy.deepcopy(load("protocol")[0])
    case["indices"][3] += 1
    assert check(case) == "indices differs by 1, allowed 0"


def test_incomplete_and_overfull_cases_are_no_passes():
    case = load("protocol")[0]
    assert check({"kind": "val-uniform", "num_frames": 9}) == "missing input num_segments"
    assert check(case | {"color": 1}).startswith("unknown output color")
    inputs = {k: v for k, v in case.items() if k != "indices"}
    assert check(inputs).startswith("no output to compare")
    assert check({"kind": "val-triangular"}).startswith("unknown kind 'val-triangular'; known: ")


def resnet(**changes: Any) -> dict[str, Any]:
    clip = load("text4vis_model")[0]["clip"] | {
        "vision_layers": [1, 2, 1, 1],
        "vision_width": 8,
        "vision_patch_size": None,
    }
    names = ("num_segments", "class_names", "template", "batch", "input_seed", "labels", "head")
    case = load("text4vis_model")[0]
    return {"name": "text4vis-rn", "clip": clip, **{n: case[n] for n in names}} | changes


def test_resnet_towers_have_openai_names_and_batch_statistics_in_training():
    inputs = {k: v for k, v in resnet().items() if k != "name"}
    tested = model.text4vis(**inputs)
    trained = model.text4vis(**inputs, batch_statistics=True)
    shapes = tested["clip_shapes"]
    assert shapes["visual.layer2.1.conv2.weight"] == [16, 16, 3, 3]
    assert shapes["visual.layer3.0.downsample.1.running_var"] == [128]
    assert shapes["visual.attnpool.c_proj.weight"] == [64, 256]
    assert (tested["logits"] - trained["logits"]).abs().max() > 0.01
    assert tested["grad_norm_total"] == trained["grad_norm_total"]
    # Files of either mode agree.
    for result in (tested, trained):
        golden = {"loss": result["loss"].item(), "logits": result["logits"].tolist()}
        assert check(resnet(**golden)) == "ok"


def test_multi_step_schedules_have_a_kind():
    inputs = {"base_lr": 1e-3, "clip_ratio": 0.5, "epochs": 4, "warmup_epochs": 1}
    inputs |= {"iterations_per_epoch": 7, "update_every": 1, "milestones": [2, 3]}
    values = [[0, 0.0, 0.0], [7, 5e-4, 1e-3], [14, 5e-5, 1e-4], [21, 5e-6, 1e-5]]
    assert check({"kind": "warmup-multistep", **inputs, "values": values}) == "ok"


def test_multi_label_mean_average_precision():
    inputs = {"score_seed": 1, "label_seed": 2, "num_videos": 30, "num_classes": 4}
    inputs |= {"bonus": 50.0, "softmax": False, "multi_label": True}
    assert check({"kind": "mAP", **inputs, "mAP": 100.0}) == "ok"
    assert check({"kind": "mAP", **inputs, "bonus": -50.0, "mAP": 100.0}) != "ok"


def test_the_command_prints_a_line_a_case_and_fails_on_any(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    good, bad, broken = tmp_path / "good.json", tmp_path / "bad.json", tmp_path / "broken.json"
    case = load("protocol")[0]
    good.write_text(json.dumps([case]))
    bad.write_text(json.dumps([case | {"kind": "other"}, case]))
    broken.write_text("{")
    assert main([str(good)]) == 0
    assert capsys.readouterr().out == f"{good}[0] val-uniform: ok\n"
    assert main([str(bad), str(good)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.rsplit(": ", 1)[1] == "ok" for line in lines] == [False, True, True]
    assert main([str(broken)]) == 1
    assert str(broken) in capsys.readouterr().err
    assert main([]) == 2


@pytest.mark.parametrize(
    ("name", "kind", "changes", "message"),
    [
        ("next_schedules", "iteration-rates", {"schedule": "cosine"}, "rates differs by"),
        ("next_schedules", "iteration-rates", {"min_lr_share": 0.0}, "rates differs by"),
        ("next_schedules", "iteration-rates", {"warmup_start_share": 0.01}, "rates differs by"),
        ("next_augmentation", "mixed-clips", {"smoothing": 0.0}, "targets differs by"),
        ("next_augmentation", "mixed-clips", {"partners": [0, 1, 2, 3]}, "differs by"),
        ("next_augmentation", "augmented-clip", {"place": 0}, "differs by"),
        ("next_augmentation", "augmented-clip", {"short_side_px": 0}, "differs by"),
    ],
)
def test_another_schedule_or_augmentation_fails(name, kind, changes, message):
    case = next(c for c in load(name) if c["kind"] == kind and c.get("width") not in (340, 454))
    assert check(case) == "ok"
    assert message in check({**case, **changes})

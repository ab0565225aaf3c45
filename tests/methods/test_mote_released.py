"""Checkpoints as MoTE's authors released them, loaded into this project's model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clipzoo import methods
from clipzoo.config import Params, load_params, replace
from clipzoo.methods import bike, load_model, mote, new_model, save_model
from clipzoo.methods.parts.raw import frame_embeddings
from clipzoo.paths import MODEL_FILE
from clipzoo.tensors import WeightsError
from parity.inputs import fill
from parity.model import build_towers
from parity.mote import build_trained, embed, frames_of, mixed, mote_options
from tiny import demo_towers

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "mote_model.json"
TRAINED = "fusion_model.spe_cls_feature"


def params(path: str | Path, **options: Any) -> Params:
    """A run that evaluates a released file."""
    full = load_params(ROOT / "params.yaml")
    values = {**full.methods["mote"], "head_layers": 1, "num_experts": 2, **options}
    changes = {f"mote.{key}": value for key, value in values.items()}
    own = {"model.method": "mote", "model.input_px": 32, "model.checkpoint": str(path)}
    return replace(full, {**own, **changes, "train.epochs": 0})


def content_of(model: nn.Module) -> dict[str, Any]:
    """What the authors' `epoch_saving` writes of a model."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    head = {k.removeprefix("fusion_model."): v for k, v in state.items() if "fusion_model." in k}
    vision = {k: v for k, v in state.items() if "fusion_model." not in k}
    return {
        "epoch": 29,
        "model_state_dict": vision,
        "fusion_model_state_dict": head,
        "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 3.5e-6}]},
    }


def released(num_classes: int = 7) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The content of a file after training on some classes, and the model that it must give."""
    model = mote.Mote(demo_towers(1), mote.Options(**params("-").options), 8)
    nn.init.constant_(model.logit_scale, 4.75)
    known = torch.rand(num_classes, 128)
    model.fusion_model.spe_cls_feature = nn.functional.normalize(known, dim=-1)
    return content_of(model), model.state_dict()


@pytest.mark.parametrize("form", ["plain", "module", "fp16"])
def test_released_files_load(
    clip: nn.Module, tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
):
    content, trained = released()
    for key in ("model_state_dict", "fusion_model_state_dict"):
        prefix = "module." if form == "module" else ""
        content[key] = {f"{prefix}{name}": value for name, value in content[key].items()}
        if form == "fp16":
            content[key] = {name: value.half() for name, value in content[key].items()}
    torch.save(content, tmp_path / "released.pt")
    model, metadata = new_model(params(tmp_path / "released.pt"))
    unread = "released.pt: keys that are not read: epoch, optimizer_state_dict"
    assert capsys.readouterr().out.count(unread) == 1
    state = model.state_dict()
    assert state.keys() == trained.keys()
    assert state[TRAINED].shape == (7, 128)
    for name, value in trained.items():
        expected = value.half().float() if form == "fp16" else value
        torch.testing.assert_close(state[name], expected, rtol=0, atol=0)
    # The model file keeps the number of classes, which no parameter of the run says.
    save_model(model, MODEL_FILE, metadata)
    again = load_model(params(tmp_path / "released.pt"))
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())


def test_a_file_of_the_optimizer_left_out_loads_and_one_of_other_blocks_does_not(
    clip: nn.Module, tmp_path: Path
):
    content, _ = released()
    del content["optimizer_state_dict"]
    torch.save(content, tmp_path / "released.pt")
    new_model(params(tmp_path / "released.pt"))
    for options, message in (
        ({"head_layers": 2}, r"found 1 layers in its head; mote\.head_layers is 2; set it to 1"),
        ({"num_experts": 4}, r"found 2 experts in its head; mote\.num_experts is 4"),
        ({"num_experts": 1}, r"found 2 experts in its head; mote\.num_experts is 1"),
    ):
        with pytest.raises(WeightsError, match=rf"released\.pt does not fit.*{message}"):
            new_model(params(tmp_path / "released.pt", **options))


@pytest.mark.parametrize(
    ("known", "found"),
    [
        (torch.zeros(0, 128), r"found the shape \[0, 128\]; allowed"),
        (torch.ones(128), r"found the shape \[128\]; allowed"),
        (torch.zeros(400, 128), r"\[400, 128\], 400 rows .* row 0 of length 0;"),
        (torch.eye(5) * torch.tensor([1, 1, 1.02, 1, 1]), r"1 rows .* row 2 of length 1\.02;"),
        (torch.full((1, 8), torch.nan), "1 rows .* row 0 of length nan;"),
    ],
    ids=["no classes", "a vector", "zeros", "another length", "nan"],
)
def test_classes_trained_on_must_be_known(known: Tensor, found: str):
    """Otherwise the modulation would be wrong, without any other error."""
    content, _ = released()
    content["fusion_model_state_dict"]["spe_cls_feature"] = known
    with pytest.raises(WeightsError, match=rf"a\.pt: spe_cls_feature, .*{found}"):
        mote.read_released(content, "a.pt")


def test_other_files_are_refused():
    content, _ = released()
    without_experts = r"a separate head without experts, as in files of BIKE \(model\.method bike\)"
    missing = r"fusion_model_state_dict: missing .*; found .*; allowed: .*mlp\.fc_up"
    head = content["fusion_model_state_dict"]
    for other, message in (
        ({"mlp.c_fc.weight": torch.zeros(2, 2)}, without_experts),
        ({}, without_experts),
        ({k: v for k, v in head.items() if k != "spe_cls_feature"}, missing),
        (None, missing),
    ):
        with pytest.raises(WeightsError, match=rf"a\.pt: .*{message}"):
            mote.read_released({**content, "fusion_model_state_dict": other}, "a.pt")
    vision = {k: v for k, v in content["model_state_dict"].items() if k != "logit_scale"}
    with pytest.raises(WeightsError, match=r"a\.pt: model_state_dict: missing logit_scale"):
        mote.read_released({**content, "model_state_dict": vision}, "a.pt")
    with pytest.raises(WeightsError, match=r"a\.pt: .*mlp\.fc_up.*model\.method mote"):
        bike.read_released(content, "a.pt")


@torch.no_grad()
def test_a_released_file_scores_as_the_authors_code_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """From the file to the scores of their test_zeroshot.py, both of which this code prints."""
    case = json.loads(GOLDEN.read_text())[0]
    size, segments = case["clip"], case["num_segments"]
    options = {key: case[key] for key in ("head_layers", "num_experts")}
    arguments = (size, mote_options(**options), segments, case["trained_class_names"])
    trained, raw = build_trained(*arguments)
    other = build_towers(size)  # `new_model` takes it apart
    fill(other, "raw.")
    torch.save(content_of(trained), tmp_path / "released.pt")
    about = {"arch": "ViT-demo-16", "quick_gelu": True}
    monkeypatch.setattr(methods, "load_clip", lambda: (other, about))
    run = replace(params(tmp_path / "released.pt", **options), {"model.num_segments": segments})
    model, _ = new_model(run)
    assert isinstance(model, mote.Mote)
    mixed(model.eval(), raw, case["raw_clip_share"])
    videos, views = case["num_videos"], case["num_views"]
    frames = frames_of(case["input_seed"], videos * views, segments, size["image_resolution"])
    text = embed(raw, case["class_names"], size["context_length"])
    features = model.features(frame_embeddings(model.visual, frames)).unflatten(0, (videos, views))
    scores = model.score(features, text).softmax(dim=-1)  # theirs are of two softmaxes
    np.testing.assert_allclose(scores, case["twice"], rtol=0, atol=1e-6)
    model.options = mote_options(view_fusion="cosines", **options)
    np.testing.assert_allclose(model.score(features, text), case["by_cosines"], rtol=0, atol=1e-5)

"""Checkpoints as Open-VCLIP's authors release them, evaluated by this project."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from clipzoo.config import Params, load_params, replace
from clipzoo.methods import bike, new_model, openvclip, text4vis
from clipzoo.models import archives
from clipzoo.models.clip import save_clip
from clipzoo.tensors import WeightsError
from clipzoo.train.raw_clip import patch, raw_tensors
from parity.inputs import class_text, noise, parameter
from parity.openvclip import trained_parameter
from tiny import demo_towers

ROOT = Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / "tests/golden/openvclip_released.json").read_text())


def params(path: Path) -> Params:
    """A run that starts from a released file."""
    own = {"model.method": "openvclip", "model.input_px": 32, "model.checkpoint": str(path)}
    return replace(load_params(ROOT / "params.yaml"), own)


def released(clip: nn.Module) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The content of a file after training, and the tensors that the model must have."""
    state = {name: value.clone() for name, value in clip.state_dict().items()}
    other = {k: v for k, v in demo_towers(1).state_dict().items() if k.startswith("visual.")}
    trained = {**other, "logit_scale": torch.tensor(4.25)}
    whole = {f"model.{name}": value for name, value in (state | trained).items()}
    return {"model_state": whole}, trained


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"share-{case['raw_clip_share']}")
@torch.no_grad()
def test_a_released_file_gives_the_scores_of_the_authors_evaluation(
    case: dict[str, Any], clip: nn.Module, tmp_path: Path
):
    """Weights, logits of each view, and the order of their sums, within 1e-5."""
    state = clip.state_dict()
    for name, value in state.items():
        value.copy_(parameter(name, value.shape))
    save_clip(clip, "models/clip.safetensors", arch="ViT-demo-16", input_px=32, source="a test")
    whole = {f"model.{name}": trained_parameter(name, value) for name, value in state.items()}
    torch.save({"model_state": whole}, tmp_path / "swa_2_22.pth")
    segments = {"model.num_segments": case["num_segments"]}
    model, _ = new_model(replace(params(tmp_path / "swa_2_22.pth"), segments))
    assert isinstance(model, openvclip.OpenVclip)
    patch(model, raw_tensors(), case["raw_clip_share"])
    text = class_text(
        functional.normalize(noise(case["text_seed"], case["num_classes"], 128))[None]
    )
    px, views = case["input_px"], (case["batch"], case["views"])
    pixels = noise(case["input_seed"], views[0] * views[1], case["num_segments"], 3, px, px)
    features = model.eval().video_embeddings(pixels)  # [B V, D]
    logits = openvclip.video_logits(features, text)  # [B V, K]
    torch.testing.assert_close(logits, torch.tensor(case["logits"]), rtol=1e-5, atol=1e-5)
    score = model.score(features.unflatten(0, views), text)  # [B, K]
    summed = torch.tensor(case["summed_logits"])
    torch.testing.assert_close(score, (summed / views[1]).softmax(-1), rtol=0, atol=1e-5)
    assert (score.argsort() == summed.argsort()).all()


@pytest.mark.parametrize("form", ["plain", "module", "fp16", "epoch"])
def test_released_files_load(
    clip: nn.Module, tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
):
    content, trained = released(clip)
    state = content["model_state"]
    if form == "module":
        content["model_state"] = {f"module.{name}": value for name, value in state.items()}
    if form == "fp16":
        content["model_state"] = {name: value.half() for name, value in state.items()}
    if form == "epoch":  # a checkpoint of their training, as PySlowFast saves it
        content |= {"epoch": 21, "optimizer_state": {}, "cfg": "TRAIN: {}"}
    torch.save(content, tmp_path / "swa_2_22.pth")
    model, metadata = new_model(params(tmp_path / "swa_2_22.pth"))
    assert model.state_dict().keys() == trained.keys()
    for name, value in model.state_dict().items():
        expected = trained[name].half().float() if form == "fp16" else trained[name]
        torch.testing.assert_close(value, expected, rtol=0, atol=0)
    assert metadata["clip"]["quick_gelu"]
    unread = "keys that are not read: epoch, optimizer_state, cfg"
    assert (unread in capsys.readouterr().out) == (form == "epoch")


def test_another_text_tower_is_refused(clip: nn.Module, tmp_path: Path):
    content, _ = released(clip)
    name = "model.transformer.resblocks.0.mlp.c_fc.weight"
    content["model_state"][name] = content["model_state"][name] * 1.01
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"other\.pth: its text tower .*c_fc\.weight: differs"):
        new_model(params(tmp_path / "other.pth"))


def test_files_of_other_methods_are_refused(clip: nn.Module):
    content, trained = released(clip)
    with pytest.raises(WeightsError, match=r"a\.pth: missing text_projection; found visual"):
        openvclip.read_released({"model_state_dict": trained}, "a.pth")
    head = {"epoch": 1, "model_state_dict": trained, "fusion_model_state_dict": {}}
    with pytest.raises(WeightsError, match="found fusion_model_state_dict"):
        openvclip.read_released(head, "a.pth")
    for other in (text4vis, bike):
        with pytest.raises(WeightsError, match=r"Open-VCLIP \(model\.method openvclip\)"):
            other.read_released(content, "a.pth")


def test_names_keep_a_model_that_not_all_of_them_begin_with():
    tensors = {"model.a": torch.zeros(1), "b": torch.zeros(1)}
    assert archives.stored_tensors(tensors, "a.pth").keys() == tensors.keys()
    del tensors["b"]
    assert archives.stored_tensors(tensors, "a.pth").keys() == {"a"}

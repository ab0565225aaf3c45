"""A checkpoint's towers have the activation of the CLIP weights, which embed the class texts."""

import copy
from pathlib import Path

import pytest
import torch
from open_clip import factory, get_model_config

from clipzoo import methods
from clipzoo.config import Params, load_params, replace
from clipzoo.models.clip import build_clip, load_clip, save_clip
from clipzoo.models.pixels import OPENAI, PIXELS, Pixels
from clipzoo.tensors import WeightsError

ROOT = Path(__file__).parents[2]
ARCH, PX = "ViT-demo-both", 32


@pytest.fixture(autouse=True)
def architectures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's for fewer words, with GELU and with QuickGELU."""
    config = copy.deepcopy(get_model_config("ViT-demo-16"))
    assert config is not None
    config["text_cfg"]["vocab_size"] = 64
    for name, quick in ((ARCH, False), (f"{ARCH}-quickgelu", True)):
        monkeypatch.setitem(factory._MODEL_CONFIGS, name, {**config, "quick_gelu": quick})
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)


def prepare(*, quick_gelu: bool, pixels: Pixels = OPENAI) -> None:
    model = build_clip(ARCH, PX, quick_gelu=quick_gelu or None, pixels=pixels)
    save_clip(model, "models/clip.safetensors", arch=ARCH, input_px=PX, source="clip.pt")


def params(method: str, checkpoint: str) -> Params:
    values = {"method": method, "arch": ARCH, "input_px": PX, "checkpoint": checkpoint}
    changes = {f"model.{key}": value for key, value in values.items()}
    return replace(load_params(ROOT / "params.yaml"), changes)


@pytest.mark.parametrize("method", ["text4vis", "bike", "bike_attributes", "actionclip"])
def test_a_released_file_needs_weights_with_quick_gelu(method: str):
    prepare(quick_gelu=False)
    state = {f"visual.{name}": v for name, v in load_clip()[0].visual.state_dict().items()}  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
    torch.save({"model_state_dict": state}, "released.pt")
    with pytest.raises(WeightsError, match=r"released\.pt: its towers have QuickGELU") as caught:
        methods.new_model(params(method, "released.pt"))
    for part in (
        "have GELU",
        "model.weights clip.pt",
        "model.activation",
        f"{ARCH}-quickgelu",
        "openai",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_a_model_file_needs_weights_with_its_activation(quick_gelu: bool):
    prepare(quick_gelu=quick_gelu)
    model, metadata = methods.new_model(params("text4vis", ""))
    methods.save_model(model, "model.safetensors", metadata)
    again, _ = methods.new_model(params("text4vis", "model.safetensors"))
    torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)
    prepare(quick_gelu=not quick_gelu)
    own = "QuickGELU" if quick_gelu else "GELU"
    with pytest.raises(WeightsError, match=rf"model\.safetensors: its towers have {own}, but"):
        methods.new_model(params("text4vis", "model.safetensors"))


def test_a_model_file_needs_weights_with_its_pixels():
    prepare(quick_gelu=True, pixels=PIXELS["half"])
    model, metadata = methods.new_model(params("text4vis", ""))
    assert model.pixels == PIXELS["half"]
    methods.save_model(model, "model.safetensors", metadata)
    assert methods.load_model(params("text4vis", ""), "model.safetensors").pixels == model.pixels
    prepare(quick_gelu=True)
    with pytest.raises(WeightsError, match=r"safetensors: was trained .* mean 0\.5 .* models/clip"):
        methods.new_model(params("text4vis", "model.safetensors"))

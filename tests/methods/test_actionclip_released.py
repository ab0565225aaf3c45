"""Checkpoints as ActionCLIP's authors released them, loaded into this project's model."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clipzoo.config import Params, load_params, replace
from clipzoo.methods import actionclip, bike, new_model
from clipzoo.models.clip import build_clip, save_clip
from clipzoo.tensors import WeightsError

ROOT = Path(__file__).parents[2]
UNUSED = "module.frame_position_embeddings.weight"


def params(path: Path, **options: Any) -> Params:
    """A run that starts from a released file."""
    full = load_params(ROOT / "params.yaml")
    values = {**full.methods["actionclip"], "head_layers": 1, **options}
    changes = {f"actionclip.{key}": value for key, value in values.items()}
    start = {"model.method": "actionclip", "model.input_px": 32, "model.checkpoint": str(path)}
    return replace(full, {**start, **changes})


def towers(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build_clip("ViT-demo-16", 32)


@pytest.fixture(autouse=True)
def clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """The CLIP of models/clip.safetensors in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    model = towers(0)
    save_clip(model, "models/clip.safetensors", arch="ViT-demo-16", input_px=32, source="a test")
    return model


def is_half(name: str) -> bool:
    """Whether the authors train a tensor in float16: of convolutions, linear and attention layers,
    and projections, but not of embeddings, norms and the scale."""
    if name.split(".")[-1] in ("proj", "text_projection", "in_proj_weight", "in_proj_bias"):
        return True
    return any(part in name for part in ("conv1.", "c_fc.", "c_proj.", "out_proj."))


def released(**options: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The content of a file after training, with a text tower of its own, and the tensors by this
    project's names."""
    module = actionclip.build(
        towers(1), actionclip.Options(**params(Path("-"), **options).options), 8
    )
    nn.init.constant_(module.logit_scale, 4.75)
    tensors = {name: value.clone() for name, value in module.state_dict().items()}
    head = {n: v for n, v in tensors.items() if n.startswith("fusion_model.")}
    clip = {n: v for n, v in tensors.items() if n not in head}
    rounded = {n: v.half() if is_half(n) else v for n, v in clip.items()}
    assert {v.dtype for v in rounded.values()} == {torch.float16, torch.float32}
    return {
        "epoch": 49,
        "model_state_dict": {n.removeprefix("text.tower."): v for n, v in rounded.items()},
        "fusion_model_state_dict": {
            n.replace("fusion_model.", "module."): v for n, v in head.items()
        },
        "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 5e-6}]},
    }, {n: v.float() for n, v in (rounded | head).items()}


@pytest.mark.parametrize(
    "options",
    [{"head": name} for name in ("meanP", "Conv_1D", "LSTM", "Transf", "Transf_cls")]
    + [{"head": "meanP", "temporal_module": "tsm"}],
    ids=str,
)
def test_released_files_load(options: dict[str, Any], tmp_path: Path):
    content, tensors = released(**options)
    positions = options["head"] != "meanP"
    assert (UNUSED in content["fusion_model_state_dict"]) is positions
    names = content["model_state_dict"]
    shifts = "visual.transformer.resblocks.0.net.mlp.c_fc.weight" in names
    assert shifts is ("temporal_module" in options)
    torch.save(content, tmp_path / "released.pt")
    model, metadata = new_model(params(tmp_path / "released.pt", **options))
    state = model.state_dict()
    assert state.keys() == tensors.keys()
    for name, value in tensors.items():
        torch.testing.assert_close(state[name], value, rtol=0, atol=0, msg=name)
    assert metadata["clip"]["quick_gelu"]


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("fusion_model_state_dict", UNUSED),
        ("model_state_dict", "ln_final.weight"),
    ],
)
def test_a_missing_or_additional_tensor_is_refused(part: str, name: str, tmp_path: Path):
    content, _ = released(head="LSTM")
    value, path = content[part].pop(name), tmp_path / "released.pt"
    torch.save(content, path)
    plain = name.removeprefix("module.")
    with pytest.raises(WeightsError, match=rf"(?s)released\.pt.*missing \S*{plain}"):
        new_model(params(path, head="LSTM"))
    content[part] |= {name: value, f"{name}_other": value}
    torch.save(content, path)
    with pytest.raises(WeightsError, match=rf"(?s)released\.pt.*unexpected \S*{plain}_other"):
        new_model(params(path, head="LSTM"))
    with pytest.raises(WeightsError, match=r"(?s)released\.pt.*fusion_model"):
        new_model(params(path, head="Transf"))


def test_a_frozen_text_tower_must_be_that_of_the_weights(clip: nn.Module, tmp_path: Path):
    content, tensors = released()
    path = tmp_path / "released.pt"
    torch.save(content, path)
    with pytest.raises(WeightsError, match=r"released\.pt: its text tower .*text_tower trained"):
        new_model(params(path, text_tower="frozen"))
    content["model_state_dict"] |= {
        name: value.half() if is_half(name) else value
        for name, value in clip.state_dict().items()
        if not name.startswith(("visual.", "logit_"))
    }
    torch.save(content, path)
    model, _ = new_model(params(path, text_tower="frozen"))
    assert model.state_dict().keys() == {n for n in tensors if not n.startswith("text.")}


def test_files_of_other_methods_are_refused():
    content, _ = released()
    vision = {k: v for k, v in content["model_state_dict"].items() if k != "text_projection"}
    with pytest.raises(WeightsError, match="missing text_projection"):
        actionclip.read_released({**content, "model_state_dict": vision}, "a.pt")
    with pytest.raises(WeightsError, match=r"a\.pt: found no head, .*visual"):
        actionclip.read_released({"model_state_dict": {"visual.proj": torch.zeros(2)}}, "a.pt")
    head = {"sentence_fc.0.weight": torch.zeros(2, 2)}
    with pytest.raises(WeightsError, match=r"sentence_fc.*model\.method bike_attributes"):
        actionclip.read_released({**content, "fusion_model_state_dict": head}, "a.pt")
    # BIKE's video branch has the same two dicts; its text tower is compared, and differs.
    assert "visual.proj" in bike.read_released(content, "a.pt")

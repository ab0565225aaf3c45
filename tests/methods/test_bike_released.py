"""Checkpoints as BIKE's authors released them, loaded into this project's model."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clipzoo.config import Params, load_params, replace
from clipzoo.methods import bike, new_model, text4vis
from clipzoo.methods.parts.released import check_text_tower
from clipzoo.models import archives
from clipzoo.tensors import WeightsError
from tiny import demo_towers, text4vis_options

ROOT = Path(__file__).parents[2]
POSITIONS = "frame_position_embeddings.weight"


def params(path: Path, **options: Any) -> Params:
    """A run that starts from a released file."""
    full = load_params(ROOT / "params.yaml")
    values = {**full.methods["bike"], "head_layers": 1, **options}
    changes = {f"bike.{key}": value for key, value in values.items()}
    own = {"model.method": "bike", "model.input_px": 32, "model.checkpoint": str(path)}
    return replace(full, {**own, **changes})


def released(clip: nn.Module, **options: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The content of a file after training, and the model that it must give."""
    state = {name: value.clone() for name, value in clip.state_dict().items()}
    model = bike.Bike(demo_towers(1), bike.Options(**params(Path("-"), **options).options), 4)
    nn.init.constant_(model.logit_scale, 4.75)
    trained = {name: value.clone() for name, value in model.state_dict().items()}
    head = {k.removeprefix("fusion_model."): v for k, v in trained.items() if "fusion" in k}
    vision = {k: v for k, v in trained.items() if "fusion" not in k}
    content = {"epoch": 19, "model_state_dict": state | vision, "fusion_model_state_dict": head}
    return content | {
        "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 5e-6}]}
    }, trained


@pytest.mark.parametrize(
    ("form", "head"),
    [("plain", "Transf"), ("module", "Transf"), ("fp16", "Transf"), ("plain", "None")],
)
def test_released_files_load(
    clip: nn.Module, tmp_path: Path, form: str, head: str, capsys: pytest.CaptureFixture[str]
):
    content, trained = released(clip, head=head)
    for key in ("model_state_dict", "fusion_model_state_dict"):
        prefix = "module." if form == "module" else ""
        content[key] = {f"{prefix}{name}": value for name, value in content[key].items()}
        if form == "fp16":
            content[key] = {name: value.half() for name, value in content[key].items()}
    torch.save(content | {"model_ema": {}}, tmp_path / "released.pt")
    model, metadata = new_model(params(tmp_path / "released.pt", head=head))
    unread = "released.pt: keys that are not read: epoch, optimizer_state_dict, model_ema"
    assert capsys.readouterr().out.count(unread) == 1
    state = model.state_dict()
    assert state.keys() == trained.keys()
    assert any(name.startswith("fusion_model.") for name in state) == (head == "Transf")
    for name, value in trained.items():
        expected = value.half().float() if form == "fp16" else value
        torch.testing.assert_close(state[name], expected, rtol=0, atol=0)
    assert metadata["clip"]["quick_gelu"]


def test_frame_positions_that_a_head_none_never_used_are_left_out(clip: nn.Module, tmp_path: Path):
    content, _ = released(clip, head="None")
    content["fusion_model_state_dict"][POSITIONS] = torch.zeros(77, 128)
    torch.save(content, tmp_path / "released.pt")
    model, _ = new_model(params(tmp_path / "released.pt", head="None"))
    assert not any("fusion_model" in name for name in model.state_dict())
    with pytest.raises(WeightsError, match="missing fusion_model"):
        new_model(params(tmp_path / "released.pt", head="Transf"))


def test_another_text_tower_is_refused(clip: nn.Module, tmp_path: Path):
    """embed_labels would give other class texts than the file's model was trained with."""
    content, _ = released(clip)
    name = "transformer.resblocks.0.mlp.c_fc.weight"
    state = content["model_state_dict"]
    for changed, message in (
        (state[name] * 1.01, f"{name}: differs by up to"),
        (state[name][:1], f"{name}: found the shape"),
        (None, f"{name}: missing"),
    ):
        tensors = {k: v for k, v in state.items() if k != name}
        tensors |= {} if changed is None else {name: changed}
        torch.save({**content, "model_state_dict": tensors}, tmp_path / "other.pt")
        message = rf"other\.pt: its text tower .*{message}.*openai for released files\)$"
        with pytest.raises(WeightsError, match=message):  # no option of BIKE trains it
            new_model(params(tmp_path / "other.pt"))


def test_the_methods_refuse_each_others_files(clip: nn.Module, tmp_path: Path):
    content, _ = released(clip)
    with pytest.raises(WeightsError, match=r"a\.pt.*fusion_model_state_dict.*model.method bike"):
        text4vis.read_released(content, "a.pt")
    state = text4vis.Text4Vis(demo_towers(0), text4vis_options(), 4).state_dict()
    with pytest.raises(
        WeightsError, match=r"a\.pt: found fusion_model\.\*, .*model\.method text4vis"
    ):
        bike.read_released({"epoch": 1, "model_state_dict": state}, "a.pt")
    with pytest.raises(WeightsError, match="found no head"):
        bike.read_released(dict(clip.state_dict()), "a.pt")
    vision = {k: v for k, v in content["model_state_dict"].items() if k.startswith("visual.")}
    with pytest.raises(WeightsError, match="missing logit_scale, text_projection"):
        bike.read_released({**content, "model_state_dict": vision}, "a.pt")
    head = {"query_fc.0.weight": torch.zeros(2, 2)}
    with pytest.raises(WeightsError, match=r"query_fc.*model.method bike_attributes"):
        bike.read_released({**content, "fusion_model_state_dict": head}, "a.pt")


def test_a_file_without_a_text_tower_has_none_to_compare(clip: nn.Module, tmp_path: Path):
    """That of Text4Vis."""
    state = {name: v for name, v in clip.state_dict().items() if name.startswith("visual.")}
    torch.save({"model_state_dict": state}, tmp_path / "a.pt")
    content = archives.read_file(tmp_path / "a.pt")
    check_text_tower(content, {"token_embedding.weight": torch.zeros(2, 2)}, "a.pt")

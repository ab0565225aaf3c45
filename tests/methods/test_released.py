"""Checkpoints that Text4Vis's authors released, loaded into this project's model."""

from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip.model import CLIP
from torch import Tensor

from clipzoo.methods import METHODS
from clipzoo.methods.text4vis import Text4Vis, read_released
from clipzoo.models import archives
from clipzoo.models.clip import load_strictly
from clipzoo.tensors import WeightsError
from tiny import text4vis_options

RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None}
VIT = {"image_size": 64, "layers": 4, "width": 128, "patch_size": 16}
TEXT = {"context_length": 12, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 2}


def towers(vision: dict[str, Any] = VIT) -> CLIP:
    """By default the sizes of ViT-demo-16."""
    torch.manual_seed(0)
    return CLIP(128, vision, TEXT, quick_gelu=True)  # pyright: ignore[reportArgumentType]


def model(vision: dict[str, Any] = VIT, **options: Any) -> Text4Vis:
    return Text4Vis(towers(vision), text4vis_options(**options), 3)


def load_released(path: Path) -> dict[str, Tensor]:
    return read_released(archives.read_file(path), str(path))


def save(tensors: dict[str, Tensor], path: Path, form: str = "full") -> Path:
    if form == "module":
        tensors = {f"module.{name}": value for name, value in tensors.items()}
    if form == "fp16":
        tensors = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
    torch.save(tensors if form == "bare" else {"epoch": 7, "model_state_dict": tensors}, path)
    return path


@pytest.mark.parametrize("form", ["full", "bare", "module", "fp16"])
def test_files_of_every_form_load(form: str, tmp_path: Path):
    state = model().state_dict()
    tensors = load_released(save(state, tmp_path / "model.pt", form))
    assert tensors.keys() == state.keys()
    for name, value in state.items():
        expected = value.half().float() if form == "fp16" else value
        torch.testing.assert_close(tensors[name], expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    "options",
    [
        {"head": "None"},
        {"temporal_module": "tsm"},
        {"temporal_module": "tokent1d"},
        {"joint": True},
        {"vision": RESNET},
        {"vision": RESNET, "temporal_module": "tsm"},
    ],
)
def test_models_with_options_load_and_fit_no_other(options: dict[str, Any], tmp_path: Path):
    path = save(model(**options).state_dict(), tmp_path / "model.pt")
    load_strictly(model(**options), load_released(path), "the file")
    with pytest.raises(WeightsError, match="the file does not fit the model"):
        load_strictly(model(), load_released(path), "the file")


def refuse(tensors: dict[str, Tensor], path: Path, *messages: str) -> None:
    with pytest.raises(WeightsError) as caught:
        load_strictly(model(), load_released(save(tensors, path)), str(path))
    for message in (str(path), *messages):
        assert message in str(caught.value)


def test_missing_unexpected_and_misshapen_tensors_are_named(tmp_path: Path):
    path, state = tmp_path / "model.pt", model().state_dict()
    incomplete = {k: v for k, v in state.items() if k != "visual.proj"}
    refuse(
        incomplete | {"extra": state["logit_scale"]},
        path,
        "1 tensors are missing, 1 unexpected, 0 of another shape",
        "missing visual.proj",
        "unexpected extra",
    )
    misshapen = state | {"visual.ln_post.bias": torch.zeros(5)}
    refuse(misshapen, path, "visual.ln_post.bias has shape [5], the model [128]")


@pytest.mark.parametrize(
    "last", ["visual.transformer.resblocks.3.", "fusion_model.transformer.resblocks.5."]
)
def test_a_file_without_a_last_block_is_incomplete(last: str, tmp_path: Path):
    incomplete = {k: v for k, v in model().state_dict().items() if not k.startswith(last)}
    refuse(incomplete, tmp_path / "model.pt", f"missing {last}attn.in_proj_weight")


def test_files_of_other_kinds_are_refused(tmp_path: Path):
    refuse(towers().state_dict(), tmp_path / "clip.pt", "holds a whole CLIP", "model.weights")
    torch.save({"model_state_dict": {}, "fusion_model_state_dict": {}}, tmp_path / "bike.pt")
    with pytest.raises(WeightsError, match=r"fusion_model_state_dict.*model\.method bike"):
        load_released(tmp_path / "bike.pt")


VALUE = torch.zeros(2, 2)
CONTENTS = {
    ("text4vis",): {"model_state_dict": {"module.fusion_model.a": VALUE, "module.visual.a": VALUE}},
    ("bike", "actionclip"): {
        "model_state_dict": {"visual.a": VALUE, "text_projection": VALUE},
        "fusion_model_state_dict": {"module.transformer.resblocks.0.mlp.c_fc.weight": VALUE},
    },
    ("bike_attributes",): {
        "model_state_dict": {"text_projection": VALUE},
        "fusion_model_state_dict": {"module.query_fc.0.weight": VALUE},
    },
    ("mote",): {
        "model_state_dict": {"visual.a": VALUE},
        "fusion_model_state_dict": {"transformer.resblocks.0.mlp.fc_up.0.weight": VALUE},
    },
    ("vificlip",): {"model": {"module.image_encoder.a": VALUE, "module.logit_scale": VALUE}},
    ("openvclip",): {"model_state": {"model.visual.a": VALUE, "model.text_projection": VALUE}},
}
"""Whose they are -> what shows it."""
READERS = {name: spec.read_released for name, spec in METHODS.items() if spec.read_released}


@pytest.mark.parametrize("owners", CONTENTS, ids="-".join)
@pytest.mark.parametrize("method", READERS)
def test_a_file_of_another_method_is_named(method: str, owners: tuple[str, ...]):
    content, found = CONTENTS[owners], ""
    try:
        READERS[method](content, "a.pt")
    except WeightsError as error:
        found = str(error)
    of_other = ", as in files of " in found
    assert of_other == (method not in owners), found
    if of_other:
        assert found.startswith("a.pt: found ")
        assert f"allowed with model.method {method}: " in found
        assert all(f"(model.method {owner})" in found for owner in owners)


def test_all_methods_that_authors_released_are_among_these():
    assert {owner for owners in CONTENTS for owner in owners} == READERS.keys()

"""Checkpoints as ActionCLIP's authors released them, loaded into this project's model."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip.model import CLIP
from torch import Tensor, nn

from clipzoo.config import Params, load_params, replace
from clipzoo.methods import actionclip, bike, new_model
from clipzoo.methods.actionclip import ActionClip
from clipzoo.models import archives
from clipzoo.models.clip import build_clip, load_strictly, save_clip
from clipzoo.tensors import WeightsError
from parity.model import actionclip_options

ROOT = Path(__file__).parents[2]
UNUSED = "module.frame_position_embeddings.weight"


def params(path: Path, **options: Any) -> Params:
    """A run that starts from a released file."""
    full = load_params(ROOT / "params.yaml")
    values = {**full.methods["actionclip"], "head_layers": 1, **options}
    changes = {f"actionclip.{key}": value for key, value in values.items()}
    start = {"model.method": "actionclip", "model.input_px": 32, "model.checkpoint": str(path)}
    return replace(full, {**start, **changes})


def towers() -> CLIP:
    """Small ones, with 16 patches and 100 words."""
    vision = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8}
    text = {"context_length": 8, "vocab_size": 100, "width": 64, "heads": 1, "layers": 2}
    return CLIP(32, vision, text, quick_gelu=True)  # pyright: ignore[reportArgumentType]


def small(**options: Any) -> ActionClip:
    return actionclip.ActionClip(towers(), actionclip_options(head_layers=1, **options), 3)


def is_half(name: str) -> bool:
    """Whether the authors train a tensor in float16: of convolutions, linear and attention layers,
    and projections, but not of embeddings, norms and the scale."""
    if name.split(".")[-1] in ("proj", "text_projection", "in_proj_weight", "in_proj_bias"):
        return True
    return any(part in name for part in ("conv1.", "c_fc.", "c_proj.", "out_proj."))


def released(model: nn.Module) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The content of a file with the tensors of a model with a trained text tower, and these as
    they must be loaded."""
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    tensors["logit_scale"].fill_(4.75)
    head = {n: v for n, v in tensors.items() if n.startswith("fusion_model.")}
    clip = {n: v.half() if is_half(n) else v for n, v in tensors.items() if n not in head}
    assert {v.dtype for v in clip.values()} == {torch.float16, torch.float32}
    return {
        "epoch": 49,
        "model_state_dict": {n.removeprefix("text.tower."): v for n, v in clip.items()},
        "fusion_model_state_dict": {
            n.replace("fusion_model.", "module."): v for n, v in head.items()
        },
        "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 5e-6}]},
    }, {n: v.float() for n, v in (clip | head).items()}


def read(content: dict[str, Any], path: Path) -> dict[str, Tensor]:
    torch.save(content, path)
    return actionclip.read_released(archives.read_file(path), str(path))


@pytest.mark.parametrize(
    "options",
    [{"head": name} for name in ("meanP", "Conv_1D", "LSTM", "Transf", "Transf_cls")]
    + [{"head": "meanP", "temporal_module": "tsm"}],
    ids=str,
)
def test_released_files_load(options: dict[str, Any], tmp_path: Path):
    content, expected = released(small(**options))
    positions = options["head"] != "meanP"
    assert (UNUSED in content["fusion_model_state_dict"]) is positions
    shifted = "visual.transformer.resblocks.0.net.mlp.c_fc.weight" in content["model_state_dict"]
    assert shifted is ("temporal_module" in options)
    model = small(**options)
    load_strictly(model, read(content, tmp_path / "released.pt"), "the file")
    assert model.state_dict().keys() == expected.keys()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0, msg=name)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("fusion_model_state_dict", UNUSED),
        ("model_state_dict", "ln_final.weight"),
    ],
)
def test_a_missing_or_additional_tensor_is_refused(part: str, name: str, tmp_path: Path):
    model, path = small(head="LSTM"), tmp_path / "released.pt"
    content, _ = released(model)
    value, plain = content[part].pop(name), name.removeprefix("module.")
    with pytest.raises(WeightsError, match=rf"(?s)the file.*missing \S*{plain}"):
        load_strictly(model, read(content, path), "the file")
    content[part] |= {name: value, f"{name}_other": value}
    with pytest.raises(WeightsError, match=rf"(?s)the file.*unexpected \S*{plain}_other"):
        load_strictly(model, read(content, path), "the file")


def test_a_run_starts_from_a_released_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The text tower in the file is loaded, or must be that of the CLIP weights if it is frozen."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    clip, path = build_clip("ViT-demo-16", 32), tmp_path / "released.pt"
    save_clip(clip, "models/clip.safetensors", arch="ViT-demo-16", input_px=32, source="a test")
    options = actionclip.Options(**params(path).options)
    content, expected = released(actionclip.ActionClip(copy.deepcopy(clip), options, 8))
    torch.save(content, path)
    model, _ = new_model(params(path, text_tower="frozen"))
    videos = {n for n in expected if not n.startswith("text.")}
    assert model.state_dict().keys() == videos
    trained = content["model_state_dict"]["ln_final.weight"] + 0.5
    content["model_state_dict"]["ln_final.weight"] = trained
    torch.save(content, path)
    message = r"released\.pt: its text tower .*set actionclip\.text_tower: trained"
    with pytest.raises(WeightsError, match=message):
        new_model(params(path, text_tower="frozen"))
    model, metadata = new_model(params(path))
    torch.testing.assert_close(model.state_dict()["text.tower.ln_final.weight"], trained)
    assert metadata["clip"]["quick_gelu"]


def test_files_of_other_methods_are_refused():
    content, _ = released(small())
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

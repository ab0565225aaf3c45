"""Checkpoints as ViFi-CLIP's authors save them, with their configuration of yacs beside."""

import copy
import pickle
import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from clipzoo.config import Params, load_params, replace
from clipzoo.methods import new_model, vificlip
from clipzoo.methods.vificlip import Options, ViFiClip
from clipzoo.models import archives
from clipzoo.models.clip import build_clip, save_clip
from clipzoo.tensors import WeightsError
from parity.vificlip import released

ROOT = Path(__file__).parents[2]


@pytest.fixture
def yacs(monkeypatch: pytest.MonkeyPatch) -> type:
    """A class that pickles as yacs.config.CfgNode does: a dict whose attributes are its flags."""

    class CfgNode(dict):  # pyright: ignore[reportMissingTypeArgument]
        def __init__(self, **values: Any) -> None:
            super().__init__(values)
            self.__dict__.update(__immutable__=True, __deprecated_keys__=set(), __renamed_keys__={})

    CfgNode.__module__, CfgNode.__qualname__ = "yacs.config", "CfgNode"
    package, module = ModuleType("yacs"), ModuleType("yacs.config")
    module.CfgNode = CfgNode  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "yacs", package)
    monkeypatch.setitem(sys.modules, "yacs.config", module)
    return CfgNode


def small(trained: str = "both") -> ViFiClip:
    method = tiny.method("vificlip", 2, trained=trained)
    assert isinstance(method, ViFiClip)
    return method


def test_the_configuration_becomes_a_plain_mapping(yacs: type, tmp_path: Path):
    torch.save(released(small(), yacs), path := tmp_path / "ckpt_epoch_9.pth")
    config = archives.read_file(path)["config"]
    assert config == {
        "BASE": [""],
        "AUG": {"MIXUP": 0.8},
        "TRAINER": {"ViFi_CLIP": {"USE": "both", "PROMPT_MODEL": False}},
    }
    nodes = [config, config["AUG"], config["TRAINER"]["ViFi_CLIP"]]
    assert {type(node) for node in nodes} == {OrderedDict}


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("run",))


def test_what_the_configuration_holds_is_not_run(
    yacs: type, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    content = {**released(small(), yacs), "config": yacs(HOOK=Harmful())}
    torch.save(content, path := tmp_path / "harmful.pth")
    with pytest.raises(WeightsError, match=r"harmful\.pth: refused.*print"):
        archives.read_file(path)
    assert "run" not in capsys.readouterr().out
    torch.save(released(small(), yacs), path)
    archives.read_file(path)
    with pytest.raises(pickle.UnpicklingError, match=r"yacs\.config\.CfgNode"):
        torch.load(path, weights_only=True)  # it may name the class only while we read it


def test_tensors_have_the_names_of_the_method(yacs: type, tmp_path: Path):
    model = small()
    torch.save(released(model, yacs), path := tmp_path / "released.pth")
    tensors = vificlip.read_released(archives.read_file(path), str(path))
    assert model.state_dict().keys() - tensors.keys() == {"text.tower.token_embedding.weight"}
    assert set(model.of_clip) == {"text.tower.token_embedding.weight"}
    for name, value in tensors.items():
        torch.testing.assert_close(value, model.state_dict()[name], rtol=0, atol=0, msg=name)


@pytest.mark.parametrize(
    ("added", "removed", "message"),
    [
        ("module.prompt_learner.ctx", "", r"a\.pth: holds learned prompts \(prompt_learner\.ctx"),
        ("module.image_encoder.VPT", "", r"holds learned prompts .*not supported"),
        ("", "module.text_encoder.text_projection", r"missing text_encoder\.text_projection"),
    ],
)
def test_other_files_are_refused(added: str, removed: str, message: str, yacs: type):
    content = released(small(), yacs)
    content["model"] |= {added: torch.zeros(2)} if added else {}
    content["model"].pop(removed, None)
    with pytest.raises(WeightsError, match=message):
        vificlip.read_released(content, "a.pth")


def params(path: Path, **options: Any) -> Params:
    """A run that starts from a released file."""
    values = {f"vificlip.{key}": value for key, value in options.items()}
    start = {"model.method": "vificlip", "model.input_px": 32, "model.checkpoint": str(path)}
    return replace(load_params(ROOT / "params.yaml"), {**start, **values})


def token_embedding(tensors: dict[str, Tensor]) -> Tensor:
    return tensors["text.tower.token_embedding.weight"]


def test_a_run_starts_from_a_released_file(
    yacs: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Its token embedding is that of the CLIP weights, and so is its text tower if it is frozen."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    clip, path = build_clip("ViT-demo-16", 32), tmp_path / "released.pth"
    save_clip(clip, "models/clip.safetensors", arch="ViT-demo-16", input_px=32, source="a test")
    options = Options(trained="both", test_sampler="midpoints")
    trained = ViFiClip(copy.deepcopy(clip), options, 8)
    with torch.no_grad():
        for name in ("visual.proj", "logit_scale"):
            trained.get_parameter(name).mul_(1.5)
    torch.save(released(trained, yacs), path)
    frozen, _ = new_model(params(path, trained="image"))
    assert {n.split(".")[0] for n in frozen.state_dict()} == {"visual", "logit_scale"}
    torch.testing.assert_close(frozen.state_dict()["visual.proj"], trained.visual.proj.data)  # pyright: ignore
    assert "keys that are not read: optimizer, lr_scheduler" in capsys.readouterr().out
    content = released(trained, yacs)
    content["model"]["module.text_encoder.ln_final.weight"] += 0.5
    torch.save(content, path)
    message = r"released\.pth: its text tower .*ln_final\.weight.*set vificlip\.trained: both"
    with pytest.raises(WeightsError, match=message):
        new_model(params(path, trained="image"))
    model, metadata = new_model(params(path))
    found = model.state_dict()
    assert found.keys() == trained.state_dict().keys()
    expected = trained.state_dict()["text.tower.ln_final.weight"] + 0.5
    torch.testing.assert_close(found["text.tower.ln_final.weight"], expected)
    torch.testing.assert_close(
        token_embedding(found), clip.get_parameter("token_embedding.weight").data
    )
    assert metadata["options"] == {"trained": "both", "test_sampler": "midpoints"}

"""The activation of weights files in every container: by content, or by what the run says."""

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip import convert_weights_to_fp16, factory, get_model_config, list_models
from open_clip.pretrained import _PRETRAINED
from safetensors.torch import save_file
from torch import Tensor, nn

from clipzoo.config import ConfigError
from clipzoo.files import file_sha256
from clipzoo.models.clip import build_clip, encode_images, save_clip, uses_quick_gelu
from clipzoo.models.weights import load_weights
from clipzoo.tensors import WeightsError

PX = 32
QUICK = "ViT-demo-quick"
"""The demo's architecture, with QuickGELU, for fewer words."""
BOTH = "ViT-demo-both"
"""An architecture with GELU that exists with QuickGELU too, as ViT-B-16 does."""
SINGLE = "ViT-demo-single"
"""One that exists with GELU only."""


@pytest.fixture(autouse=True)
def architectures(monkeypatch: pytest.MonkeyPatch) -> None:
    config = copy.deepcopy(get_model_config("ViT-demo-16"))
    assert config is not None
    config["text_cfg"]["vocab_size"] = 64
    names = {QUICK: True, BOTH: False, f"{BOTH}-quickgelu": True, SINGLE: False}
    for name, quick in names.items():
        monkeypatch.setitem(factory._MODEL_CONFIGS, name, {**config, "quick_gelu": quick})
    assert BOTH in list_models()
    monkeypatch.setitem(_PRETRAINED, SINGLE, {"web": {"hf_hub": "someone/single/"}})


@pytest.fixture
def openai(architectures: None) -> dict[str, Tensor]:
    """A state dict as OpenAI's code stores it: weights in float16, all else in float32."""
    torch.manual_seed(0)
    model = build_clip(QUICK, PX)
    convert_weights_to_fp16(model)
    state = model.state_dict()
    assert state["visual.conv1.weight"].dtype == torch.float16
    assert state["visual.ln_post.weight"].dtype == torch.float32
    return {name: value.clone() for name, value in state.items()}


@pytest.fixture
def trained(architectures: None) -> dict[str, Tensor]:
    """A state dict as training in float32 leaves it."""
    torch.manual_seed(0)
    return build_clip(QUICK, PX).state_dict()


def single(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.float() for name, value in state.items()}


def half(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.half() for name, value in state.items()}


def write(state: dict[str, Tensor], path: Path, form: str) -> Path:
    if form == "torchscript":
        module = _module(state)
        module.register_buffer("input_resolution", torch.tensor(PX))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch deprecates TorchScript
            torch.jit.save(torch.jit.script(module), path)
    elif form == "safetensors":
        save_file(state, path)
    elif form == "epoch":
        tensors = {f"module.{name}": value for name, value in state.items()}
        torch.save({"epoch": 3, "name": "a run", "state_dict": tensors, "optimizer": {}}, path)
    else:
        torch.save(state, path)
    return path


def _module(state: dict[str, Tensor]) -> nn.Module:
    """Modules that hold the parameters under their names, as OpenAI's archives do."""
    root = nn.Module()
    for name, value in state.items():
        *parents, last = name.split(".")
        module = root
        for parent in parents:
            if parent not in dict(module.named_children()):
                module.add_module(parent, nn.Module())
            module = module.get_submodule(parent)
        module.register_parameter(last, nn.Parameter(value.clone()))
    return root


def embed(model: nn.Module) -> Tensor:
    images = torch.randn(2, 3, PX, PX, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return encode_images(model, images)


FORMS = [
    ("torchscript", "clip.pt"),
    ("torch", "state_dict.pt"),
    ("torch", "open_clip_pytorch_model.bin"),
    ("safetensors", "open_clip_model.safetensors"),
    ("epoch", "epoch_3.pt"),
]


@pytest.mark.parametrize("copy_of", ["mixed", "float32"])
@pytest.mark.parametrize(("form", "name"), FORMS)
def test_openais_weights_are_recognized_in_every_container(
    form: str, name: str, copy_of: str, openai: dict[str, Tensor], tmp_path: Path
):
    state = openai if copy_of == "mixed" else single(openai)
    loaded = load_weights(BOTH, str(write(state, tmp_path / name, form)), PX)
    assert uses_quick_gelu(loaded)
    expected = build_clip(QUICK, PX)
    expected.load_state_dict(single(openai))
    torch.testing.assert_close(embed(loaded), embed(expected), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_wider_copy_is_recognized(dtype: torch.dtype, openai: dict[str, Tensor], tmp_path: Path):
    state = {name: value.to(dtype) for name, value in openai.items()}
    assert uses_quick_gelu(load_weights(BOTH, str(write(state, tmp_path / "a.pt", "torch")), PX))


@pytest.mark.parametrize(
    ("content", "form"),
    [
        ("all float16", "torch"),
        ("all float16", "safetensors"),
        ("all float16", "epoch"),
        ("trained in float32", "epoch"),
        ("bfloat16", "safetensors"),
    ],
)
def test_content_that_does_not_tell_is_refused(
    content: str, form: str, openai: dict[str, Tensor], trained: dict[str, Tensor], tmp_path: Path
):
    states = {
        "all float16": half(openai),
        "trained in float32": trained,
        "bfloat16": {k: v.bfloat16() for k, v in trained.items()},
    }
    name = "a.safetensors" if form == "safetensors" else "a.pt"
    path = str(write(states[content], tmp_path / name, form))
    with pytest.raises(WeightsError, match=rf"{name}.*model\.activation.*{BOTH}-quickgelu"):
        load_weights(BOTH, path, PX)
    with pytest.raises(WeightsError, match=rf"set the arch to {BOTH}-quickgelu"):
        load_weights(BOTH, path, PX, None)  # of bike_attributes, which has no such key
    assert uses_quick_gelu(load_weights(BOTH, path, PX, "quickgelu"))
    assert not uses_quick_gelu(load_weights(BOTH, path, PX, "gelu"))
    assert uses_quick_gelu(load_weights(f"{BOTH}-quickgelu", path, PX))


def test_one_weight_that_float16_cannot_hold_is_enough(openai: dict[str, Tensor], tmp_path: Path):
    state = single(openai)
    state["transformer.resblocks.1.mlp.c_proj.bias"][3] = 0.1
    with pytest.raises(WeightsError, match=r"model\.activation"):
        load_weights(BOTH, str(write(state, tmp_path / "a.pt", "torch")), PX)


def test_the_users_word_counts_more_than_how_tensors_are_stored(
    openai: dict[str, Tensor], tmp_path: Path
):
    """Others may store their weights as OpenAI does."""
    path = str(write(openai, tmp_path / "a.pt", "torch"))
    assert not uses_quick_gelu(load_weights(BOTH, path, PX, "gelu"))


def test_an_archive_of_openai_is_never_built_with_gelu(openai: dict[str, Tensor], tmp_path: Path):
    path = str(write(openai, tmp_path / "clip.pt", "torchscript"))
    with pytest.raises(WeightsError, match=r"clip\.pt: has QuickGELU.*model\.activation is gelu"):
        load_weights(BOTH, path, PX, "gelu")


def test_an_architecture_with_one_activation_needs_no_word(
    openai: dict[str, Tensor], trained: dict[str, Tensor], tmp_path: Path
):
    """OpenAI has no weights of it, so mixed storage is not a sign of OpenAI."""
    for number, state in enumerate((trained, half(openai), openai)):
        path = write(state, tmp_path / f"{number}.pt", "torch")
        assert not uses_quick_gelu(load_weights(SINGLE, str(path), PX))


def test_an_activation_that_contradicts_the_architecture_is_refused(
    trained: dict[str, Tensor], tmp_path: Path
):
    path = str(write(trained, tmp_path / "a.pt", "torch"))
    with pytest.raises(WeightsError, match=r"model\.activation: found 'gelu'.*auto or quickgelu"):
        load_weights(f"{BOTH}-quickgelu", path, PX, "gelu")
    model = build_clip(BOTH, PX)
    save_clip(model, tmp_path / "clip.safetensors", arch=QUICK, input_px=PX, source="a test")
    with pytest.raises(WeightsError, match=r"clip\.safetensors: has GELU towers"):
        load_weights(f"{BOTH}-quickgelu", str(tmp_path / "clip.safetensors"), PX)
    assert not uses_quick_gelu(load_weights(BOTH, str(tmp_path / "clip.safetensors"), PX))


@pytest.mark.parametrize("quick", [True, False])
def test_a_file_whose_digest_open_clip_knows(
    quick: bool, trained: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = write(trained, tmp_path / "renamed.pt", "torch")
    url = f"https://github.com/mlfoundations/open_clip/v0.2/b-{file_sha256(path)[:8]}.pt"
    tag: dict[str, Any] = {"url": url, "hf_hub": "a/b/", "quick_gelu": quick}
    monkeypatch.setitem(_PRETRAINED, f"{BOTH}-quickgelu" if quick else BOTH, {"web": tag})
    assert uses_quick_gelu(load_weights(BOTH, str(path), PX)) == quick


def test_a_tag_says_its_activation_itself():
    with pytest.raises(ConfigError, match=r"model\.activation: found 'gelu'; allowed: auto"):
        load_weights("ViT-B/32", "openai", 224, "gelu")


def test_keys_that_are_not_read_are_named(
    openai: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    load_weights(BOTH, str(write(openai, tmp_path / "epoch_3.pt", "epoch")), PX)
    assert "epoch_3.pt: keys that are not read: epoch, name, optimizer\n" in capsys.readouterr().out


def test_mixed_storage_is_not_a_sign_where_openai_has_no_weights(
    openai: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As for ViT-H-14, whose weights by LAION have GELU and those by DFN QuickGELU."""
    monkeypatch.setitem(_PRETRAINED, BOTH, {"laion": {"hf_hub": "a/b/"}})
    path = str(write(openai, tmp_path / "a.pt", "torch"))
    with pytest.raises(WeightsError, match=r"model\.activation"):
        load_weights(BOTH, path, PX)
    monkeypatch.setitem(_PRETRAINED[BOTH], "openai", {"hf_hub": "c/d/", "quick_gelu": True})
    assert uses_quick_gelu(load_weights(BOTH, path, PX))

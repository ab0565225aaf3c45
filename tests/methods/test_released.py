import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip.model import CLIP
from torch import Tensor, nn

from clipzoo.methods.text4vis import Text4Vis
from clipzoo.models.clip import load_strictly, uses_quick_gelu
from clipzoo.models.openai import is_openai, load_openai, load_released
from clipzoo.tensors import WeightsError

RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None}
VIT = {"image_size": 64, "layers": 4, "width": 128, "patch_size": 16}
TEXT = {"context_length": 12, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 2}


def towers(vision: dict[str, Any] = VIT) -> CLIP:
    """By default the sizes of ViT-demo-16."""
    torch.manual_seed(0)
    return CLIP(128, vision, TEXT, quick_gelu=True)  # pyright: ignore[reportArgumentType]


def model(vision: dict[str, Any] = VIT, **options: Any) -> Text4Vis:
    return Text4Vis(towers(vision), **{"head": "Transf", "num_segments": 3} | options)


def save(tensors: dict[str, Tensor], path: Path, form: str = "full") -> Path:
    if form == "module":
        tensors = {f"module.{name}": value for name, value in tensors.items()}
    if form == "fp16":
        tensors = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
    torch.save(tensors if form == "bare" else {"epoch": 7, "model_state_dict": tensors}, path)
    return path


@pytest.mark.parametrize("form", ["full", "bare", "module", "fp16"])
def test_released_files_of_every_form_load(form: str, tmp_path: Path):
    own = model().state_dict()
    tensors, info = load_released(save(own, tmp_path / "model.pt", form))
    assert tensors.keys() == own.keys()
    for name, value in own.items():
        expected = value.half().float() if form == "fp16" else value
        torch.testing.assert_close(tensors[name], expected, rtol=0, atol=0)
    assert info == {
        "arch": "ViT-demo-16",
        "input_px": 64,
        "quick_gelu": True,
        "epoch": None if form == "bare" else 7,
        "head": "Transf",
        "head_layers": 6,
        "temporal_module": "none",
        "joint": False,
        "num_segments": None,
    }


@pytest.mark.parametrize(
    "options",
    [
        {"head": "None"},
        {"temporal_module": "tsm"},
        {"temporal_module": "tokent1d"},
        {"joint": True, "num_segments": 3},
        {"vision": RESNET},
        {"vision": RESNET, "temporal_module": "tsm"},
    ],
)
def test_options_are_told_from_the_names(options: dict[str, Any], tmp_path: Path):
    own = model(**options).state_dict()
    tensors, info = load_released(save(own, tmp_path / "model.pt"))
    assert {k: info[k] for k in options if k != "vision"} == {
        k: v for k, v in options.items() if k != "vision"
    }
    assert info["arch"] == (None if "vision" in options else "ViT-demo-16")
    load_strictly(model(**options), tensors, "the file")


@pytest.mark.parametrize(
    ("vision", "embed_dim", "arch"),
    [
        ({"image_size": 224, "layers": 12, "width": 768, "patch_size": 16}, 512, "ViT-B-16"),
        ({"image_size": 336, "layers": 24, "width": 1024, "patch_size": 14}, 768, "ViT-L-14-336"),
        ({"image_size": 224, "layers": [3, 4, 6, 3], "width": 64}, 1024, "RN50"),
    ],
)
def test_the_published_architectures_are_told_from_the_shapes(
    vision: dict[str, Any], embed_dim: int, arch: str, monkeypatch: pytest.MonkeyPatch
):
    with torch.device("meta"):
        clip = CLIP(embed_dim, vision, TEXT | {"context_length": 77})  # pyright: ignore[reportArgumentType]
        content = {"model_state_dict": Text4Vis(clip, head="Transf", num_segments=8).state_dict()}
    monkeypatch.setattr("clipzoo.models.archives.read_file", lambda _: content)
    _, info = load_released("model.pt")
    assert (info["arch"], info["input_px"]) == (arch, vision["image_size"])


def refuse(tensors: dict[str, Tensor], path: Path, *messages: str) -> None:
    with pytest.raises(WeightsError) as caught:
        load_released(save(tensors, path))
    for message in messages:
        assert message in str(caught.value)


def test_missing_unexpected_and_misshapen_tensors_are_named(tmp_path: Path):
    path, own = tmp_path / "model.pt", model().state_dict()
    lacking = {k: v for k, v in own.items() if k != "visual.ln_post.bias"}
    refuse(
        lacking | {"extra": own["logit_scale"]},
        path,
        "missing visual.ln_post.bias",
        "unexpected extra",
    )
    lacking = {k: v for k, v in own.items() if k != "visual.proj"}
    refuse(lacking | {"extra": own["logit_scale"]}, path, "missing visual.proj", "unexpected extra")
    misshapen = own | {"visual.ln_post.bias": torch.zeros(5)}
    refuse(misshapen, path, "visual.ln_post.bias has shape [5], the model [128]")


@pytest.mark.parametrize(
    "last", ["visual.transformer.resblocks.3.", "fusion_model.transformer.resblocks.5."]
)
def test_a_file_without_a_last_block_is_incomplete(last: str, tmp_path: Path):
    lacking = {k: v for k, v in model().state_dict().items() if not k.startswith(last)}
    refuse(lacking, tmp_path / "model.pt", f"missing {last}attn.in_proj_weight")


def test_files_of_other_kinds_are_told_apart(tmp_path: Path):
    refuse(towers().state_dict(), tmp_path / "clip.pt", "holds a whole CLIP", "model.weights")
    torch.save({"model_state_dict": {}, "fusion_model_state_dict": {}}, tmp_path / "bike.pt")
    with pytest.raises(WeightsError, match="as BIKE and ActionCLIP save them"):
        load_released(tmp_path / "bike.pt")


def test_openai_state_dicts_build_quick_gelu_towers(tmp_path: Path):
    clip = towers().eval()
    state = clip.state_dict() | {"input_resolution": torch.tensor(64)}
    torch.save({k: v.half() for k, v in state.items()}, tmp_path / "clip.pt")
    torch.save(clip.state_dict(), tmp_path / "laion.pt")
    half = {k: v if k == "logit_scale" else v.half() for k, v in clip.state_dict().items()}
    torch.save(half, tmp_path / "half.pt")
    assert is_openai(tmp_path / "clip.pt")
    assert is_openai(tmp_path / "half.pt")
    assert not is_openai(tmp_path / "laion.pt")
    loaded, info = load_openai(tmp_path / "clip.pt")
    assert info == {"arch": "ViT-demo-16", "input_px": 64, "quick_gelu": True}
    assert uses_quick_gelu(loaded)
    assert all(p.dtype == torch.float32 for p in loaded.parameters())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded.visual(x), clip.half().float().visual(x))  # pyright: ignore[reportCallIssue]


class Archived(nn.Module):
    """Both towers in one traced call, as in OpenAI's archives."""

    def __init__(self, clip: CLIP) -> None:
        super().__init__()
        for name, child in clip.named_children():
            self.add_module(name, child)
        for name, parameter in clip.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        self.register_buffer("context_length", torch.tensor(12))

    def forward(self, images: Tensor) -> Tensor:
        return self.get_submodule("visual")(images)


def test_openai_archives_load(tmp_path: Path):
    clip = towers(RESNET).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates its own archives
        traced = torch.jit.trace(Archived(clip), torch.zeros(1, 3, 64, 64), check_trace=False)
        torch.jit.save(traced, tmp_path / "RN.pt")
    loaded, info = load_openai(tmp_path / "RN.pt")
    assert info["input_px"] == 64
    for name, value in clip.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=0, atol=0)


def test_an_incomplete_clip_is_refused(tmp_path: Path):
    state = towers().state_dict()
    del state["transformer.resblocks.0.ln_1.weight"]
    torch.save(state, tmp_path / "clip.pt")
    with pytest.raises(WeightsError, match=r"missing transformer\.resblocks\.0\.ln_1\.weight"):
        load_openai(tmp_path / "clip.pt")

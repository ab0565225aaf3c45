"""CLIP weights from tags and files: the right activation, and errors that name alternatives."""

import copy
import socket
import time
import warnings
from pathlib import Path

import pytest
import torch
from open_clip import factory, get_model_config
from open_clip.pretrained import _PRETRAINED
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from clipzoo.models import hub as model_hub
from clipzoo.models.clip import build_clip, encode_images, save_clip, uses_quick_gelu
from clipzoo.models.hub import is_reachable
from clipzoo.models.weights import load_weights
from clipzoo.tensors import WeightsError

ARCH, PX = "ViT-demo-16", 32
GELU = "ViT-demo-gelu"
DEEP = "ViT-demo-deep"


@pytest.fixture(autouse=True)
def other_archs(monkeypatch: pytest.MonkeyPatch) -> None:
    """One configured for GELU, as ViT-B-32 is, and one with one more block."""
    config = copy.deepcopy(get_model_config(ARCH))
    assert config is not None
    monkeypatch.setitem(factory._MODEL_CONFIGS, GELU, {**config, "quick_gelu": False})
    vision = {**config["vision_cfg"], "layers": 5}
    monkeypatch.setitem(factory._MODEL_CONFIGS, DEEP, {**config, "vision_cfg": vision})


@pytest.fixture
def clip() -> nn.Module:
    torch.manual_seed(0)
    return build_clip(ARCH, PX)


def embed(model: nn.Module, side_px: int = PX) -> torch.Tensor:
    images = torch.randn(2, 3, side_px, side_px, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return encode_images(model, images)


def as_openai(model: nn.Module) -> dict[str, torch.Tensor]:
    """A state dict as OpenAI's archives give it: float16 weights, and the sizes among them."""
    tensors = {k: v.half() for k, v in model.state_dict().items()}
    tensors["logit_scale"] = model.state_dict()["logit_scale"]
    return {**tensors, "input_resolution": torch.tensor(PX), "context_length": torch.tensor(12)}


def test_openai_state_dict_builds_quick_gelu(clip: nn.Module, tmp_path: Path):
    path = tmp_path / "openai.pt"
    torch.save(as_openai(clip), path)
    loaded = load_weights(GELU, str(path), PX)
    assert uses_quick_gelu(loaded)
    torch.testing.assert_close(embed(loaded), embed(clip), atol=0.02, rtol=0.02)


def test_the_activation_matters(clip: nn.Module, tmp_path: Path):
    """The same tensors under GELU give other embeddings, so the test above can fail."""
    path = tmp_path / "plain.pt"
    torch.save(clip.state_dict(), path)
    loaded = load_weights(GELU, str(path), PX)
    assert not uses_quick_gelu(loaded)
    assert (embed(loaded) - embed(clip)).abs().max() > 1e-3


def test_torchscript_archive_builds_quick_gelu(tmp_path: Path):
    torch.manual_seed(0)
    model = build_clip(ARCH, PX)
    path = tmp_path / "archive.pt"

    class Archive(nn.Module):
        """Parameters under CLIP's names, and OpenAI's sizes, in a scripted module."""

        def __init__(self) -> None:
            super().__init__()
            for name, child in model.named_children():
                self.add_module(name, _frozen(child))
            for name, value in model.named_parameters(recurse=False):
                self.register_parameter(name, nn.Parameter(value.detach()))
            self.register_buffer("input_resolution", torch.tensor(PX))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates TorchScript
        torch.jit.save(torch.jit.trace(Archive(), torch.zeros(1)), path)
    loaded = load_weights(GELU, str(path), PX)
    assert uses_quick_gelu(loaded)
    torch.testing.assert_close(embed(loaded), embed(model))


def _frozen(module: nn.Module) -> nn.Module:
    """The same parameters under the same names in modules that only hold them."""
    holder = nn.Module()
    for name, child in module.named_children():
        holder.add_module(name, _frozen(child))
    for name, value in module.named_parameters(recurse=False):
        holder.register_parameter(name, nn.Parameter(value.detach()))
    return holder


@pytest.mark.parametrize("wrapped", [False, True])
def test_open_clip_checkpoint(wrapped: bool, clip: nn.Module, tmp_path: Path):
    state = clip.state_dict()
    if wrapped:
        state = {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}
    path = tmp_path / "epoch_3.pt"
    torch.save(state, path)
    torch.testing.assert_close(embed(load_weights(ARCH, str(path), PX)), embed(clip))


def test_a_saved_clip_keeps_its_activation(clip: nn.Module, tmp_path: Path):
    path = tmp_path / "clip.safetensors"
    save_clip(clip, path, arch=ARCH, input_px=PX, source="random")
    loaded = load_weights(GELU, str(path), PX)
    assert uses_quick_gelu(loaded)
    torch.testing.assert_close(embed(loaded), embed(clip))


def test_position_embeddings_are_resized(clip: nn.Module, tmp_path: Path):
    path = tmp_path / "plain.pt"
    torch.save(clip.state_dict(), path)
    loaded = load_weights(ARCH, str(path), 2 * PX)
    assert embed(loaded, 2 * PX).shape == (2, 128)
    name = "visual.positional_embedding"  # [1 + side^2, D]: the class token, which has no place
    small, large = (m.state_dict()[name] for m in (clip, loaded))
    torch.testing.assert_close(large[0], small[0])
    before = small[1:].T.unflatten(1, (2, 2))[None]  # [1, D, 2, 2]
    after = large[1:].T.unflatten(1, (4, 4))[None]
    expected = functional.interpolate(before, (4, 4), mode="bicubic", antialias=True)
    torch.testing.assert_close(after, expected)


def test_weights_of_another_architecture_name_the_tensors(clip: nn.Module, tmp_path: Path):
    path = tmp_path / "plain.pt"
    torch.save(clip.state_dict(), path)
    with pytest.raises(WeightsError, match=r"plain\.pt.*(\n.*)*resblocks\.4"):
        load_weights(DEEP, str(path), PX)


def test_missing_file(tmp_path: Path):
    with pytest.raises(WeightsError, match=r"nowhere\.pt: no such file"):
        load_weights(ARCH, str(tmp_path / "nowhere.pt"), PX)


def test_pickle_that_would_run_code_is_refused(tmp_path: Path):
    path = tmp_path / "evil.pt"
    torch.save({"visual.conv1.weight": _RunsCode()}, path)
    with pytest.raises(WeightsError, match="refused"):
        load_weights(ARCH, str(path), PX)


class _RunsCode:
    def __reduce__(self):
        return print, ("this must not run",)


def test_unknown_tag_lists_the_known():
    with pytest.raises(WeightsError, match=r"found 'opanai'.*demo, random.*openai, laion400m_e31"):
        load_weights("ViT-B/32", "opanai", 224)


REPOSITORY, TAG = "someone/demo-clip", "web"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """A model hub that refuses connections (port 9 of this machine), and its cache on this disk."""

    def __init__(self, cache: Path) -> None:
        self.snapshot = cache / f"models--{REPOSITORY.replace('/', '--')}/snapshots/{COMMIT}"
        self.refs = self.snapshot.parents[1] / "refs"

    def fill(self, model: nn.Module, filename: str) -> None:
        """The files that a download leaves: the snapshot of a commit, and main, which names it."""
        for folder in (self.snapshot, self.refs):
            folder.mkdir(parents=True, exist_ok=True)
        (self.refs / "main").write_text(COMMIT)
        path, state = self.snapshot / filename, model.state_dict()
        save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The hub of a tag of `GELU`; the cache is where HF_HOME would put it, and empty."""
    cache = tmp_path / "hf-home/hub"
    monkeypatch.setattr(model_hub.huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(model_hub.huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(_PRETRAINED, GELU, {TAG: {"hf_hub": f"{REPOSITORY}/"}})
    return Hub(cache)


@pytest.mark.parametrize("filename", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_a_tag_in_the_cache_needs_no_network(clip: nn.Module, hub: Hub, filename: str):
    hub.fill(clip, filename)
    loaded = load_weights(GELU, TAG, PX)
    assert not uses_quick_gelu(loaded), "the architecture's activation"
    for name, value in clip.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value)


def test_a_damaged_file_in_the_cache_is_named(clip: nn.Module, hub: Hub):
    hub.fill(clip, "open_clip_pytorch_model.bin")
    path = hub.snapshot / "open_clip_pytorch_model.bin"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(WeightsError, match=r"open_clip_pytorch_model\.bin: damaged .*CRC-32"):
        load_weights(GELU, TAG, PX)


def test_a_cached_tag_of_openai_builds_quick_gelu(
    clip: nn.Module, hub: Hub, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(_PRETRAINED[GELU], TAG, {"hf_hub": f"{REPOSITORY}/", "quick_gelu": True})
    hub.fill(clip, "open_clip_model.safetensors")
    loaded = load_weights(GELU, TAG, PX)
    assert uses_quick_gelu(loaded)
    torch.testing.assert_close(embed(loaded), embed(clip))


def test_a_tag_may_name_its_file(clip: nn.Module, hub: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(_PRETRAINED[GELU], TAG, {"hf_hub": f"{REPOSITORY}/epoch_3.pt"})
    torch.manual_seed(5)
    hub.fill(build_clip(ARCH, PX), "open_clip_pytorch_model.bin")  # not the one that it names
    hub.fill(clip, "epoch_3.pt")
    loaded = load_weights(GELU, TAG, PX)
    torch.testing.assert_close(loaded.state_dict(), dict(clip.state_dict()))


@pytest.mark.parametrize("cache", ["empty", "another commit", "another file"])
def test_unreachable_hub_is_an_error_within_seconds(cache: str, clip: nn.Module, hub: Hub):
    if cache != "empty":
        hub.fill(clip, "README.md" if cache == "another file" else "open_clip_pytorch_model.bin")
    if cache == "another commit":
        (hub.refs / "main").write_text(COMMIT[::-1])
    start = time.monotonic()
    with pytest.raises(WeightsError, match=r"127\.0\.0\.1:9, which cannot be reached.*HF_ENDPOINT"):
        load_weights(GELU, TAG, PX)
    assert time.monotonic() - start < model_hub.PROBE_SECONDS + 2


def test_a_hub_that_never_answers_counts_as_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        assert not is_reachable(f"http://127.0.0.1:{silent.getsockname()[1]}", seconds=0.3)
        assert time.monotonic() - start < 2

"""Architectures that open_clip does not have: `local-dir:` and `hf-hub:` names."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from clipzoo.config import ConfigError
from clipzoo.models import architectures, hub
from clipzoo.models.architectures import (
    context_length,
    embed_dim,
    input_size,
    is_elsewhere,
    native_px,
    open_clip_name,
    read_elsewhere,
)
from clipzoo.models.clip import (
    build_clip,
    encode_images,
    load_clip,
    read_clip_metadata,
    save_clip,
    uses_quick_gelu,
)
from clipzoo.models.known_pixels import pixels_of_stand_in
from clipzoo.models.pixels import PIXELS, pixels_of
from clipzoo.models.text import embed_class_names, tokenize
from clipzoo.models.weights import load_weights
from clipzoo.paths import CLIP_FILE
from clipzoo.tensors import WeightsError

PX = 32
WEIGHTS = "open_clip_model.safetensors"
REPOSITORY, COMMIT = "someone/small-clip", "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def nothing_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process."""
    monkeypatch.setattr(architectures, "_elsewhere", {})


def small_config() -> dict[str, Any]:
    """A CLIP that open_clip does not have: 24-pixel patches, 9 tokens, embeddings of 48."""
    config = copy.deepcopy(open_clip.get_model_config("ViT-demo-16"))
    assert config is not None
    config["embed_dim"] = 48
    config["vision_cfg"] |= {"layers": 1, "image_size": 48, "patch_size": 24}
    config["text_cfg"] |= {"layers": 1, "context_length": 9}
    return config


def write_model(folder: Path, config: dict[str, Any]) -> nn.Module:
    """A folder as open_clip's `push_to_hf_hub` writes it, and the model in it."""
    folder.mkdir(parents=True, exist_ok=True)
    description = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5, 0.5, 0.5]}}
    (folder / "open_clip_config.json").write_text(json.dumps(description))
    torch.manual_seed(3)
    towers = open_clip.create_model(f"local-dir:{folder}", load_weights=False).eval()
    save_file(towers.state_dict(), folder / WEIGHTS)
    return towers


def embed(towers: nn.Module, side_px: int) -> torch.Tensor:
    images = torch.randn(2, 3, side_px, side_px, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return encode_images(towers, images)


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """(name, folder, model): a folder, or a repository in the cache of a hub that is silent."""
    monkeypatch.chdir(tmp_path)
    if request.param == "local-dir":
        folder = tmp_path / "some model"
        return f"local-dir:{folder}", folder, write_model(folder, small_config())
    cache = tmp_path / "hf-home/hub"
    monkeypatch.setattr(hub.huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(hub.huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    repository = cache / f"models--{REPOSITORY.replace('/', '--')}"
    folder = repository / "snapshots" / COMMIT
    towers = write_model(folder, small_config())
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(COMMIT)
    return f"hf-hub:{REPOSITORY}", folder, towers


both = pytest.mark.parametrize("place", ["local-dir", "hf-hub"], indirect=True)
in_a_folder = pytest.mark.parametrize("place", ["local-dir"], indirect=True)


@both
def test_a_model_is_loaded_kept_and_built_again_without_its_place(place, monkeypatch):
    name, folder, towers = place
    assert open_clip_name(name) == name
    assert (native_px(name), embed_dim(name), context_length(name)) == (48, 48, 9)
    assert input_size(name, 32) == 48
    lines: list[str] = []
    loaded = load_weights(name, "pretrained", 48, say=lines.append)
    assert lines == [f"{name}: {WEIGHTS}"]
    assert uses_quick_gelu(loaded)
    assert pixels_of(loaded).mean == (0.5, 0.5, 0.5), "of preprocess_cfg"
    assert pixels_of(loaded).std == PIXELS["openai"].std, "open_clip's default"
    assert pixels_of(load_weights(name, "pretrained", 48, pixels="pe")) == PIXELS["pe"]
    assert pixels_of_stand_in(name) == pixels_of(loaded)
    torch.testing.assert_close(embed(loaded, 48), embed(towers, 48), rtol=0, atol=0)
    save_clip(loaded, CLIP_FILE, arch=name, input_px=48, source="pretrained")

    shutil.rmtree(folder)
    monkeypatch.setattr(architectures, "_elsewhere", {})
    kept, meta = load_clip()
    assert pixels_of(kept) == pixels_of(loaded)
    assert (meta["arch"], meta["config"]["embed_dim"]) == (name, 48)
    torch.testing.assert_close(embed(kept, 48), embed(towers, 48), rtol=0, atol=0)
    assert (input_size(name, 50), context_length(name)) == (72, 9)
    text = embed_class_names(kept, name, ["a dog", "a cat"], ["{}"])
    assert text.token_ids.shape == (1, 2, 9)
    assert torch.equal(text.token_ids[0], tokenize("ViT-demo-16", ["a dog", "a cat"], 9))
    assert text.dim == 48
    with pytest.raises(WeightsError, match=r"open_clip_config\.json"):
        read_elsewhere(name)
    CLIP_FILE.rename("moved.safetensors")  # as metadata in another file of ours
    architectures._elsewhere.clear()
    moved, _ = load_clip("moved.safetensors")
    torch.testing.assert_close(embed(moved, 48), embed(towers, 48), rtol=0, atol=0)
    assert input_size(name, 50) == 72


@both
def test_a_new_configuration_counts_once_it_is_read(place):
    name, folder, towers = place
    save_clip(towers, CLIP_FILE, arch=name, input_px=48, source="pretrained")
    write_model(folder, {**small_config(), "embed_dim": 32})
    architectures._elsewhere.clear()
    assert embed_dim(name) == 48, "that of models/clip.safetensors"
    read_elsewhere(name)
    assert embed_dim(name) == 32


@in_a_folder
def test_other_weights_go_with_the_configuration_too(place, tmp_path: Path):
    name, _, towers = place
    torch.save(towers.state_dict(), tmp_path / "epoch_1.pt")
    loaded = load_weights(name, str(tmp_path / "epoch_1.pt"), 48)
    torch.testing.assert_close(embed(loaded, 48), embed(towers, 48), rtol=0, atol=0)
    assert embed(build_clip(name, 48), 48).shape == (2, 48)
    with pytest.raises(WeightsError, match=r"found 'openai'; allowed: .* pretrained"):
        load_weights(name, "openai", 48)
    with pytest.raises(ConfigError, match=r"model\.activation: found 'gelu'"):
        load_weights(name, "pretrained", 48, "gelu")


@in_a_folder
def test_a_folder_without_one_clear_file_of_weights_is_refused(place):
    name, folder, towers = place
    (folder / WEIGHTS).rename(folder / "mine.safetensors")
    torch.testing.assert_close(
        embed(load_weights(name, "pretrained", 48), 48), embed(towers, 48), rtol=0, atol=0
    )
    (folder / "another.bin").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"found another\.bin, mine\.safetensors; allowed: "):
        load_weights(name, "pretrained", 48)
    for file in folder.glob("*.*n*s"):
        file.unlink()
    (folder / "another.bin").unlink()
    with pytest.raises(WeightsError, match=r"some model: found no weights"):
        load_weights(name, "pretrained", 48)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "not a configuration of open_clip; allowed: an object with model_cfg"),
        ('{"model_cfg": {"embed_dim": 8}}', "which has embed_dim, text_cfg, vision_cfg"),
        ("{", "open_clip_config.json"),
        (None, r"open_clip_config\.json: cannot be read \(No such file"),
    ],
)
def test_a_configuration_that_is_none_is_named(tmp_path: Path, text: str | None, message: str):
    if text is not None:
        (tmp_path / "open_clip_config.json").write_text(text)
    with pytest.raises(WeightsError, match=rf"model\.arch: .*{message}"):
        input_size(f"local-dir:{tmp_path}", 64)


def test_a_tower_that_open_clip_cannot_build_is_named(tmp_path: Path):
    config = small_config()
    config["vision_cfg"]["heads_or_tails"] = 1
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    with pytest.raises(WeightsError, match=r"cannot build local-dir:.*heads_or_tails"):
        build_clip(f"local-dir:{tmp_path}", PX)
    config["vision_cfg"] = {"timm_model_name": "vit_of_nobody", "image_size": 64}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    architectures._elsewhere.clear()
    with pytest.raises(ConfigError, match=r"timm cannot build its vision tower vit_of_nobody"):
        build_clip(f"local-dir:{tmp_path}", PX)


def test_a_hub_that_cannot_be_reached_is_an_error(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(hub.huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub.huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        WeightsError, match=r"hf-hub:someone/x: open_clip_config\.json has to be .*127\.0\.0\.1:9"
    ):
        input_size("hf-hub:someone/x", 64)


@pytest.mark.parametrize("arch", ["local-dir:", "hf-hub:", "s3:bucket/x", "ViT-demo-17"])
def test_other_names_are_refused(arch: str):
    assert not is_elsewhere(arch)
    with pytest.raises(ConfigError, match=r"allowed: any open_clip.*local-dir:FOLDER or hf-hub:"):
        open_clip_name(arch)


def test_metadata_keeps_no_configuration_that_open_clip_has(tmp_path: Path):
    path = tmp_path / "c.safetensors"
    save_clip(build_clip("ViT-demo-16", PX), path, arch="ViT-demo-16", input_px=PX, source="demo")
    assert "config" not in read_clip_metadata(path)

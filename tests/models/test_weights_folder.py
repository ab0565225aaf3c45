"""CLIPZOO_WEIGHTS: pretrained tags are found by content in any layout, before a download."""

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip import convert_weights_to_fp16, factory, get_model_config
from open_clip.pretrained import _PRETRAINED
from safetensors.torch import save_file
from torch import Tensor

from clipzoo.files import file_sha256
from clipzoo.models import weights, weights_folder
from clipzoo.models.clip import build_clip, uses_quick_gelu
from clipzoo.models.weights import load_weights
from clipzoo.models.weights_folder import find_tag
from clipzoo.tensors import WeightsError

ARCH, PX, TAG = "ViT-demo-both", 32, "openai"
REPOSITORY = "timm/vit_demo_clip.openai"
SAFE, BIN = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """OpenAI's form of the tensors of `ARCH`, the demo's architecture for fewer words."""
    config = copy.deepcopy(get_model_config("ViT-demo-16"))
    assert config is not None
    config["text_cfg"]["vocab_size"] = 64
    monkeypatch.setitem(factory._MODEL_CONFIGS, ARCH, {**config, "quick_gelu": False})
    torch.manual_seed(0)
    model = build_clip(ARCH, PX)
    convert_weights_to_fp16(model)
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.fixture
def original(state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file whose sha256 is in the tag's URL, elsewhere; the folder is empty, the hub is off."""
    path = tmp_path / "elsewhere.pt"
    torch.save(state, path)
    url = f"https://openaipublic.azureedge.net/clip/models/{file_sha256(path)}/ViT-demo.pt"
    tag: dict[str, Any] = {"url": url, "hf_hub": f"{REPOSITORY}/", "quick_gelu": True}
    monkeypatch.setitem(_PRETRAINED, ARCH, {TAG: tag})
    monkeypatch.setattr(weights.huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(weights.huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "folder").mkdir()
    monkeypatch.setenv("CLIPZOO_WEIGHTS", str(tmp_path / "folder"))
    return path


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return tmp_path / "folder"


def put(source: Path, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(source.read_bytes())
    return path


@pytest.mark.parametrize("name", ["ViT-demo.pt", "clip/openai/ViT-demo.pt", "a/b/my copy.pth"])
def test_a_file_is_found_by_its_digest_under_any_name(
    name: str, original: Path, folder: Path, state: dict[str, Tensor], capsys
):
    path = put(original, folder / name)
    torch.save({"other": torch.zeros(10)}, folder / "other.pt")
    loaded = load_weights(ARCH, TAG, PX)
    assert uses_quick_gelu(loaded)
    for key, value in state.items():
        assert torch.equal(loaded.state_dict()[key], value.float()), key
    out = capsys.readouterr().out
    digest = file_sha256(original)[:12]
    assert f"CLIPZOO_WEIGHTS: openai: {path} (sha256 {digest} as open_clip knows it)" in out


def test_only_files_of_a_fitting_size_are_read(
    original: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    put(original, folder / "b.pt")
    torch.save(torch.zeros(100), folder / "a.pt")
    (folder / "c.pt").touch()
    os.truncate(folder / "c.pt", 200_000_000)
    read: list[str] = []
    digest = weights_folder.file_sha256

    def spy(path: Path) -> str:
        read.append(path.name)
        return digest(path)

    monkeypatch.setattr(weights_folder, "file_sha256", spy)
    assert find_tag(ARCH, TAG)
    assert read == ["b.pt"]


def test_a_damaged_file_is_named(original: Path, folder: Path):
    path = put(original, folder / "ViT-demo.pt")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(
        WeightsError, match=r"/ViT-demo\.pt has sha256 .* damaged.* -S model\.weights"
    ):
        load_weights(ARCH, TAG, PX)
    good = put(original, folder / "again/ViT-demo.pt")
    found = find_tag(ARCH, TAG)
    assert found is not None
    assert found.path == good
    assert "ViT-demo.pt has sha256" in found.notes[0]


def test_the_same_file_twice_is_a_note(original: Path, folder: Path):
    first, second = put(original, folder / "a/x.pt"), put(original, folder / "b/y.pt")
    found = find_tag(ARCH, TAG)
    assert found is not None
    assert (found.path, found.notes) == (first, [f"{second} is the same file as {first}"])


def test_a_folder_that_does_not_exist_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CLIPZOO_WEIGHTS", str(folder / "nowhere"))
    with pytest.raises(WeightsError, match=r"CLIPZOO_WEIGHTS: \S*nowhere is not a folder"):
        load_weights(ARCH, TAG, PX)
    monkeypatch.setenv("CLIPZOO_WEIGHTS", "")
    assert find_tag(ARCH, TAG) is None


def test_without_the_file_the_message_names_the_folder(folder: Path):
    torch.save(torch.zeros(100), folder / "ViT-other.pt")
    with pytest.raises(WeightsError, match="not in the cache and not in CLIPZOO_WEIGHTS"):
        load_weights(ARCH, TAG, PX)


def test_a_link_to_a_folder_above_ends(original: Path, folder: Path):
    put(original, folder / "deep/x.pt")
    (folder / "deep/up").symlink_to(folder)
    assert find_tag(ARCH, TAG)


def write_hub_file(state: dict[str, Tensor], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    floats = {key: value.float() for key, value in state.items()}
    save_file(floats, path) if path.suffix == ".safetensors" else torch.save(floats, path)
    return path


@pytest.mark.parametrize(
    "place",
    [
        f"{REPOSITORY}/{SAFE}",
        f"{REPOSITORY.split('/')[1]}/{BIN}",
        f"hub/models--{REPOSITORY.replace('/', '--')}/snapshots/{COMMIT}/{SAFE}",
    ],
)
def test_the_layouts_of_the_model_hub(place: str, state: dict[str, Tensor], folder: Path):
    path = write_hub_file(state, folder / place)
    write_hub_file({k: v * 2 for k, v in state.items()}, folder / f"timm/another/{SAFE}")
    found = find_tag(ARCH, TAG)
    assert found is not None
    assert found.path == path
    assert found.checked == f"its place; no digest of it is known, of {REPOSITORY}"
    loaded = load_weights(ARCH, TAG, PX)
    assert uses_quick_gelu(loaded)
    for key, value in state.items():
        assert torch.equal(loaded.state_dict()[key], value.float()), key


def as_blob(path: Path, digest: str) -> None:
    """What the hub's cache has: a link to a blob that is named by its sha256."""
    blob = path.parents[2] / "blobs" / digest
    blob.parent.mkdir()
    path.rename(blob)
    path.symlink_to(os.path.relpath(blob, path.parent))


def as_download(path: Path, digest: str) -> None:
    """What a download to a folder has: a note beside it."""
    note = path.parent / ".cache/huggingface/download" / f"{path.name}.metadata"
    note.parent.mkdir(parents=True)
    note.write_text(f"{COMMIT}\n{digest}\n1700000000.0\n")


@pytest.mark.parametrize(
    ("place", "keep"),
    [
        (f"models--{REPOSITORY.replace('/', '--')}/snapshots/{COMMIT}/{SAFE}", as_blob),
        (f"{REPOSITORY}/{SAFE}", as_download),
    ],
)
def test_the_hubs_own_digest_is_compared(
    place: str, keep: Callable[[Path, str], None], state: dict[str, Tensor], folder: Path
):
    path = write_hub_file(state, folder / place)
    digest = file_sha256(path)
    keep(path, digest)
    found = find_tag(ARCH, TAG)
    assert found is not None
    assert found.checked.startswith(f"sha256 {digest[:12]} as the model hub's client noted")
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(WeightsError, match=rf"{SAFE} has sha256 .* client noted: it is damaged"):
        find_tag(ARCH, TAG)


def test_two_places_with_different_files_are_refused(state: dict[str, Tensor], folder: Path):
    first = write_hub_file(state, folder / f"a/{REPOSITORY}/{SAFE}")
    second = write_hub_file(state, folder / f"b/{REPOSITORY}/{SAFE}")
    found = find_tag(ARCH, TAG)
    assert found is not None
    assert (found.path, len(found.notes)) == (first, 1)
    write_hub_file({k: v * 2 for k, v in state.items()}, second)
    with pytest.raises(WeightsError, match=r"a/timm\S* and \S*b/timm\S* have different content"):
        find_tag(ARCH, TAG)


def test_the_newest_snapshot_counts(state: dict[str, Tensor], folder: Path):
    root = folder / f"models--{REPOSITORY.replace('/', '--')}"
    write_hub_file({k: v * 2 for k, v in state.items()}, root / f"snapshots/{COMMIT[::-1]}/{SAFE}")
    new = write_hub_file(state, root / f"snapshots/{COMMIT}/{SAFE}")
    (root / "refs").mkdir()
    (root / "refs/main").write_text(COMMIT)
    found = find_tag(ARCH, TAG)
    assert found is not None
    assert found.path == new


def test_a_tag_whose_digest_nobody_has_is_found_by_its_url(
    state: dict[str, Tensor], folder: Path, monkeypatch: pytest.MonkeyPatch
):
    tag = {"url": "https://dl.fbaipublicfiles.com/MMPT/metaclip/b16_400m.pt", "hf_hub": "a/b/"}
    monkeypatch.setitem(_PRETRAINED[ARCH], TAG, tag)
    torch.save(state, folder / "b16_400m.pt")
    found = find_tag(ARCH, TAG)
    assert found is not None
    assert found.checked == "its name; no digest of it is known"
    assert not uses_quick_gelu(load_weights(ARCH, TAG, PX)), "the tag's, whatever the content"

"""A model folder of a stranger: each value of config.json is checked before it is used."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clipzoo import config
from clipzoo.config import ConfigError
from clipzoo.methods import untrained
from clipzoo.models.clip import ClipMetadata, build_clip, describe_clip
from clipzoo.models.text import embed_class_names
from clipzoo.serve.folder import (
    FolderConfig,
    FramesOfVideos,
    ModelFolder,
    read_folder,
    write_folder,
)
from clipzoo.tensors import WeightsError

ARCH, PX = "ViT-demo-16", 32


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed folder of a CLIP with random weights."""
    torch.manual_seed(0)
    towers, names = build_clip(ARCH, PX), ["a red ring", "a blue bar"]
    text = embed_class_names(towers, ARCH, names, ["{}"])
    clip = ClipMetadata.model_validate(describe_clip(towers, ARCH, PX, "random"))
    method, about = untrained(towers, clip, 2)
    described = FolderConfig(
        **{name: getattr(about, name) for name in type(about).model_fields},
        format=1,
        kind="closed",
        frames=FramesOfVideos(size=40, quality=2),
        views=config.TestConfig(clips=1, crops=1, dense=False, short_side_px=PX, precision="fp32"),
        templates=["{}"],
        class_names=names,
        recipe="mine",
        weights_sha256="",
        version="0",
    )
    folder = tmp_path_factory.mktemp("closed")
    model = ModelFolder(config=described, method=method, text=text, towers=None)
    write_folder(model, folder, "closed")
    return folder


@pytest.fixture
def edited(closed: Path, tmp_path: Path) -> Callable[[str, object], Path]:
    """Makes a copy of the folder in which one dotted key is another value; ... = it is missing."""

    def edit(key: str, value: object) -> Path:
        content: Any = json.loads((closed / "config.json").read_text())
        *sections, last = key.split(".")
        section = content
        for name in sections:
            section = section[name]
        section[last] = value
        if value is ...:
            del section[last]
        (tmp_path / "config.json").write_text(json.dumps(content))
        (tmp_path / "model.safetensors").hardlink_to(closed / "model.safetensors")
        return tmp_path

    return edit


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("frames.size", "72x36"),
        ("frames.size", "source"),
        ("frames.fps", 24.0),
        ("clip.pixels.mean", [0, 0.5, 1]),
    ],
)
def test_what_is_allowed(edited, key: str, value: object):
    found: Any = read_folder(edited(key, value)).config.model_dump(mode="json")
    for part in key.split("."):
        found = found[part]
    assert found == value


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        *[
            ("frames.size", size, r"config\.json: frames\.size: found .* sides of 1 to 4096 px")
            for size in (0, -1, True, 100_000, "banana", "72x(72+0*print(7))", "st(0,1)x72", "72x0")
        ],
        ("frames.fps", 1e9, r"frames\.fps: found 1000000000\.0; allowed: .* 1000"),
        *[
            ("templates", [template], r"templates\[0\]: found .*; allowed: exactly one {}")
            for template in ("{x}", "{} {}", "{0.__class__}", "no braces", "{}{")
        ],
        ("clip.pixels.mean", [0, 0], r"json: missing value clip\.pixels\.mean\[2\]$"),
        ("clip.pixels.std", [1, 1, 1, 1], r"clip\.pixels\.std: found .*; allowed: .* 3 items"),
        ("clip.pixels.std", 1, r"clip\.pixels\.std: found 1; allowed: a list of values"),
        ("class_names", ["a", " "], r"class_names: .*\[1\]: the class name is empty"),
        ("class_names", ["a", "a"], r"class_names: .*\[1\]: class name 'a' appears more than"),
        ("clip.arch", "hf-hub:owner/name", r"clip\.config: found None; .* of hf-hub:owner/name"),
        ("clip.arch", "local-dir:/tmp/x", r"clip\.config: found None; .* of local-dir:/tmp/x"),
        ("views.short_side_px", 8, r"views\.short_side_px: found 8; allowed: .* 32"),
        ("kind", "open", r"kind: found open; allowed: closed, because .*tensors has no text tower"),
        ("format", 2, r"format: found 2; allowed: 1; if another version"),
        ("format", ..., r"json: missing key format"),
        ("format", True, r"format: found True"),
    ],
)
def test_what_is_refused(edited, key: str, value: object, message: str):
    with pytest.raises((ConfigError, WeightsError), match=message):
        read_folder(edited(key, value))


def test_a_folder_without_weights(edited):
    folder = edited("recipe", "mine")
    (folder / "model.safetensors").unlink()
    for missing in ("No such file", "is a folder"):
        with pytest.raises(WeightsError, match=rf"model\.safetensors: .*{missing}.* get both"):
            read_folder(folder)
        (folder / "model.safetensors").mkdir(exist_ok=True)

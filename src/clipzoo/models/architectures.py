"""The architectures of open_clip: their names, and what their configurations say.

A name is one of open_clip's own, or it says where a model lies, as open_clip's do:

- `local-dir:FOLDER`: a folder with `open_clip_config.json` and the weights;
- `hf-hub:OWNER/NAME`: a repository of the model hub with the same files.

prepare_clip alone reads such a place. The file that it writes keeps the configuration, so no later
stage needs the folder or the hub.
"""

import importlib.util
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import open_clip
import timm
import torch
from open_clip.constants import HF_CONFIG_NAME, HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

from clipzoo.config import ConfigError
from clipzoo.files import near, read_json
from clipzoo.models.hub import hub_file
from clipzoo.paths import CLIP_FILE
from clipzoo.tensors import WeightsError, read_metadata

open_clip.add_model_config(Path(__file__).parent / "configs")

FOLDER, HUB = "local-dir:", "hf-hub:"
"""What names of models elsewhere begin with."""
WEIGHTS_NAMES = [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]
"""Names of a model's weights beside its configuration, the best first."""
CONFIG_KEYS = {"embed_dim", "vision_cfg", "text_cfg"}
RESNET_STRIDE = 32
"""Pixels of the input, in each direction, to a position of a ResNet's last layer."""

_elsewhere: dict[str, dict[str, Any]] = {}
"""Name -> the configuration that this process has read at its place."""


def open_clip_name(arch: str) -> str:
    """Name of an architecture as open_clip writes it: `ViT-L/14-336px` -> `ViT-L-14-336`.

    `local-dir:` and `hf-hub:` names are unchanged. ConfigError, with similar names, if open_clip
    has no such architecture.
    """
    if is_elsewhere(arch):
        return arch
    name = arch.replace("/", "-").replace("@", "-").removesuffix("px")
    known = open_clip.list_models()
    if name in known:
        return name
    raise ConfigError(
        f"model.arch: found {arch!r}{near(name, known)}; allowed: any open_clip architecture; "
        f"open_clip.list_models() lists all; or {FOLDER}FOLDER or {HUB}OWNER/NAME, where a model "
        "of open_clip lies"
    )


def is_elsewhere(arch: str) -> bool:
    """Whether a name says where a model lies."""
    return arch.startswith((FOLDER, HUB)) and not arch.endswith(":")


def model_config(arch: str) -> dict[str, Any]:
    """The configuration of an architecture, as open_clip's files have it.

    That of a `local-dir:` or `hf-hub:` name is the one that `read_elsewhere` has read, or the one
    that models/clip.safetensors keeps, or is read now.
    """
    name = open_clip_name(arch)
    if is_elsewhere(name):
        return _elsewhere.get(name) or _kept_config(name) or read_elsewhere(name)
    config = open_clip.get_model_config(name)
    assert config is not None, f"open_clip lists {arch} but has no configuration for it"
    return config


def read_elsewhere(name: str) -> dict[str, Any]:
    """Read the configuration of a `local-dir:` or `hf-hub:` name at its place.

    Raises:
        WeightsError: there is no such folder or file, it cannot be downloaded, or it is not a
            configuration of open_clip.
    """
    _elsewhere[name] = config = read_description(name)["model_cfg"]
    return config


def read_description(name: str) -> dict[str, Any]:
    """What `open_clip_config.json` of a `local-dir:` or `hf-hub:` name holds: model_cfg, and
    preprocess_cfg ({} if it is missing).

    Raises:
        WeightsError: as `read_elsewhere`.
    """
    if name.startswith(HUB):
        path = hub_file(name.removeprefix(HUB), [HF_CONFIG_NAME])
    else:
        path = Path(name.removeprefix(FOLDER)) / HF_CONFIG_NAME
    content = read_json(path, lambda fault: WeightsError(f"model.arch: {fault}"))
    config = content.get("model_cfg") if isinstance(content, dict) else None
    if isinstance(content, dict) and isinstance(config, dict) and config.keys() >= CONFIG_KEYS:
        return {"preprocess_cfg": {}, **content}
    raise WeightsError(
        f"model.arch: {path}: not a configuration of open_clip; allowed: an object with model_cfg, "
        f"which has {', '.join(sorted(CONFIG_KEYS))}"
    )


def weights_elsewhere(name: str) -> Path:
    """The weights of a `local-dir:` or `hf-hub:` name.

    Raises:
        WeightsError: there are none, or a folder has several and none with open_clip's name.
    """
    if name.startswith(HUB):
        return hub_file(name.removeprefix(HUB), WEIGHTS_NAMES)
    folder = Path(name.removeprefix(FOLDER))
    files = [path for path in sorted(folder.glob("*")) if path.suffix in (".safetensors", ".bin")]
    named = [folder / name for name in WEIGHTS_NAMES if folder / name in files]
    if named or len(files) == 1:
        return (named or files)[0]
    raise WeightsError(
        f"model.arch: {folder}: found {', '.join(path.name for path in files) or 'no weights'}; "
        f"allowed: {' or '.join(WEIGHTS_NAMES)}, or a single file .safetensors or .bin"
    )


def _kept_config(name: str) -> dict[str, Any] | None:
    """The configuration that models/clip.safetensors keeps, if it is a model of this name."""
    try:
        clip = json.loads(read_metadata(CLIP_FILE)["clip"])
        return clip["config"] if clip["arch"] == name else None
    except (WeightsError, ValueError, RecursionError, TypeError, KeyError):
        return None  # load_clip names what is wrong with the file


@contextmanager
def known_name(
    name: str, config: dict[str, Any] | None, weights: str | None = None
) -> Iterator[str]:
    """A name from which open_clip builds a model without reading a folder or the hub.

    Args:
        name: as `open_clip_name` gives it.
        config: the configuration of a `local-dir:` or `hf-hub:` name; None = `model_config`.
        weights: path of the weights that are loaded for such a name.
    """
    if not is_elsewhere(name):
        yield name
        return
    content = {"model_cfg": config or model_config(name), "preprocess_cfg": {}}
    with TemporaryDirectory() as folder:
        (Path(folder) / HF_CONFIG_NAME).write_text(json.dumps(content), encoding="utf-8")
        if weights:
            link = f"open_clip_model{Path(weights).suffix}"
            os.symlink(Path(weights).resolve(), Path(folder) / link)
        yield f"{FOLDER}{folder}"


def input_size(arch: str, input_px: int) -> int:
    """`input_px` rounded up to a multiple of the vision tower's patch, or of its stride where it
    has convolutions.

    The size that an architecture is made for is kept: ViT-SO400M-14-SigLIP-384 was trained on the
    first 378 of 384 pixels.
    """
    if input_px == native_px(arch):
        return input_px
    stride = _stride(model_config(arch)["vision_cfg"])
    return math.ceil(input_px / stride) * stride


def _stride(vision: dict[str, Any]) -> int:
    if timm_name := vision.get("timm_model_name"):
        return _timm_stride(timm_name)
    return RESNET_STRIDE if isinstance(vision.get("layers"), list) else vision.get("patch_size", 16)


@cache
def _timm_stride(timm_name: str) -> int:
    """Pixels to a position of the last layer of a timm model, which is built without numbers."""
    try:
        with torch.device("meta"):
            trunk: Any = timm.create_model(timm_name)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"model.arch: timm cannot build its vision tower {timm_name} ({error})"
        ) from error
    return int(trunk.feature_info[-1]["reduction"])


def native_px(arch: str) -> int:
    """Side (px) of the input that an architecture is made for."""
    size = model_config(arch)["vision_cfg"].get("image_size", 224)
    return int(size[0] if isinstance(size, list) else size)


def embed_dim(arch: str) -> int:
    """D, the size of the shared embedding."""
    return int(model_config(arch)["embed_dim"])


def context_length(arch: str) -> int:
    """L, the tokens of a text, which are 77 unless the architecture says otherwise."""
    return int(model_config(arch)["text_cfg"].get("context_length", 77))


def check_text_extra(arch: str, *, tokenizer: bool = True) -> None:
    """Raise ConfigError if an architecture needs the package transformers, which only the extra
    `text` of this project installs.

    Args:
        arch: some have a tokenizer of transformers, and some a text tower.
        tokenizer: whether texts are cut into tokens; otherwise the text tower alone counts.
    """
    text = model_config(arch)["text_cfg"]
    parts = {"text tower": text.get("hf_model_name")}
    if tokenizer:
        parts["tokenizer"] = text.get("hf_tokenizer_name")
    needs = [f"its {part} ({name})" for part, name in parts.items() if name]
    if needs and importlib.util.find_spec("transformers") is None:
        raise ConfigError(
            f"model.arch: {arch} needs the package transformers for {' and '.join(needs)}, and it "
            "is not installed; `pip install 'clipzoo[text]'` installs it (in a clone: `uv pip "
            "install --editable '.[text]'`), or choose an architecture with CLIP's own tokenizer"
        )

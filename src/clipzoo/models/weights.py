"""Published CLIP weights: a pretrained tag of open_clip, or a file."""

import os
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import huggingface_hub
import open_clip
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from open_clip.model import resize_pos_embed
from safetensors import SafetensorError, safe_open
from torch import nn

from clipzoo.files import DiskError, named_disk_errors
from clipzoo.models.archives import named_tensors, read_file
from clipzoo.models.clip import build_clip, load_strictly, open_clip_name
from clipzoo.models.openai import is_openai
from clipzoo.tensors import WeightsError

SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")
PROBE_SECONDS = 8
"""Longest wait for a model hub that does not answer."""


def load_weights(arch: str, weights: str, input_px: int) -> nn.Module:
    """A CLIP with published weights.

    Position embeddings are resized if the weights were trained at another size than `input_px`. The
    towers have QuickGELU if the weights are OpenAI's or their tag says so; otherwise the activation
    of the architecture (`ViT-B-32-quickgelu` names it explicitly).

    Args:
        arch: an open_clip architecture, in either spelling of `open_clip_name`.
        weights: a pretrained tag, or the path of a file: a state dict of open_clip or OpenAI
            (PyTorch or safetensors), a TorchScript archive of OpenAI, a file of `save_clip`.
        input_px: input side, a multiple of the patch.

    Returns:
        the model: float32, CPU, evaluation mode.

    Raises:
        WeightsError: the tag or file does not exist, the hub cannot be reached, or the file does
            not fit.
    """
    name = open_clip_name(arch)
    tags = open_clip.list_pretrained_tags_by_model(name)
    if weights in tags:
        return _load_tag(name, weights, input_px)
    if Path(weights).is_file():
        return _load_file(name, Path(weights), input_px)
    if weights.endswith(SUFFIXES) or "/" in weights:
        raise WeightsError(f"model.weights: {weights}: no such file")
    raise WeightsError(
        f"model.weights: found {weights!r}; allowed: demo, random, the path of a file, or a tag of "
        f"{name}: {', '.join(tags) or 'it has none'}"
    )


def _load_file(name: str, path: Path, input_px: int) -> nn.Module:
    tensors = {
        key: value
        for key, value in named_tensors(read_file(path), str(path)).items()
        if not key.endswith("attn_mask")  # a constant in older files
    }
    model = build_clip(name, input_px, quick_gelu=True if _is_quick_gelu(path) else None)
    try:
        resize_pos_embed(tensors, model)
    except (AttributeError, RuntimeError) as error:
        raise WeightsError(f"{path}: its position embeddings do not fit {name}: {error}") from error
    load_strictly(model, tensors, str(path))
    return model


def _is_quick_gelu(path: Path) -> bool:
    if path.suffix != ".safetensors":
        return is_openai(path)
    try:
        with safe_open(path, framework="pt") as file:
            clip = (file.metadata() or {}).get("clip", "")  # written by save_clip
    except SafetensorError as error:
        raise WeightsError(f"{path}: not a safetensors file ({error})") from error
    return '"quick_gelu": true' in clip or is_openai(path)


def _load_tag(name: str, tag: str, input_px: int) -> nn.Module:
    config: dict[str, Any] = open_clip.get_pretrained_cfg(name, tag)
    quick_gelu = True if config.get("quick_gelu") else None
    cached, server = _cached_file(config), _server(config)
    alternatives = (
        f"other weights for {name}: model.weights demo (trained here, on rendered stills), "
        "random, or the path of a file; a mirror (HF_ENDPOINT=https://...); or a cache filled on "
        "another machine (HF_HOME)"
    )
    if cached is None and (huggingface_hub.constants.HF_HUB_OFFLINE or not is_reachable(server)):
        raise WeightsError(
            f"model.weights: {tag} has to be downloaded from {server}, which cannot be reached, "
            f"and is not in the cache; {alternatives}"
        )
    try:
        with named_disk_errors(huggingface_hub.constants.HF_HUB_CACHE):
            return build_clip(name, input_px, quick_gelu=quick_gelu, pretrained=cached or tag)
    except DiskError:
        raise
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"model.weights: {tag} cannot be loaded ({error}); {alternatives}"
        ) from error


def _cached_file(config: dict[str, Any]) -> str | None:
    """Path of the tag's weights in the model hub's cache, if they are there."""
    repository, filename = os.path.split(config.get("hf_hub", ""))
    if not repository:
        return None
    names = (f"{Path(filename).stem}.safetensors", filename)
    for name in names if filename else (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME):
        path = huggingface_hub.try_to_load_from_cache(repository, name)
        if isinstance(path, str):
            return path
    return None


def _server(config: dict[str, Any]) -> str:
    if config.get("hf_hub"):
        return huggingface_hub.constants.ENDPOINT
    parts = urlsplit(config["url"])
    return f"{parts.scheme}://{parts.netloc}"


def is_reachable(server: str, seconds: float = PROBE_SECONDS) -> bool:
    """Whether a server answers at all within `seconds`.

    Asks in a thread, because a name lookup may hang far longer than any socket timeout.
    """
    answers: list[bool] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(server, method="HEAD")
            urllib.request.urlopen(request, timeout=seconds).close()
        except urllib.error.HTTPError:
            pass  # it answers, even if it refuses this request
        except OSError:
            return
        answers.append(True)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(answers)

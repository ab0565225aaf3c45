"""Published CLIP weights: a pretrained tag of open_clip, or a file."""

import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import huggingface_hub
import open_clip
from open_clip.model import resize_pos_embed
from torch import nn

from clipzoo.config import ConfigError
from clipzoo.files import DiskError, named_disk_errors
from clipzoo.models import openai
from clipzoo.models.activation import activation_name, file_activation
from clipzoo.models.archives import named_tensors, read_file, unread_keys
from clipzoo.models.clip import build_clip, load_strictly, open_clip_name, read_clip_metadata
from clipzoo.models.pixels import PIXELS, Pixels, pixels_of_file, pixels_of_tag
from clipzoo.models.weights_folder import SUFFIXES, VARIABLE, find_tag, hub_files, tag_of_file
from clipzoo.tensors import WeightsError, read_metadata

PROBE_SECONDS = 8
"""Longest wait for a model hub that does not answer."""


def load_weights(
    arch: str,
    weights: str,
    input_px: int,
    activation: str | None = "auto",
    pixels: str | None = "auto",
    say: Callable[[str], None] = print,
) -> nn.Module:
    """A CLIP with published weights: float32, on the CPU, in evaluation mode.

    Position embeddings are resized if the weights were trained at a size other than `input_px`.

    Args:
        arch: an open_clip architecture, in either spelling of `open_clip_name`.
        weights: a pretrained tag, which is looked up in the folder of `CLIPZOO_WEIGHTS` before it
            is downloaded; or the path of a file: a state dict of open_clip or OpenAI (PyTorch or
            safetensors), a TorchScript archive of OpenAI, a file of `save_clip`.
        input_px: side of the input, a multiple of the patch.
        activation: the activation of a file that does not show it: auto, quickgelu or gelu; None =
            auto, where there is no key to set it.
        pixels: `model.pixels`; None as for `activation`.
        say: is called with the place of the weights, and with the keys of a file that nobody reads.

    Raises:
        WeightsError: the tag or file does not exist, the hub cannot be reached, the file does not
            fit, or its activation or its pixels are not known.
        ConfigError: `activation` is not auto, and the tag determines it.
    """
    name = open_clip_name(arch)
    tags = open_clip.list_pretrained_tags_by_model(name)
    if weights in tags:
        check_unread(weights, activation)
        return _load_tag(name, weights, input_px, pixels, say)
    if Path(weights).is_file():
        return _load_file(name, Path(weights), input_px, activation, pixels, say)
    if weights.endswith(SUFFIXES) or "/" in weights:
        raise WeightsError(f"model.weights: {weights}: no such file")
    raise WeightsError(
        f"model.weights: found {weights!r}; allowed: demo, random, the path of a file, or a tag of "
        f"{name}: {', '.join(tags) or 'it has none'}"
    )


def check_unread(weights: str, activation: str | None) -> None:
    """Raise ConfigError if an activation is given for weights that are not a file."""
    if activation not in (None, "auto"):
        raise ConfigError(
            f"model.activation: found {activation!r}; allowed: auto, because model.weights "
            f"{weights} and model.arch determine it; only a file needs it"
        )


def _load_file(
    name: str,
    path: Path,
    input_px: int,
    activation: str | None,
    pixels: str | None,
    say: Callable[[str], None],
    tag: str = "",
) -> nn.Module:
    """The towers of a file; '' = it is not known to be that of a pretrained tag."""
    content = read_file(path)
    if unread := unread_keys(content):
        say(f"{path}: keys that are not read: {', '.join(map(str, unread))}")
    tensors = named_tensors(content, str(path))
    for key in [key for key in tensors if key.endswith("attn_mask")]:
        del tensors[key]  # a constant in older files
    if tag:
        quick_gelu, chosen = _tag_is_quick(name, tag), _tag_pixels(name, tag, pixels)
    else:
        quick_gelu, reason = file_activation(name, path, content, activation)
        say(f"{path}: {activation_name(quick_gelu)} towers, because {reason}")
        chosen = _file_pixels(name, path, content, pixels)
    towers = build_clip(name, input_px, quick_gelu=quick_gelu, pixels=chosen)
    try:
        resize_pos_embed(tensors, towers)
    except (AttributeError, RuntimeError) as error:
        raise WeightsError(f"{path}: its position embeddings do not fit {name}: {error}") from error
    load_strictly(towers, tensors, str(path))
    return towers


def _file_pixels(name: str, path: Path, content: dict[str, Any], setting: str | None) -> Pixels:
    """The pixels of a file: those that are set, or that its content or its digest shows."""
    if setting in (None, "auto"):
        if path.suffix == ".safetensors" and "clip" in read_metadata(path):
            return Pixels.model_validate(read_clip_metadata(path)["pixels"])
        if openai.is_archive(content):
            return PIXELS["openai"]
        if model_and_tag := tag_of_file(name, path):
            return pixels_of_tag(*model_and_tag)
    return pixels_of_file(name, str(path), setting)


def _tag_is_quick(name: str, tag: str) -> bool:
    config: dict[str, Any] = open_clip.get_pretrained_cfg(name, tag)
    return bool(config.get("quick_gelu"))


def _tag_pixels(name: str, tag: str, setting: str | None) -> Pixels:
    return pixels_of_tag(name, tag) if setting in (None, "auto") else PIXELS[setting]


def _load_tag(
    name: str, tag: str, input_px: int, pixels: str | None, say: Callable[[str], None]
) -> nn.Module:
    """The towers of a pretrained tag: from a folder of this machine, the hub's cache or the hub."""
    config: dict[str, Any] = open_clip.get_pretrained_cfg(name, tag)
    local = find_tag(name, tag)
    if local:
        for text in (f"{tag}: {local.path} ({local.checked})", *local.notes):
            say(f"{VARIABLE}: {text}")
        if local.is_original:
            return _load_file(name, local.path, input_px, "auto", pixels, say, tag)
    cached, server = str(local.path) if local else _cached_file(config), _server(config)
    folder = f" and not in {VARIABLE}" if os.environ.get(VARIABLE) else ""
    alternatives = (
        f"a folder with its file ({VARIABLE}); other weights for {name}: model.weights demo "
        "(trained here, on rendered stills), random, or the path of a file; a mirror "
        "(HF_ENDPOINT=https://...); or a cache filled on another machine (HF_HOME)"
    )
    if cached is None and (huggingface_hub.constants.HF_HUB_OFFLINE or not is_reachable(server)):
        raise WeightsError(
            f"model.weights: {tag} has to be downloaded from {server}, which cannot be reached, "
            f"and is not in the cache{folder}; {alternatives}"
        )
    if cached:
        read_file(cached)  # open_clip does not compare checksums
    try:
        with named_disk_errors(huggingface_hub.constants.HF_HUB_CACHE):
            return build_clip(
                name,
                input_px,
                quick_gelu=_tag_is_quick(name, tag) or None,
                pixels=_tag_pixels(name, tag, pixels),
                pretrained=cached or tag,
            )
    except DiskError:
        raise
    except (OSError, RuntimeError) as error:
        where = f"{tag} ({cached})" if cached else tag
        raise WeightsError(
            f"model.weights: {where} cannot be loaded ({error}); {alternatives}"
        ) from error


def _cached_file(config: dict[str, Any]) -> str | None:
    """Path of the tag's weights in the model hub's cache; None = they are not there."""
    repository, names = hub_files(config)
    for name in names if repository else ():
        path = huggingface_hub.try_to_load_from_cache(repository, name)
        if isinstance(path, str):
            return path
    return None


def _server(config: dict[str, Any]) -> str:
    """The server from which a tag's weights are downloaded."""
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

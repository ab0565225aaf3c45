"""Published CLIP weights: a pretrained tag of open_clip, or a file."""

import os
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
from clipzoo.models.activation import activation_name, file_activation
from clipzoo.models.architectures import is_elsewhere, open_clip_name, weights_elsewhere
from clipzoo.models.archives import named_tensors, read_file, unread_keys
from clipzoo.models.clip import build_clip, load_strictly
from clipzoo.models.hub import cached_file, is_reachable
from clipzoo.models.known_pixels import pixels_elsewhere, pixels_of_file, pixels_of_tag
from clipzoo.models.pixels import PIXELS, Pixels
from clipzoo.models.weights_folder import SUFFIXES, VARIABLE, find_tag, hub_files
from clipzoo.tensors import WeightsError

BESIDE = "pretrained"
"""The value of `model.weights` for the weights that lie beside the configuration."""


class UnreachableError(WeightsError):
    """Weights are not on this machine, and the server that has them does not answer."""

    def __init__(self, text: str, server: str) -> None:
        super().__init__(text)
        self.server = server


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
        weights: `pretrained` for a `local-dir:` or `hf-hub:` name, whose weights lie beside its
            configuration; otherwise a pretrained tag, which is looked up in the folder of
            `CLIPZOO_WEIGHTS` before it is downloaded; or the path of a file: a state dict of
            open_clip or OpenAI (PyTorch or safetensors), a TorchScript archive of OpenAI, a file of
            `save_clip`.
        input_px: side of the input, a multiple of the patch.
        activation: the activation of a file that does not show it: auto, quickgelu or gelu; None =
            auto, where there is no key to set it.
        pixels: `model.pixels`: auto, or a key of PIXELS; None as for `activation`.
        say: is called with the place of the weights, and with the keys of a file that nobody reads.

    Raises:
        WeightsError: the tag or file does not exist, the hub cannot be reached (for a tag, an
            `UnreachableError`), the file does not fit, or its activation or its pixels are not
            known.
        ConfigError: `activation` is not auto, and the tag determines it.
    """
    name = open_clip_name(arch)
    tags = open_clip.list_pretrained_tags_by_model(name)
    chosen = PIXELS[pixels] if pixels not in (None, "auto") else None
    if weights in tags:
        check_unread(weights, activation)
        return _load_tag(name, weights, input_px, chosen or pixels_of_tag(name, weights), say)
    if is_elsewhere(name) and weights == BESIDE:
        check_unread(weights, activation)
        return _load_elsewhere(name, input_px, chosen or pixels_elsewhere(name), say)
    if Path(weights).is_file():
        path, content = Path(weights), read_file(weights)
        quick_gelu, reason = file_activation(name, path, content, activation)
        say(f"{path}: {activation_name(quick_gelu)} towers, because {reason}")
        chosen = chosen or pixels_of_file(name, path, content, has_key=pixels is not None)
        return _load_file(name, path, content, input_px, quick_gelu, chosen, say)
    if weights.endswith(SUFFIXES) or "/" in weights:
        raise WeightsError(f"model.weights: {weights}: no such file")
    raise WeightsError(
        f"model.weights: found {weights!r}; allowed: demo, random, the path of a file, or a tag of "
        f"{name}: {BESIDE if is_elsewhere(name) else ', '.join(tags) or 'it has none'}"
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
    content: dict[str, Any],
    input_px: int,
    quick_gelu: bool,
    pixels: Pixels,
    say: Callable[[str], None],
) -> nn.Module:
    """The towers of a file that `read_file` has read."""
    if unread := unread_keys(content):
        say(f"{path}: keys that are not read: {', '.join(map(str, unread))}")
    tensors = named_tensors(content, str(path))
    for key in [key for key in tensors if key.endswith("attn_mask")]:
        del tensors[key]  # a constant in older files
    towers = build_clip(name, input_px, quick_gelu=quick_gelu, pixels=pixels)
    try:
        resize_pos_embed(tensors, towers)
    except (AttributeError, RuntimeError) as error:
        raise WeightsError(f"{path}: its position embeddings do not fit {name}: {error}") from error
    load_strictly(towers, tensors, str(path))
    return towers


def _load_elsewhere(
    name: str, input_px: int, pixels: Pixels, say: Callable[[str], None]
) -> nn.Module:
    """The towers of a `local-dir:` or `hf-hub:` name, with the weights that lie there."""
    path = weights_elsewhere(name)
    read_file(path)  # names what is damaged, and refuses code
    say(f"{name}: {path.name}")
    return build_clip(name, input_px, pixels=pixels, pretrained=str(path))


def _load_tag(
    name: str, tag: str, input_px: int, pixels: Pixels, say: Callable[[str], None]
) -> nn.Module:
    """The towers of a pretrained tag: from a folder of this machine, the hub's cache or the hub."""
    config: dict[str, Any] = open_clip.get_pretrained_cfg(name, tag)
    is_quick = bool(config.get("quick_gelu"))
    local = find_tag(name, tag)
    if local:
        for text in (f"{tag}: {local.path} ({local.checked})", *local.notes):
            say(f"{VARIABLE}: {text}")
        if local.is_original:
            content = read_file(local.path)
            return _load_file(name, local.path, content, input_px, is_quick, pixels, say)
    cached, server = str(local.path) if local else cached_file(*hub_files(config)), _server(config)
    folder = f" and not in {VARIABLE}" if os.environ.get(VARIABLE) else ""
    alternatives = (
        f"a folder with its file ({VARIABLE}); other weights for {name}: model.weights demo "
        "(trained here, on rendered stills), random, or the path of a file; a mirror "
        "(HF_ENDPOINT=https://...); or a cache filled on another machine (HF_HOME)"
    )
    if cached is None and (huggingface_hub.constants.HF_HUB_OFFLINE or not is_reachable(server)):
        raise UnreachableError(
            f"model.weights: {tag} has to be downloaded from {server}, which cannot be reached, "
            f"and is not in the cache{folder}; {alternatives}",
            server,
        )
    if cached:
        read_file(cached)  # open_clip does not compare checksums
    try:
        with named_disk_errors(huggingface_hub.constants.HF_HUB_CACHE):
            return build_clip(
                name,
                input_px,
                quick_gelu=is_quick or None,
                pixels=pixels,
                pretrained=cached or tag,
            )
    except DiskError:
        raise
    except (OSError, RuntimeError) as error:
        where = f"{tag} ({cached})" if cached else tag
        raise WeightsError(
            f"model.weights: {where} cannot be loaded ({error}); {alternatives}"
        ) from error


def _server(config: dict[str, Any]) -> str:
    """The server from which a tag's weights are downloaded."""
    if config.get("hf_hub"):
        return huggingface_hub.constants.ENDPOINT
    parts = urlsplit(config["url"])
    return f"{parts.scheme}://{parts.netloc}"

"""The raw CLIP of open_clip as a classifier of videos: nothing is trained, any classes.

    openclip:ViT-B-32/openai     an architecture and one of its pretrained tags
    openclip:hf-hub:OWNER/NAME   a model of open_clip on the model hub
    openclip:local-dir:FOLDER    or in a folder

A video is the mean of the frame embeddings of its clips (method `raw`). Frames are made as
open_clip's own preprocessing makes images: as the file has them, resized once to the input.
"""

import hashlib
import sys
from importlib.metadata import version

import open_clip
import torch
from pydantic import Field
from torch import nn

from clipzoo.config import ConfigError, TestConfig
from clipzoo.files import near
from clipzoo.methods import untrained
from clipzoo.models.architectures import is_elsewhere, native_px, open_clip_name
from clipzoo.models.clip import ClipMetadata, describe_clip
from clipzoo.models.text import ClassText, embed_class_names
from clipzoo.models.weights import BESIDE, UnreachableError, load_weights
from clipzoo.models.weights_folder import VARIABLE
from clipzoo.serve.folder import FORMAT, FolderConfig, FramesOfVideos, ModelFolder
from clipzoo.serve.sources import OPEN_CLIP as PREFIX
from clipzoo.tensors import WeightsError

NUM_SEGMENTS = 8
"""Frames of a clip, evenly over the video."""
TEMPLATES = ["a video of {}."]
"""Of the templates with which CLIP's authors test it on Kinetics (arXiv 2103.00020), the one that
fits any class, whether a person does it or not."""


class RawConfig(FolderConfig):
    """What config.json would say of a CLIP that was not trained on classes."""

    class_names: list[str] = Field(max_length=0)
    """None: predictions name the classes that compete."""


def raw_clip(name: str) -> ModelFolder:
    """The model of an `openclip:` name, which is open and has no classes of its own.

    Prints on stderr where the weights come from.

    Raises:
        ConfigError: open_clip has no such architecture or tag.
        WeightsError: the weights cannot be downloaded, or are damaged; says what else to do.
    """
    arch, tag = _parsed(name)
    try:
        side = native_px(arch)
        towers = load_weights(arch, tag, side, say=lambda text: print(text, file=sys.stderr))
    except UnreachableError as error:
        raise WeightsError(
            f"{name}: its weights have to be downloaded from {error.server}, which cannot be "
            f"reached, and are not on this machine; give a folder with the file ({VARIABLE}), a "
            "cache filled on another machine (HF_HOME) or a mirror (HF_ENDPOINT=https://...), or "
            "use a model folder"
        ) from error
    except (WeightsError, ConfigError) as error:
        raise type(error)(f"{name}: {error}") from error
    clip = ClipMetadata.model_validate(describe_clip(towers, arch, side, tag))
    digest = _digest(towers)
    method, about = untrained(towers.requires_grad_(False), clip, NUM_SEGMENTS)
    config = RawConfig(
        method=about.method,
        options=about.options,
        num_segments=about.num_segments,
        clip=clip,
        format=FORMAT,
        kind="open",
        frames=FramesOfVideos(size="source", quality=2),
        views=TestConfig(clips=1, crops=1, dense=False, short_side_px=side, precision="fp32"),
        templates=TEMPLATES,
        class_names=[],
        recipe=name,
        weights_sha256=digest,
        version=version("clipzoo"),
    )
    return ModelFolder(config=config, method=method, text=_no_classes(towers, arch), towers=towers)


def _parsed(name: str) -> tuple[str, str]:
    """The architecture, as open_clip writes it, and the tag of an `openclip:` name."""
    rest = name.removeprefix(PREFIX)
    if is_elsewhere(rest):
        return rest, BESIDE
    arch, _, tag = rest.rpartition("/")
    if not arch or not tag:
        raise ConfigError(
            f"{name}: found no {'tag' if arch else 'architecture and tag'}; allowed: "
            f"{PREFIX}ARCH/TAG, as {PREFIX}ViT-B-32/openai, {PREFIX}hf-hub:OWNER/NAME, or "
            f"{PREFIX}local-dir:FOLDER"
        )
    try:
        arch = open_clip_name(arch)
    except ConfigError as error:
        raise ConfigError(
            f"{name}: found the architecture {arch!r}{near(arch, open_clip.list_models())}; "
            f"allowed: {PREFIX}ARCH/TAG with one of open_clip; open_clip.list_pretrained() lists "
            "all"
        ) from error
    if tag not in (tags := open_clip.list_pretrained_tags_by_model(arch)):
        raise ConfigError(
            f"{name}: found the tag {tag!r}{near(tag, tags)}; allowed for {arch}: "
            f"{', '.join(tags) or 'none, because open_clip has no weights for it'}"
        )
    return arch, tag


def _no_classes(towers: nn.Module, arch: str) -> ClassText:
    """The text of no classes: a prompt tells its sizes."""
    return embed_class_names(towers, arch, ["video"], TEMPLATES).of_classes([])


def _digest(towers: nn.Module) -> str:
    """The sha256 of all tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(towers.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()

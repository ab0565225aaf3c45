"""Which pixels weights have: those of a tag, a configuration, an architecture or a file."""

from pathlib import Path
from typing import Any

import open_clip
from open_clip.transform import PreprocessCfg, merge_preprocess_dict

from clipzoo.models.activation import is_openais
from clipzoo.models.architectures import is_elsewhere, read_description
from clipzoo.models.clip import read_clip_metadata
from clipzoo.models.pixels import OPENAI, PIXELS, Pixels, read_pixels
from clipzoo.models.weights_folder import tag_of_file
from clipzoo.tensors import WeightsError, read_metadata


def pixels_of_tag(name: str, tag: str) -> Pixels:
    """The pixels of a pretrained tag of an architecture (`open_clip_name`).

    Raises:
        WeightsError: as `read_pixels`.
    """
    return _completed(open_clip.get_pretrained_cfg(name, tag), f"{name}, {tag}")


def pixels_elsewhere(name: str) -> Pixels:
    """The pixels of a `local-dir:` or `hf-hub:` name, which its configuration has.

    Raises:
        WeightsError: as `read_pixels`, or the configuration cannot be read.
    """
    return _completed(read_description(name)["preprocess_cfg"], name)


def _completed(config: dict[str, Any], where: str) -> Pixels:
    """The pixels of a configuration, in which open_clip's defaults may be missing."""
    return read_pixels(merge_preprocess_dict(PreprocessCfg(), config), where)


def pixels_of_arch(name: str) -> dict[str, list[str]]:
    """The keys of PIXELS that the tags of an architecture have, each with these tags; open_clip's
    default if there are no tags."""
    names = {pixels: key for key, pixels in PIXELS.items()}
    found: dict[str, list[str]] = {}
    for tag in open_clip.list_pretrained_tags_by_model(name):
        found.setdefault(names[pixels_of_tag(name, tag)], []).append(tag)
    return found or {"openai": []}


def pixels_of_file(name: str, path: Path, content: dict[str, Any], *, has_key: bool) -> Pixels:
    """The pixels of a weights file of an architecture, where none are set.

    They are those that a file of `save_clip` records, those of the configuration elsewhere, those
    that all tags of the architecture share, OpenAI's for OpenAI's weights, or those of the tag with
    the file's sha256.

    Args:
        content: what `archives.read_file` returns for the file.
        has_key: whether there is a parameter that sets them, unlike for `attributes.weights`.

    Raises:
        WeightsError: none of these tells.
    """
    if path.suffix == ".safetensors" and "clip" in read_metadata(path):
        return Pixels.model_validate(read_clip_metadata(path)["pixels"])
    if is_elsewhere(name):
        return pixels_elsewhere(name)
    found = pixels_of_arch(name)
    if len(found) == 1:
        return PIXELS[next(iter(found))]
    if is_openais(name, path, content):
        return OPENAI
    if model_and_tag := tag_of_file(name, path):
        return pixels_of_tag(*model_and_tag)
    choices = "; ".join(f"{key} ({PIXELS[key]}), as {', '.join(t)}" for key, t in found.items())
    raise WeightsError(
        f"{path}: its content does not show which pixels it was trained with, and the weights of "
        f"{name} differ: {choices}; {'set model.pixels' if has_key else 'give a tag instead'}"
    )


def pixels_of_stand_in(name: str) -> Pixels:
    """The pixels of weights that nobody trained elsewhere: those of the configuration elsewhere, or
    those that all tags of the architecture have, or else OpenAI's."""
    if is_elsewhere(name):
        return pixels_elsewhere(name)
    found = pixels_of_arch(name)
    return PIXELS[next(iter(found))] if len(found) == 1 else OPENAI

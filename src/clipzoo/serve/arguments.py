"""Checks of what callers give to a model."""

from collections.abc import Sequence
from pathlib import Path

import torch

from clipzoo.config import ConfigError, ViewsConfig
from clipzoo.sections import build


def find_device(name: str) -> torch.device:
    """The device of a name; `auto` is a GPU if there is one.

    Raises:
        ConfigError: this machine has no such device.
    """
    gpus: list[str] = []
    if torch.cuda.is_available():
        gpus = ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if name not in ("auto", "cpu", *gpus):
        why = "" if gpus else " (no CUDA device is visible)"
        allowed = ", ".join(["auto", "cpu", *gpus])
        raise ConfigError(f"device: found {name!r}; allowed here: {allowed}{why}")
    return torch.device(("cuda" if gpus else "cpu") if name == "auto" else name)


def checked_texts(key: str, texts: Sequence[str]) -> list[str]:
    """A list of texts; ConfigError if it is empty, or one text, whose letters would be taken."""
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise ConfigError(f'{key}: found {texts!r}; allowed: a list of texts, as ["yoga"]')
    if not len(texts):
        raise ConfigError(f"{key}: found none; allowed: one or more")
    return list(texts)


def checked_views(views: tuple[int, int] | None) -> ViewsConfig | None:
    """Numbers of temporal clips and of spatial crops; ConfigError unless a test may have them."""
    if views is None:
        return None
    num_clips, num_crops = views
    return build(ViewsConfig, {"clips": num_clips, "crops": num_crops}, "views")


def check_indices(indices: Sequence[int], num_frames: int, video: str | Path) -> None:
    """Raise ConfigError if some indices are not those of frames of a video."""
    if wrong := [index for index in indices if not 0 <= index < num_frames]:
        raise ConfigError(
            f"indices: found {wrong[0]}; allowed: 0 to {num_frames - 1}, the frames of {video}"
        )

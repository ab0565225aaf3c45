"""What a dataset is: datasets/<name>.yaml, and where its raw videos are."""

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clipzoo.config import ConfigError, Params, load

SPEC_DIR = Path("datasets")
RAW_DIR = Path("data/raw")
ANNOTATION_DIR = Path("data/annotations")


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """One dataset: datasets/<name>.yaml."""

    about: str
    """What it is and where users get it."""
    format: Literal["ucf101", "kinetics", "folder"]
    """Of its annotation files: a key of `clipzoo.data.annotations.PARSERS`."""
    reader: Literal["shards", "directory", "video"] = "shards"
    """shards: extract frames; directory: read existing frame files; video: decode on the fly."""
    fps: float | None = None
    """Frames a second to keep; None = every frame."""
    keep_damaged: bool = False
    """Keep what ffmpeg decodes of damaged videos (counted and listed) instead of refusing them."""
    frame_template: str = "img_{:05d}.jpg"
    """Names of frame files, for `reader: directory`."""
    first_index: int = 1
    """Number of the first frame file, for `reader: directory`."""
    val_fraction: float = 0.2
    """Share of every class for validation, for `format: folder` without train/ and val/."""
    num_classes: int | None = None
    """Expected number of classes; None = not checked."""
    num_train: int | None = None
    """Expected number of annotated training videos (of `data.split`); None = not checked."""
    num_val: int | None = None
    """Expected number of annotated validation videos (of `data.split`); None = not checked."""

    def __post_init__(self) -> None:
        if self.fps is not None and self.fps <= 0:
            raise ConfigError(f"fps: found {self.fps}; allowed: above 0, or leave it out")
        if not 0 < self.val_fraction <= 1:
            raise ConfigError(f"val_fraction: found {self.val_fraction}; allowed: 0 < f <= 1")
        try:
            ok = self.frame_template.format(1) != self.frame_template.format(2)
        except (IndexError, KeyError, ValueError):
            ok = False
        if not ok:
            raise ConfigError(
                f"frame_template: found {self.frame_template!r}; allowed: like 'img_{{:05d}}.jpg'"
            )


def load_spec(name: str) -> DatasetSpec:
    """Read datasets/<name>.yaml.

    Raises:
        ConfigError: there is no such dataset (the message lists those there are), or the file is
            wrong.
    """
    path = SPEC_DIR / f"{name}.yaml"
    known = sorted(p.stem for p in SPEC_DIR.glob("*.yaml"))
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ConfigError(
            f"unknown dataset {name!r}{hint}; known: {', '.join(known) or 'none'}; a new one needs "
            f"{path}, or `python -m clipzoo scan {name} FOLDER` for a folder of classes"
        )
    return load(DatasetSpec, path)


def raw_root(params: Params, name: str) -> Path:
    """Folder that the paths of a dataset's manifest start from.

    $CLIPZOO_DATA/<name> where that is set and exists; else, and for demo datasets, data/raw/<name>.
    """
    if name not in params.data.demo and os.environ.get("CLIPZOO_DATA"):
        elsewhere = Path(os.environ["CLIPZOO_DATA"]) / name
        if elsewhere.exists():
            return elsewhere
    return RAW_DIR / name

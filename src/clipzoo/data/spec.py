"""Dataset descriptions, datasets/<name>.yaml, and the locations of raw videos."""

import os
import re
import shlex
import string
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from clipzoo.config import ConfigError, Params, Section, build
from clipzoo.data.records import MAX_FRAMES, check_video_id
from clipzoo.files import near
from clipzoo.yaml_files import read_yaml

SPEC_DIR = Path("datasets")
RAW_DIR = Path("data/raw")
ANNOTATION_DIR = Path("data/annotations")
EXPERIMENTS_DIR = (".dvc", "tmp", "exps")
"""The folder below which DVC makes the copies for its experiments."""


MOST_REPEATS, MOST_CHOICES, MOST_CHARACTERS = 3, 4, 255
"""The largest numbers of `* + {m,n}` and of `? |` in an id_pattern, and of characters in a name
that is compared with it. Other patterns may take forever for one name; within these limits it takes
seconds at worst."""
_LETTER = r"(?:\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|[^\\\[\](){}*+?|])"  # or an escape, or a class
_TOKEN = re.compile(
    rf"(?P<repeat>{_LETTER}(?:[*+]|\{{\d{{0,3}},\d{{0,3}}\}})\??)"
    rf"|(?P<choice>(?:{_LETTER}|\))\?\??|\|)|{_LETTER}(?:\{{\d{{1,3}}\}})?|\((?:\?:)?|\)"
)


def _quick_pattern(pattern: str) -> str:
    tokens = list(_TOKEN.finditer(pattern))
    counts = Counter(token.lastgroup for token in tokens)
    quick = "".join(token[0] for token in tokens) == pattern  # nothing else is in it
    quick &= counts["repeat"] <= MOST_REPEATS and counts["choice"] <= MOST_CHOICES
    try:
        groups = re.compile(pattern).groups if pattern and quick else 0
    except (re.error, RecursionError, OverflowError):
        groups = 0
    if pattern and groups < 1:
        raise ValueError(
            f"a regular expression with a group, at most {MOST_REPEATS} of * + {{m,n}} and "
            f"{MOST_CHOICES} of ? |, none of * + {{}} after a group, and no (? except (?:"
        )
    return pattern


_NUMBER = re.compile(r"0?[1-9]?\d?d?")
"""How a template may write the number of a frame: at most 99 digits wide."""


def _numbered_name(template: str) -> str:
    allowed = {"": _NUMBER, "0": _NUMBER, "folder": re.compile("")}
    try:
        fields = [field for field in string.Formatter().parse(template) if field[1] is not None]
        plain = all(
            name in allowed and allowed[name].fullmatch(form or "") and not conversion
            for _, name, form, conversion in fields
        )
        names = [template.format(number, folder="x") for number in (1, 2)] if plain else [""]
    except (IndexError, ValueError):
        names = [""]
    if names[0] == names[-1] or check_video_id(names[0]):
        raise ValueError("like 'img_{:05d}.jpg'; {folder} is the name of the folder")
    return template


class DatasetSpec(Section):
    """One dataset, as described by datasets/<name>.yaml."""

    about: str
    """What the dataset is and where to get it."""
    format: Literal[
        "activitynet", "charades", "folder", "hmdb51", "kinetics", "peer_lists", "ssv2", "ucf101"
    ]
    """Format of its annotation files, a key of `clipzoo.annotations.formats.PARSERS`."""
    class_names: str = ""
    """Committed label file (src/clipzoo/reference/labels/<name>.csv) that names and numbers the
    classes; '' = as in the annotation files. A labels.csv next to them takes precedence."""
    only_listed_classes: bool = False
    """Leave out videos whose classes are not in the label file, instead of refusing them."""
    trust_labels: bool = False
    """Take labels as they are where a video is in the folder of another class, and print how many,
    instead of refusing them."""
    evaluate_on: Literal["val", "test"] = "val"
    """The official set that val.csv is made from, for `format: kinetics`."""
    evaluation_only: bool = False
    """The dataset has no training set."""
    id_pattern: Annotated[str, AfterValidator(_quick_pattern)] = ""
    """A regular expression for file names (without folder and extension); its first group is the
    video's id. '' = the whole name. Names that do not match, or of over 255 characters, are used
    unchanged. Patterns that may take forever are refused."""
    reader: Literal["shards", "directory", "video"] = "shards"
    """shards: extract frames; directory: read existing frame files; video: decode on the fly."""
    extract: Literal["annotated", "all"] = "annotated"
    """annotated: leave out files that no annotation names; all: extract them too."""
    fps: float | None = Field(default=None, gt=0)
    """The frames a second to keep; None = every frame."""
    segment_rule: Literal["shown", "truncated"] = "shown"
    """Which frames an annotated segment has. shown: those with start <= i / fps < end; segments of
    the same frames count once. truncated: trunc(end * fps - start * fps) frames from
    trunc(start * fps) on; every segment counts (BIKE's Charades). Frame 0 is the one shown at 0 s
    on a player's clock; stored frames begin where the picture does."""
    overrun_frames: int | None = Field(default=None, ge=0)
    """How many frames after its video a segment may end; it is then cut, and one that ends later
    counts as missing. None = any number, if the segment begins before the end."""
    keep_damaged: bool = False
    """Keep what ffmpeg decodes of damaged videos (counted and listed) instead of refusing them."""
    frame_template: Annotated[str, AfterValidator(_numbered_name)] = "img_{:05d}.jpg"
    """The names of frame files, for `reader: directory`; `{folder}` is the name of their folder."""
    first_index: int = Field(default=1, ge=0, le=MAX_FRAMES)
    """The number of the first frame file, for `reader: directory`."""
    val_fraction: float = Field(default=0.2, gt=0, le=1)
    """The share of every class for validation, for `format: folder` without train/ and val/."""
    num_classes: int | None = None
    """The expected number of classes, which, like those below, is not checked if it is None."""
    num_train: list[int] | None = Field(default=None, min_length=1)
    """The expected number of annotated training videos (or instances) of each official split."""
    num_val: list[int] | None = Field(default=None, min_length=1)
    """The expected number of annotated validation videos of each official split."""
    num_whole: int | None = None
    """The expected number of videos in whole.csv."""
    approx_videos: int | None = None
    """The number of videos, for estimates, if the numbers above are unknown or count segments."""

    def video_id(self, path: str) -> str:
        """The id of a file: its path without extension, the name reduced by `id_pattern`.

        Example: with `id_pattern: (?:v_)?(.{11})`, `val/v_-02DygXbn6w` gives `val/-02DygXbn6w`.
        """
        folder, slash, name = path.rpartition("/")
        compared = self.id_pattern and len(name) <= MOST_CHARACTERS
        match = re.fullmatch(self.id_pattern, name) if compared else None
        return folder + slash + (match[1] if match and match[1] else name)

    def frame_name(self, folder: str, index: int) -> str:
        """Name of the file of frame `index`, counted from 0, in the folder at the path `folder`."""
        name = folder.rpartition("/")[2]
        return self.frame_template.format(self.first_index + index, folder=name)

    def expected(self, kind: str, split: int) -> int | None:
        """Expected number of `train` or `val` videos of an official split, None = unknown;
        ConfigError if the dataset has no such split."""
        numbers = {"train": self.num_train, "val": self.num_val}[kind]
        if numbers is None:
            return None
        if not 1 <= split <= len(numbers):
            raise ConfigError(f"data.split: found {split}; allowed: 1 to {len(numbers)}")
        return numbers[split - 1]

    def total(self, split: int) -> int:
        """Number of annotated videos, 0 if unknown; for estimates."""
        if self.approx_videos or self.num_whole:
            return self.approx_videos or self.num_whole or 0
        if split > min(len(self.num_train or [split]), len(self.num_val or [split])):
            return 0  # a wrong data.split is reported by `expected`
        return (self.expected("train", split) or 0) + (self.expected("val", split) or 0)


def load_spec(name: str) -> DatasetSpec:
    """Read datasets/<name>.yaml; ConfigError if the dataset is unknown (the message lists the known
    ones), or its file is invalid."""
    path = SPEC_DIR / f"{name}.yaml"
    known = sorted(p.stem for p in SPEC_DIR.glob("*.yaml"))
    if name not in known:
        raise ConfigError(
            f"unknown dataset {name!r}{near(name, known)}; known: {', '.join(known) or 'none'}; "
            f"a new one needs {path}, or `clipzoo scan {shlex.quote(name)} FOLDER` for a "
            "folder of classes"
        )
    return build(DatasetSpec, read_yaml(path), path)


def raw_root(params: Params, name: str) -> Path:
    """The folder that the paths in a dataset's manifest are relative to.

    It is $CLIPZOO_DATA/<name> if that is set and exists; otherwise, and for demo datasets, it is
    data/raw/<name>. A copy of the repository in which DVC runs an experiment (`--temp`, `--queue`)
    has no link to the videos, as git ignores it; there, it is data/raw/<name> of the repository
    itself.
    """
    here = RAW_DIR / name
    if name in params.data.demo:
        return here
    if os.environ.get("CLIPZOO_DATA"):
        elsewhere = Path(os.environ["CLIPZOO_DATA"]) / name
        if elsewhere.exists():
            return elsewhere
    parts = Path.cwd().parts  # of a copy: <repository>/.dvc/tmp/exps/*/*
    for i in range(len(parts) - len(EXPERIMENTS_DIR)):
        if parts[i : i + len(EXPERIMENTS_DIR)] == EXPERIMENTS_DIR:
            original = Path(*parts[:i]) / here
            return original if original.exists() and not here.exists() else here
    return here

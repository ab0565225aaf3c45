"""`python -m clipzoo scan DATASET ROOT`: write a dataset's manifest and, for folders of classes,
its other files."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from clipzoo.annotations.formats.folder import validation_share
from clipzoo.config import check_dataset_name
from clipzoo.data.spec import ANNOTATION_DIR, RAW_DIR, SPEC_DIR, load_spec
from clipzoo.files import ListError, read_rows, replacing, write_csv
from clipzoo.frames.manifest import find_videos, manifest_path, write_manifest
from clipzoo.yaml_files import is_plain_text

FOLDER_SPEC = """\
about: Your videos, in one folder per class.
format: folder
val_fraction: {val_fraction} # share of each class for validation, unless there are train/ and val/
"""


@dataclass(frozen=True)
class ClassCount:
    """The videos of one class."""

    name: str
    num_train: int
    num_val: int

    @property
    def num_videos(self) -> int:
        """Of both sets."""
        return self.num_train + self.num_val


@dataclass(frozen=True)
class ScanSummary:
    """What a scan found and wrote."""

    num_videos: int
    num_bytes: int
    classes: list[ClassCount]
    """For `format: folder`; empty for other formats."""
    others: list[str]
    """Files without a video extension."""
    written: list[str]
    """Files to track with git."""
    link: str
    """The created link to the videos; empty = none."""
    only_val: bool
    """Each class has only one video, so all are for validation and none for training."""

    @property
    def class_names(self) -> list[str]:
        """Of `classes`."""
        return [count.name for count in self.classes]


def scan(dataset: str, root: Path) -> ScanSummary:
    """Find the videos below a folder and write data/raw/<dataset>.csv.

    A dataset without a datasets/<dataset>.yaml gets one of `format: folder`. For that format,
    data/annotations/<dataset>/classes.csv is written as well; names already in it do not change. If
    `root` is not where the pipeline looks (CLIPZOO_DATA/<dataset>, data/raw/<dataset>), the link
    data/raw/<dataset> is created.

    Raises:
        ListError: the folder or its videos cannot be used; nothing is written.
        ConfigError: datasets/<dataset>.yaml is invalid.
    """
    try:
        check_dataset_name(dataset)
        if not is_plain_text(dataset):
            raise ValueError("a name that YAML reads as text without quotes, such as videos_2024")
    except ValueError as error:
        raise ListError(f"dataset: found {dataset!r}; allowed: {error}") from None
    if not root.is_dir():
        raise ListError(f"{root}: no such folder; give the folder that holds the dataset's videos")
    written = []
    spec_path = SPEC_DIR / f"{dataset}.yaml"
    if not spec_path.exists():
        with replacing(spec_path) as part:
            part.write_text(FOLDER_SPEC.format(val_fraction=0.2), encoding="utf-8")
        written.append(str(spec_path))
    try:
        spec = load_spec(dataset)
        videos, others = find_videos(root, spec)
        folders = _class_folders([v.video_id for v in videos]) if spec.format == "folder" else []
        single = bool(folders) and len(videos) == len(folders)
        if written and single:
            with replacing(spec_path) as part:
                part.write_text(FOLDER_SPEC.format(val_fraction=1.0), encoding="utf-8")
        link = _link(dataset, root)
    except (ValueError, OSError):
        if written:
            spec_path.unlink()
        raise
    classes = []
    val_fraction = load_spec(dataset).val_fraction
    if folders:
        names = _write_classes(dataset, folders)
        counts = _count_videos([v.video_id for v in videos], val_fraction)
        classes = [ClassCount(n, *counts[folder]) for folder, n in zip(folders, names, strict=True)]
        written.append(str(classes_path(dataset)))
    write_manifest(videos, manifest_path(dataset))
    written.append(str(manifest_path(dataset)))
    num_bytes = 0 if spec.reader == "directory" else sum(video.size for video in videos)
    only_val = single and val_fraction == 1
    return ScanSummary(len(videos), num_bytes, classes, others, written, link, only_val)


def classes_path(dataset: str) -> Path:
    """File with the names of the class folders, for `format: folder`."""
    return ANNOTATION_DIR / dataset / "classes.csv"


def _count_videos(video_ids: list[str], val_fraction: float) -> dict[str, tuple[int, int]]:
    """Videos for training and validation of each class folder, as build_lists will divide them."""
    parts = [video_id.split("/") for video_id in video_ids]
    if _is_divided(parts):
        counts = Counter((part[0], part[1]) for part in parts)
        folders = {folder for _, folder in counts}
        return {folder: (counts["train", folder], counts["val", folder]) for folder in folders}
    shares = {}
    for folder, num in Counter(part[0] for part in parts).items():
        num_val = validation_share(num, val_fraction)
        shares[folder] = (num - num_val, num_val)
    return shares


def _is_divided(parts: list[list[str]]) -> bool:
    """Whether ids, split at `/`, begin with the sets train and val."""
    return {part[0] for part in parts} == {"train", "val"}


def _class_folders(video_ids: list[str]) -> list[str]:
    """Class folders of `<class>/<video>` or train/<class>/<video> and val/<class>/<video>."""
    parts = [video_id.split("/") for video_id in video_ids]
    divided = _is_divided(parts)
    depth = 1 if divided else 0
    loose = ["/".join(part) for part in parts if len(part) < depth + 2]
    if loose:
        use = "train/CLASS/VIDEO and val/CLASS/VIDEO" if divided else "CLASS/VIDEO"
        raise ListError(f"{len(loose)} videos are in no class folder ({loose[0]}); use {use}")
    return sorted({part[depth] for part in parts})


def _write_classes(dataset: str, folders: list[str]) -> list[str]:
    path = classes_path(dataset)
    known = {}
    if path.exists():
        known = {folder: name for _, folder, name in read_rows(path, ("folder", "name"))}
    rows = [(folder, known.get(folder, folder.replace("_", " "))) for folder in folders]
    write_csv(("folder", "name"), rows, path)
    return [name for _, name in rows]


def _link(dataset: str, root: Path) -> str:
    """Make data/raw/<dataset> a link to `root` unless the pipeline finds the videos anyway."""
    link, target = RAW_DIR / dataset, root.resolve()
    data_root = os.environ.get("CLIPZOO_DATA")
    places = [link, Path(data_root) / dataset] if data_root else [link]
    if data_root and places[1].exists() and places[1].resolve() != target:
        raise ListError(f"{places[1]} (CLIPZOO_DATA) is not {root}; rename the dataset or move one")
    if any(place.exists() and place.resolve() == target for place in places):
        return ""
    if link.is_symlink() or link.exists():
        raise ListError(f"{link} exists and is not {root}; remove it, or choose another name")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target, target_is_directory=True)
    return str(link)

"""The manifest data/raw/<dataset>.csv: the raw files of a dataset, as `scan` finds them.

DVC depends on this small file instead of hashing terabytes of video; extraction rejects files that
no longer have the size in the manifest.
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from clipzoo.data.records import check_video_id
from clipzoo.data.spec import RAW_DIR, DatasetSpec
from clipzoo.files import ListError, raise_all, read_rows, write_csv

VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"),
    *(".mts", ".ogv", ".ts", ".webm", ".wmv"),
)
COLUMNS = ("video_id", "path", "size")


@dataclass(frozen=True, slots=True)
class RawVideo:
    """One line of a manifest."""

    video_id: str
    """The path without its extension, or the part of it that `id_pattern` matches."""
    path: str
    """Relative to the dataset's raw root."""
    size: int
    """Bytes; for a directory of frames the number of its frame files."""


def manifest_path(dataset: str) -> Path:
    """Path of a dataset's manifest."""
    return RAW_DIR / f"{dataset}.csv"


def read_manifest(path: Path) -> list[RawVideo]:
    """Read and check a manifest.

    Raises:
        ListError: the file is missing or has no videos, or has lines with a wrong number of fields,
            an absolute path or one that leaves the root, a size that is not a number, or a
            duplicate video; lists them all.
    """
    if not path.exists():
        raise ListError(
            f"{path}: no such file; run `python -m clipzoo scan {path.stem} FOLDER` first"
        )
    videos, faults, seen = [], [], {}
    for line, video_id, file, size in read_rows(path, COLUMNS):
        fault = check_video_id(video_id) or check_video_id(file)
        if fault is None and not re.fullmatch(r"[0-9]{1,18}", size):
            fault = f"size: found {size[:100]!r}; allowed: a whole number of bytes"
        if fault is None and video_id in seen:
            fault = f"video {video_id!r} is in line {seen[video_id]} too"
        if fault:
            faults.append(f"{path}:{line}: {fault}")
            continue
        seen[video_id] = line
        videos.append(RawVideo(video_id, file, int(size)))
    raise_all(f"{path}: {len(faults)} bad lines", faults)
    if not videos:
        raise ListError(f"{path}: lists no videos; run `python -m clipzoo scan {path.stem} FOLDER`")
    return videos


def write_manifest(videos: list[RawVideo], path: Path) -> None:
    """Write a manifest, which `read_manifest` reads."""
    write_csv(COLUMNS, ((v.video_id, v.path, v.size) for v in videos), path)


def find_videos(root: Path, spec: DatasetSpec) -> tuple[list[RawVideo], list[str]]:
    """All videos below a folder, sorted by path, and the paths of files without a video extension.

    Hidden files and folders are skipped; links are followed. With `reader: directory`, a video is a
    folder of frame files numbered without a gap.

    Raises:
        ListError: the folder does not exist or has no videos, two files have the same id, or a
            name cannot be stored.
    """
    if not root.is_dir():
        raise ListError(f"{root}: no such folder; give the folder that holds the dataset's videos")
    if spec.reader == "directory":
        videos, others = _frame_folders(root, spec), []
    else:
        files = sorted(_walk(root))
        others = [
            file for file in files if PurePosixPath(file).suffix.lower() not in VIDEO_SUFFIXES
        ]
        paths = [file for file in files if PurePosixPath(file).suffix.lower() in VIDEO_SUFFIXES]
        sizes = [(root / file).stat().st_size for file in paths]
        ids = [spec.video_id(str(PurePosixPath(file).with_suffix(""))) for file in paths]
        videos = [RawVideo(*row) for row in zip(ids, paths, sizes, strict=True)]
    _check_ids(videos, root)
    if not videos:
        raise ListError(
            f"{root}: no videos found (files that end in {' '.join(VIDEO_SUFFIXES)}); "
            f"{len(others)} other files"
        )
    return videos, others


def _check_ids(videos: list[RawVideo], root: Path) -> None:
    faults = [f"{root}: {fault}" for v in videos if (fault := check_video_id(v.video_id))]
    first: dict[str, str] = {}
    for video in videos:
        other = first.setdefault(video.video_id, video.path)
        if other != video.path:
            faults.append(f"{root}: {other} and {video.path} have the same id, {video.video_id!r}")
    raise_all(f"{root}: {len(faults)} names that cannot be used; rename them", faults)


def _walk(root: Path) -> Iterator[str]:
    """Paths of files below `root`, relative, with `/`; a folder linked twice is entered once."""
    entered = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if os.path.realpath(folder) in entered:
            folders.clear()
            continue
        entered.add(os.path.realpath(folder))
        for name in files:
            if not name.startswith("."):
                yield Path(folder, name).relative_to(root).as_posix()


def _frame_folders(root: Path, spec: DatasetSpec) -> list[RawVideo]:
    folders: dict[str, list[str]] = {}
    for file in _walk(root):
        folder, _, name = file.rpartition("/")
        folders.setdefault(folder, []).append(name)
    videos, faults = [], []
    for folder, names in sorted(folders.items()):
        try:
            count = count_frames(names, spec)
        except ListError as error:
            faults.append(f"{root / folder}: {error}")
            continue
        if count:
            videos.append(RawVideo(spec.video_id(folder), folder, count))
    raise_all(f"{root}: {len(faults)} folders that cannot be read", faults)
    return videos


def count_frames(names: Iterable[str], spec: DatasetSpec) -> int:
    """Number of frame files among the names of a folder; 0 if no name matches `frame_template`.

    Raises:
        ListError: the files are not numbered from `first_index` on without a gap.
    """
    before, _, rest = spec.frame_template.partition("{")
    after = rest.partition("}")[2]
    pattern = re.compile(re.escape(before) + r"\d+" + re.escape(after))
    frame_names = {name for name in names if pattern.fullmatch(name)}
    for i in range(len(frame_names)):
        name = spec.frame_template.format(spec.first_index + i)
        if name not in frame_names:
            raise ListError(
                f"{name} is not among {len(frame_names)} frame files; frames must be numbered from "
                f"first_index = {spec.first_index} on without a gap, as {spec.frame_template}"
            )
    return len(frame_names)

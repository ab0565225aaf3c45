"""The manifest data/raw/<dataset>.csv: the raw files of a dataset, as `scan` finds them.

DVC depends on this small file instead of hashing terabytes of video; extraction rejects files that
no longer have the size in the manifest.
"""

import os
import re
import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from clipzoo.data.records import check_video_id
from clipzoo.data.spec import RAW_DIR, DatasetSpec
from clipzoo.files import ListError, file_kind, raise_all, read_rows, write_csv

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
    """The path relative to the dataset's raw root."""
    size: int
    """The number of bytes; for a directory of frames, the number of its frame files."""


def manifest_path(dataset: str) -> Path:
    return RAW_DIR / f"{dataset}.csv"


def read_manifest(path: Path) -> list[RawVideo]:
    """Read and check a manifest.

    Raises:
        ListError: the file is missing or has no videos; or lists every line with a wrong number of
            fields, a path that is absolute or leaves the root, a size that is not a number, or a
            repeated video.
    """
    if not path.exists():
        raise ListError(f"{path}: no such file; run `clipzoo scan {path.stem} FOLDER` first")
    videos, faults, seen = [], [], {}
    for line, video_id, file, size in read_rows(path, COLUMNS):
        if fault := check_video_id(video_id) or check_video_id(file):
            faults.append(f"{path}:{line}: {fault}")
        elif not re.fullmatch(r"[0-9]{1,18}", size):
            allowed = "allowed: a whole number of bytes"
            faults.append(f"{path}:{line}: size: found {size[:100]!r}; {allowed}")
        elif seen.setdefault(video_id, line) != line:
            faults.append(f"{path}:{line}: video {video_id!r} is in line {seen[video_id]} too")
        else:
            videos.append(RawVideo(video_id, file, int(size)))
    raise_all(f"{path}: {len(faults)} bad lines", faults)
    if not videos:
        raise ListError(f"{path}: lists no videos; run `clipzoo scan {path.stem} FOLDER`")
    return videos


def write_manifest(videos: list[RawVideo], path: Path) -> None:
    write_csv(COLUMNS, ((v.video_id, v.path, v.size) for v in videos), path)


def find_videos(root: Path, spec: DatasetSpec) -> tuple[list[RawVideo], list[str]]:
    """All videos below a folder, sorted by path, and the paths of files without a video extension.

    Hidden files and folders are skipped; links are followed. With `reader: directory`, a video is a
    folder of frame files numbered without a gap.

    Raises:
        ListError: the folder does not exist or has no videos; or lists all faults: a folder that
            cannot be read, something named like a video that is not a regular file (a broken link,
            a named pipe), two files of the same id, a name that cannot be stored.
    """
    if not root.is_dir():
        raise ListError(f"{root}: no such folder; give the folder that holds the dataset's videos")
    if spec.reader == "directory":
        is_frame = _frame_pattern(spec).fullmatch
        files, faults = _find_files(root, lambda name: is_frame(name) is not None)
        videos, others = _frame_folders(files, spec, faults), []
    else:
        files, faults = _find_files(root, _is_video)
        others = [file for file in files if not _is_video(file)]
        paths = [file for file in files if _is_video(file)]
        sizes = [(root / file).stat().st_size for file in paths]
        ids = [spec.video_id(str(PurePosixPath(file).with_suffix(""))) for file in paths]
        videos = [RawVideo(*row) for row in zip(ids, paths, sizes, strict=True)]
    faults += [fault for video in videos if (fault := check_video_id(video.video_id))]
    first: dict[str, str] = {}
    for video in videos:
        other = first.setdefault(video.video_id, video.path)
        if other != video.path:
            faults.append(f"{other} and {video.path} have the same id, {video.video_id!r}")
    raise_all(f"{root}: {len(faults)} faults; fix, rename or remove them:", faults)
    if not videos:
        raise ListError(
            f"{root}: no videos found (files that end in {' '.join(VIDEO_SUFFIXES)}); "
            f"{len(others)} other files"
        )
    return videos, others


def _is_video(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES


def _find_files(root: Path, is_wanted: Callable[[str], bool]) -> tuple[list[str], list[str]]:
    """Regular files below `root`, sorted, as paths relative to it with `/`, and faults.

    Anything that is not a regular file is a fault if a file of its name is needed (`is_wanted`). A
    folder that is also linked is entered once, by its own path.
    """
    files, faults = [], []
    # Links wait until no folder is left, so that a folder's own path comes first.
    entered, folders, links = set(), [""], []
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        real = os.path.realpath(root / folder)
        if real in entered:
            continue
        entered.add(real)
        try:
            with os.scandir(root / folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            faults.append(f"{folder or root}: {error.strerror}")
            continue
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "lost+found":
                continue
            path = f"{folder}/{entry.name}" if folder else entry.name
            kind = _kind(entry)
            if kind == "a regular file":
                files.append(path)
            elif is_wanted(entry.name):
                faults.append(f"{path}: is {kind}; allowed: a regular file, or a link to one")
            elif kind == "a folder":
                (links if entry.is_symlink() else folders).append(path)
    return sorted(files), faults


def _kind(entry: "os.DirEntry[str]") -> str:
    """What an entry of a folder is, or what it links to; files and folders take no system call."""
    try:
        if entry.is_file():
            return "a regular file"
        if entry.is_dir():
            return "a folder"
        return file_kind(entry.stat().st_mode)
    except FileNotFoundError:
        return f"a broken link, to {os.readlink(entry.path)!r}"
    except OSError as error:
        return f"unreadable ({error.strerror})"


def _frame_folders(files: list[str], spec: DatasetSpec, faults: list[str]) -> list[RawVideo]:
    """The folders of frame files; `faults` gets those with gaps."""
    folders: dict[str, list[str]] = {}
    for file in files:
        folder, _, name = file.rpartition("/")
        folders.setdefault(folder, []).append(name)
    videos = []
    for folder, names in sorted(folders.items()):
        try:
            count = count_frames(names, folder, spec)
        except ListError as error:
            faults.append(f"{folder}: {error}")
            continue
        if count:
            videos.append(RawVideo(spec.video_id(folder), folder, count))
    return videos


def _frame_pattern(spec: DatasetSpec, folder: str = ".*") -> re.Pattern[str]:
    """The pattern of frame files' names; `folder` is the pattern of their folder's name."""
    pattern = ""
    for text, key, *_ in string.Formatter().parse(spec.frame_template):
        pattern += re.escape(text)
        if key is not None:
            pattern += folder if key == "folder" else r"\d+"
    return re.compile(pattern)


def count_frames(names: Iterable[str], folder: str, spec: DatasetSpec) -> int:
    """Number of frame files among the names of a folder, 0 if no name matches `frame_template`;
    ListError if they are not numbered from `first_index` on without a gap."""
    pattern = _frame_pattern(spec, re.escape(folder.rpartition("/")[2]))
    frame_names = {name for name in names if pattern.fullmatch(name)}
    for i in range(len(frame_names)):
        name = spec.frame_name(folder, i)
        if name not in frame_names:
            raise ListError(
                f"{name} is not among {len(frame_names)} frame files; frames must be numbered from "
                f"first_index = {spec.first_index} on without a gap, as {spec.frame_template}"
            )
    return len(frame_names)

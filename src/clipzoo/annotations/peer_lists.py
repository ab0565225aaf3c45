"""The list formats of other projects, read and written.

| format | a line |
|---|---|
| clipzoo | csv with a header: `clipzoo.data.records` |
| text4vis-frames, actionclip-frames | `path num_frames label` |
| text4vis-videos, vificlip, xclip | `path.mp4 label` |
| csv, openvclip | `path.mp4,label`, without a header; quoted where needed |
| mmaction2-rawframes | `path num_frames label [label ...]` |
| mmaction2-rawframes-offset | `path start_frame num_frames label [label ...]` |
| mmaction2-videos | `path.mp4 label [label ...]` |

All but clipzoo, csv and openvclip split their lines at spaces, so a path with spaces cannot be
written. It can be read if the number of columns is fixed.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath

from clipzoo.annotations.annotation import read_lines, without_extension
from clipzoo.data.records import MAX_FRAMES, Record, check_video_id, read_list, write_list
from clipzoo.files import ListError, csv_lines, raise_all, replacing

MAX_CLASSES = 1_000_000
"""Upper bound, since lists of other projects do not give the number of classes."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a line is written."""

    columns: tuple[str, ...]
    """The columns after the path."""
    separator: str = " "
    several_labels: bool = False
    """The last column may be repeated."""
    extension: bool = False
    """The paths are those of video files."""


_CSV = Layout(columns=("label",), separator=",", extension=True)
_FRAMES = Layout(columns=("num_frames", "label"))
_VIDEOS = Layout(columns=("label",), extension=True)
LAYOUTS = {
    "text4vis-frames": _FRAMES,
    "actionclip-frames": _FRAMES,
    "text4vis-videos": _VIDEOS,
    "vificlip": _VIDEOS,
    "xclip": _VIDEOS,
    "csv": _CSV,
    "openvclip": _CSV,
    "mmaction2-rawframes": Layout(columns=("num_frames", "label"), several_labels=True),
    "mmaction2-rawframes-offset": Layout(
        columns=("start_frame", "num_frames", "label"), several_labels=True
    ),
    "mmaction2-videos": Layout(columns=("label",), several_labels=True, extension=True),
}
FORMATS = ("clipzoo", *LAYOUTS)


@dataclass(frozen=True, kw_only=True)
class Entry(Record):
    """One line of a list, in any format; `num_frames` is 0 if the format has none."""

    where: str
    """`file:line`"""
    extension: str = ""
    """The extension with its dot; '' = the format has none."""


def guess_format(path: Path) -> str:
    """`clipzoo`, `csv`, `text4vis-frames` or `text4vis-videos`, according to the first line;
    ListError if the file is empty or matches none of them."""
    where, line = next(read_lines(path), ("", ""))
    if line.split(",")[0] == "video_id":
        return "clipzoo"
    words = line.split()
    if len(words) > 2 and all(word.isdecimal() for word in words[-2:]):
        return "text4vis-frames"
    if len(words) > 1 and words[-1].isdecimal():
        return "text4vis-videos"
    if line.rpartition(",")[2].strip().isdecimal() and "," in line:
        return "csv"
    raise ListError(f"{where or path}: found {line!r}; allowed: a list in one of {FORMATS}")


def read_entries(
    path: Path, form: str, *, strip: str = "", allow_empty: bool = False
) -> tuple[list[Entry], list[str]]:
    """Read a list.

    Args:
        form: one of FORMATS.
        strip: a prefix to remove from paths, e.g. an absolute root.
        allow_empty: skip videos of 0 frames instead of raising ListError.

    Returns:
        The entries, and `file:line: path` of the skipped videos.

    Raises:
        ListError: names every invalid line and every duplicate video.
    """
    if form == "clipzoo":
        records = read_list(path, MAX_CLASSES)
        return [Entry(where=str(path), **asdict(record)) for record in records], []
    entries, empty, faults = [], [], []
    seen: dict[tuple[object, ...], str] = {}
    columns = LAYOUTS[form].columns
    for where, fields in _split(path, LAYOUTS[form]):
        try:
            entry = _entry(where, fields, LAYOUTS[form], strip)
            segment = (entry.start_frame, entry.num_frames, entry.label)
            key = (entry.video_id, *(segment if "start_frame" in columns else ()))
            other = seen.setdefault(key, where)
            if other != where:
                raise ValueError(f"{entry.video_id!r} is in {other} too")
        except ValueError as error:
            faults.append(f"{where}: {error}")
            continue
        if "num_frames" in columns and not entry.num_frames:
            empty.append(f"{where}: {entry.video_id}")
        else:
            entries.append(entry)
    if not allow_empty:
        faults += [f"{one} has 0 frames; --drop-empty skips it" for one in empty]
    raise_all(f"{path}: {len(faults)} bad lines for the format {form}", faults)
    return entries, empty


def _split(path: Path, layout: Layout) -> list[tuple[str, list[str]]]:
    """(`file:line`, fields) of every line."""
    if layout.separator == ",":
        return [(f"{path}:{line}", fields) for line, fields in csv_lines(path) if fields]
    # Split from the right, as the path may have spaces where the number of columns is fixed.
    columns = -1 if layout.several_labels else len(layout.columns)
    return [(where, line.rsplit(maxsplit=columns)) for where, line in read_lines(path)]


def _entry(where: str, fields: Sequence[str], layout: Layout, strip: str) -> Entry:
    """The entry of a line; ValueError for an invalid one."""
    needed = 1 + len(layout.columns)
    if len(fields) < needed or (len(fields) > needed and not layout.several_labels):
        columns = layout.separator.join(("path", *layout.columns))
        raise ValueError(f"found {len(fields)} fields; allowed: {columns}")
    file, numbers = fields[0], fields[1:]
    if not all(number.strip().isascii() and number.strip().isdecimal() for number in numbers):
        spaces = "; this format does not allow paths with spaces" if layout.several_labels else ""
        raise ValueError(f"found {' '.join(numbers)!r} after the path; allowed: numbers{spaces}")
    values = dict(zip(layout.columns, map(int, numbers), strict=False))
    labels = tuple(map(int, numbers[len(layout.columns) - 1 :]))
    if max(labels) >= MAX_CLASSES or values.get("num_frames", 0) > MAX_FRAMES:
        raise ValueError(f"found {' '.join(numbers)!r}; allowed: smaller numbers")
    file = _path(file, strip)
    video_id = without_extension(file) if layout.extension else file
    return Entry(
        where=where,
        video_id=video_id,
        extension=file[len(video_id) :],
        num_frames=values.get("num_frames", 0),
        label=labels[0],
        start_frame=values.get("start_frame", 0),
        labels=labels if len(labels) > 1 else None,
    )


def _path(file: str, strip: str) -> str:
    """A path without its prefix; doubled slashes (some published lists have them) become one."""
    if strip:
        if not file.startswith(strip):
            raise ValueError(f"path {file!r} does not begin with {strip!r}")
        file = file[len(strip) :].lstrip("/")
    if not file.startswith("/"):
        file = PurePosixPath(file).as_posix()
    if fault := check_video_id(file):
        raise ValueError(f"{fault} (--strip removes a prefix from paths)")
    return file


def write_entries(
    entries: Sequence[Entry],
    path: Path,
    form: str,
    *,
    extension: str = "",
    files: Mapping[str, str] | None = None,
    frames: Mapping[str, int] | None = None,
) -> list[str]:
    """Write a list.

    Args:
        form: one of FORMATS.
        extension: that of video files, where neither the entries nor `files` have it.
        files: the path of each video's file (a dataset's manifest), for formats with extensions.
        frames: the number of frames of each video (a dataset's index), for entries without one.

    Returns:
        Notes on the values that the new format cannot hold.

    Raises:
        ListError: lists the entries that the format cannot hold; nothing is written.
    """
    faults, frames = [], frames or {}
    complete = [replace(e, num_frames=e.num_frames or frames.get(e.video_id, 0)) for e in entries]
    if form == "clipzoo":
        uncounted = [entry for entry in complete if not entry.num_frames]
        faults = [f"{e.where}: {e.video_id!r}: unknown number of frames" for e in uncounted]
        raise_all(f"{form} needs num_frames; give --dataset", faults)
        write_list(complete, path)
    else:
        lines = []
        for entry in complete:
            try:
                lines.append(_line(entry, LAYOUTS[form], extension, files or {}))
            except ValueError as error:
                faults.append(f"{entry.where}: {entry.video_id!r}: {error}")
        raise_all(f"{len(faults)} videos that the format {form} cannot hold", faults)
        with replacing(path, durable=False) as part:
            part.write_text("".join(lines), encoding="utf-8")
    return _left_out(entries, form)


def _line(entry: Entry, layout: Layout, extension: str, files: Mapping[str, str]) -> str:
    """The line of an entry; ValueError if the layout cannot hold it."""
    labels = (entry.label,) if entry.labels is None else entry.labels
    if entry.start_frame and "start_frame" not in layout.columns:
        raise ValueError(f"is a segment from frame {entry.start_frame}; the format has none")
    if len(labels) != 1 and not (labels and layout.several_labels):
        raise ValueError(f"has {len(labels)} labels; the format allows one")
    if "num_frames" in layout.columns and not entry.num_frames:
        raise ValueError("unknown number of frames; give --dataset")
    file = entry.video_id
    if layout.extension:
        file = files.get(entry.video_id, entry.video_id + (entry.extension or extension))
        if not PurePosixPath(file).suffix:
            raise ValueError("unknown file extension; give --extension or --dataset")
    values = {"start_frame": entry.start_frame, "num_frames": entry.num_frames}
    columns = [str(values[name]) for name in layout.columns if name != "label"]
    fields = [file, *columns, *map(str, labels)]
    if layout.separator == ",":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(fields)
        return text.getvalue()
    if len(file.split()) != 1:
        raise ValueError("has a space in its path, where the format's readers split")
    return " ".join(fields) + "\n"


def _left_out(entries: Sequence[Entry], form: str) -> list[str]:
    """Notes on values that the format has no column for."""
    layout = LAYOUTS.get(form)
    notes = []
    if layout and "num_frames" not in layout.columns and any(e.num_frames for e in entries):
        notes.append(f"{form} has no frame counts: left out")
    extensions = sorted({entry.extension for entry in entries} - {""})
    if extensions and not (layout and layout.extension):
        notes.append(f"{form} names videos without extension: left out {' '.join(extensions)}")
    return notes

"""Lists written in the formats of `clipzoo.annotations.peer_lists`."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from clipzoo.annotations.peer_lists import LAYOUTS, Entry, Layout
from clipzoo.data.records import Record, raise_all, write_list


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
        entries: what `read_entries` gave.
        path: of the new list.
        form: one of FORMATS.
        extension: of video files, where neither the entries nor `files` know it.
        files: video id -> path of the video file (a dataset's manifest).
        frames: video id -> number of frames (a dataset's index).

    Returns:
        what the new format does not hold and was left out, in words.

    Raises:
        ListError: lists the entries that the format cannot hold; nothing is written.
    """
    faults = []
    complete = [_complete(entry, frames or {}) for entry in entries]
    if form == "clipzoo":
        unknown = [entry for entry in complete if not entry.num_frames]
        faults = [f"{e.where}: {e.video_id!r}: the number of frames is not known" for e in unknown]
        raise_all(f"{form} needs num_frames; give --dataset", faults)
        write_list([_record(entry) for entry in complete], path)
    else:
        lines = []
        for entry in complete:
            try:
                lines.append(_line(entry, LAYOUTS[form], extension, files or {}))
            except ValueError as error:
                faults.append(f"{entry.where}: {entry.video_id!r}: {error}")
        raise_all(f"{len(faults)} videos that the format {form} cannot hold", faults)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines), encoding="utf-8")
    return _left_out(entries, form)


def _complete(entry: Entry, frames: Mapping[str, int]) -> Entry:
    """The entry with its number of frames, where `frames` knows it."""
    if entry.num_frames is not None:
        return entry
    values = {**vars(entry), "num_frames": frames.get(entry.video_id)}
    return Entry(**values)


def _record(entry: Entry) -> Record:
    assert entry.num_frames is not None
    return Record(entry.video_id, entry.num_frames, entry.label, entry.start_frame, entry.labels)


def _line(entry: Entry, layout: Layout, extension: str, files: Mapping[str, str]) -> str:
    """ValueError says why the layout cannot hold the entry."""
    labels = (entry.label,) if entry.labels is None else entry.labels
    if entry.start_frame and "start_frame" not in layout.columns:
        raise ValueError(f"is a segment from frame {entry.start_frame}; the format has none")
    if len(labels) != 1 and not (labels and layout.several_labels):
        raise ValueError(f"has {len(labels)} labels; the format allows one")
    if "num_frames" in layout.columns and not entry.num_frames:
        raise ValueError("the number of frames is not known; give --dataset")
    file = entry.video_id
    if layout.extension:
        file = files.get(entry.video_id, entry.video_id + (entry.extension or extension))
        if not PurePosixPath(file).suffix:
            raise ValueError("the file's extension is not known; give --extension or --dataset")
    values = {"start_frame": entry.start_frame, "num_frames": entry.num_frames}
    columns = [str(values[name]) for name in layout.columns if name != "label"]
    fields = [file, *columns, *map(str, labels)]
    if layout.separator == ",":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(fields)
        return text.getvalue()
    if len(file.split()) != 1:
        raise ValueError("has a space in its path, at which readers of the format split the line")
    return " ".join(fields) + "\n"


def _left_out(entries: Sequence[Entry], form: str) -> list[str]:
    """What the format has no column for."""
    layout = LAYOUTS.get(form)
    notes = []
    if layout and "num_frames" not in layout.columns and any(e.num_frames for e in entries):
        notes.append(f"{form} has no frame counts: left out")
    extensions = sorted({entry.extension for entry in entries} - {""})
    if extensions and not (layout and layout.extension):
        notes.append(f"{form} names videos without extension: left out {' '.join(extensions)}")
    return notes

"""How official annotation files are read: one function a format.

Every line becomes an Annotation or a fault; nothing is passed over in silence.
"""

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from clipzoo.data.lists import ListError, read_labels, read_rows
from clipzoo.data.spec import DatasetSpec


@dataclass(frozen=True)
class Annotation:
    """One annotated video."""

    where: str
    """`file:line`, or the dataset's folder."""
    video_id: str
    """As the annotation has it, without extension; perhaps without its folder."""
    label: int


@dataclass
class Annotations:
    """What a dataset's annotation files say."""

    class_names: list[str]
    train: list[Annotation] = field(default_factory=list)
    val: list[Annotation] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """Every line that is wrong: `file:line: what was found; what is allowed`."""


@dataclass(frozen=True)
class Source:
    """What a parser may look at."""

    folder: Path
    """data/annotations/<dataset>."""
    spec: DatasetSpec
    split: int
    """Official split, from 1."""
    seed: int
    video_ids: Sequence[str]
    """Of all videos in the manifest, for formats where the folders are the annotation."""
    trained_on: bool
    """Whether the run trains on the dataset (or only evaluates on it)."""


def parse_ucf101(source: Source) -> Annotations:
    """classInd.txt (`1 ApplyEyeMakeup`), trainlist0N.txt (`class/video.avi 1`), testlist0N.txt.

    Class ids are those of classInd.txt less 1; names come from labels.csv (id, name) where there is
    one beside them.
    """
    index, lists = source.folder / "classInd.txt", {}
    for kind in ("train", "test"):
        lists[kind] = source.folder / f"{kind}list{source.split:02d}.txt"
        if not lists[kind].exists():
            have = sorted(path.name for path in source.folder.glob(f"{kind}list*.txt"))
            raise ListError(f"{lists[kind]}: no such file (data.split); there are: {have}")
    result = Annotations([])
    folders: dict[str, int] = {}
    for where, line in _lines(index):
        number, _, name = line.partition(" ")
        if number != str(len(folders) + 1) or not name.strip() or name.strip() in folders:
            allowed = f"'{len(folders) + 1} NAME' with a new name"
            result.faults.append(f"{where}: found {line!r}; allowed: {allowed}")
        folders[name.strip()] = len(folders)
    result.class_names = _own_names(source.folder, list(folders), result.faults)
    for where, line in _lines(lists["train"]):
        path, _, number = line.rpartition(" ")
        _add_ucf101(result.train, where, path, number, folders, result.faults)
    for where, line in _lines(lists["test"]):
        _add_ucf101(result.val, where, line, None, folders, result.faults)
    return result


def _add_ucf101(
    target: list[Annotation],
    where: str,
    path: str,
    number: str | None,
    folders: dict[str, int],
    faults: list[str],
) -> None:
    """Add one line of a split file; `number` is None where the format has none."""
    if not path.strip() or "/" not in path:
        faults.append(f"{where}: found {path!r}; allowed: CLASS/VIDEO.avi, in train lists a number")
        return
    folder = path.strip().split("/")[0]
    label = folders.get(folder)
    if label is None:
        faults.append(f"{where}: class {folder!r} is not in classInd.txt")
    elif number is not None and number != str(label + 1):
        faults.append(f"{where}: found label {number!r}; classInd.txt has {label + 1} for {folder}")
    else:
        target.append(Annotation(where, without_extension(path.strip()), label))


def parse_kinetics(source: Source) -> Annotations:
    """train.csv, and val.csv or validate.csv or test.csv.

    The columns are label, youtube_id, time_start, time_end, split. Videos are named
    `<youtube_id>_<start>_<end>` with six digits for the times (seconds), in folders of their class
    or not. A dataset that is only evaluated on needs no train.csv. Class ids are those of
    labels.csv (id, name) where there is one, else the alphabetical order of all labels.
    """
    columns = ("label", "youtube_id", "time_start", "time_end", "split")
    files = {"train": ["train.csv"], "val": ["val.csv", "validate.csv", "test.csv"]}
    rows: dict[str, list[tuple[str, list[str]]]] = {}
    for kind, names in files.items():
        path = next((p for name in names if (p := source.folder / name).exists()), None)
        if path is None and (kind == "val" or source.trained_on):
            raise ListError(f"{source.folder}: has no {' or '.join(names)}")
        rows[kind] = []
        if path is not None:
            table = read_rows(path, columns, ("is_cc",))
            rows[kind] = [(f"{path}:{line}", values) for line, *values in table]
    result = Annotations([])
    labels = sorted({values[0] for part in rows.values() for _, values in part})
    result.class_names = _own_names(source.folder, labels, result.faults, keep_order=False)
    number = {name: i for i, name in enumerate(result.class_names)}
    for kind, target in (("train", result.train), ("val", result.val)):
        for where, (label, youtube_id, start, end, *_) in rows[kind]:
            if label not in number:
                result.faults.append(f"{where}: label {label!r} is not in labels.csv")
            elif not (start.isdecimal() and end.isdecimal()) or int(end) <= int(start):
                found = f"time_start {start!r}, time_end {end!r}"
                result.faults.append(f"{where}: found {found}; allowed: seconds, start before end")
            else:
                video_id = f"{youtube_id}_{int(start):06d}_{int(end):06d}"
                target.append(Annotation(where, video_id, number[label]))
    return result


def parse_folder(source: Source) -> Annotations:
    """`<class>/<video>`, or train/<class>/<video> and val/<class>/<video>; names in classes.csv.

    Without train/ and val/, `val_fraction` of every class with two videos or more is drawn for
    validation, by a generator seeded by (seed, folder of the class); a dataset that is only
    evaluated on, or has val_fraction 1, is validation as a whole. classes.csv (folder, name) is
    written by `python -m clipzoo scan`.
    """
    path = source.folder / "classes.csv"
    table = read_rows(path, ("folder", "name"))
    number = {folder: i for i, (_, folder, _) in enumerate(table)}
    result = Annotations([name for _, _, name in table])
    parts = {video_id: video_id.split("/") for video_id in source.video_ids}
    divided = {part[0] for part in parts.values()} == {"train", "val"}
    members: dict[str, list[Annotation]] = {folder: [] for folder in number}
    for video_id, folders in parts.items():
        folder, depth = (folders[1], 3) if divided and len(folders) > 1 else (folders[0], 2)
        if len(folders) < depth:
            result.faults.append(f"{video_id}: lies in no class folder; allowed: CLASS/VIDEO")
        elif folder not in number:
            result.faults.append(f"{video_id}: {folder!r} is not in {path}; scan again")
        elif divided:
            target = result.train if folders[0] == "train" else result.val
            target.append(Annotation(video_id, video_id, number[folder]))
        else:
            members[folder].append(Annotation(video_id, video_id, number[folder]))
    for folder, videos in members.items():
        num_val = len(videos)
        if source.trained_on and source.spec.val_fraction < 1:
            num_val = min(max(1, round(len(videos) * source.spec.val_fraction)), len(videos) - 1)
        rng = np.random.default_rng([source.seed, zlib.crc32(folder.encode())])
        chosen = set(rng.permutation(len(videos))[: max(0, num_val)].tolist())
        for position, video in enumerate(videos):
            (result.val if position in chosen else result.train).append(video)
    return result


PARSERS: dict[str, Callable[[Source], Annotations]] = {
    "ucf101": parse_ucf101,
    "kinetics": parse_kinetics,
    "folder": parse_folder,
}
"""`format` of a dataset -> the function that reads its files."""


def without_extension(path: str) -> str:
    """Path without the extension of a video or image file name."""
    return re.sub(r"\.[A-Za-z0-9]{2,4}$", "", path)


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """(`file:line`, text) of the lines that are not empty."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ListError(f"{path}: cannot be read ({error})") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield f"{path}:{number}", line.strip()


def _own_names(
    folder: Path, names: list[str], faults: list[str], keep_order: bool = True
) -> list[str]:
    """Class names of labels.csv beside the annotations, else `names`.

    With `keep_order` the files number the classes themselves, so labels.csv must have as many.
    """
    path = folder / "labels.csv"
    if not path.exists():
        return names
    own = read_labels(path)
    if keep_order and len(own) != len(names):
        faults.append(f"{path}: has {len(own)} classes; the annotation files have {len(names)}")
    return own

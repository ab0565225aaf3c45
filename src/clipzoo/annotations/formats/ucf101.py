"""UCF101: classInd.txt, and a train and a test list for each of three splits."""

import re
from pathlib import Path

from clipzoo.annotations.annotation import (
    Annotation,
    Annotations,
    Source,
    read_classes,
    read_lines,
    without_extension,
)
from clipzoo.files import ListError


def parse_ucf101(source: Source) -> Annotations:
    """classInd.txt (`1 ApplyEyeMakeup`), trainlist0N.txt (`class/video.avi 1`), testlist0N.txt.

    Class ids are those of classInd.txt minus 1.
    """
    lists = {}
    for kind in ("train", "test"):
        lists[kind] = source.folder / f"{kind}list{source.split:02d}.txt"
        if not lists[kind].exists():
            names = sorted(path.name for path in source.folder.glob(f"{kind}list*.txt"))
            raise ListError(f"{lists[kind]}: no such file (data.split); there are: {names}")
    names, faults = read_classes(source.folder / "classInd.txt", "{}", 1)
    folders = {name: i for i, name in enumerate(names)}
    result = Annotations(names, numbered=True, faults=faults)
    result.train = _read_split(lists["train"], folders, faults, numbered=True)
    result.val = _read_split(lists["test"], folders, faults)
    tests = {
        int(match[1]): path
        for path in sorted(source.folder.glob("testlist*.txt"))
        if (match := re.fullmatch(r"testlist(\d+)\.txt", path.name))
    }
    if len(tests) > 1:
        result.splits = {n: _read_split(path, folders, faults) for n, path in tests.items()}
    result.faults = list(dict.fromkeys(faults))  # the chosen test list is read twice
    return result


def _read_split(
    path: Path, folders: dict[str, int], faults: list[str], numbered: bool = False
) -> list[Annotation]:
    """Lines `class/video.avi`, in train lists followed by the class's number (`numbered`)."""
    result = []
    for where, line in read_lines(path):
        video, _, number = line.rpartition(" ") if numbered else (line, "", None)
        if not video.strip() or "/" not in video:
            allowed = "CLASS/VIDEO.avi, in train lists a number"
            faults.append(f"{where}: found {video!r}; allowed: {allowed}")
            continue
        name = video.strip().split("/")[0]
        label = folders.get(name)
        if label is None:
            faults.append(f"{where}: class {name!r} is not in classInd.txt")
        elif number is not None and number != str(label + 1):
            text = f"found label {number!r}; classInd.txt has {label + 1} for {name}"
            faults.append(f"{where}: {text}")
        else:
            result.append(Annotation(where, without_extension(video.strip()), label))
    return result

"""HMDB51: for each of three splits one file per class, which names all videos of the class."""

import re
from pathlib import Path

from clipzoo.annotations.annotation import (
    Annotation,
    Annotations,
    Source,
    read_lines,
    without_extension,
)
from clipzoo.files import ListError

PATTERN = re.compile(r"(.+)_test_split(\d+)\.txt")
TRAIN, TEST, UNUSED = "1", "2", "0"


def parse_hmdb51(source: Source) -> Annotations:
    """`<class>_test_split<N>.txt` with lines `video.avi 1` (train), `2` (test) or `0` (neither).

    `whole` also has the videos of the third kind. The files may be in a subfolder, as the archive
    has them (testTrainMulti_7030_splits/).
    """
    files = _find(source.folder)
    if source.split not in files:
        raise ListError(
            f"{source.folder}: has no CLASS_test_split{source.split}.txt (data.split); "
            f"splits there are: {sorted(files) or 'none'}"
        )
    names = sorted({name for split in files.values() for name in split})
    result = Annotations(names)
    for split, paths in files.items():
        if missing := [name for name in names if name not in paths]:
            shown = ", ".join(missing[:10])
            result.faults.append(f"{source.folder}: split {split} has no file for classes: {shown}")
        videos = _read_split(paths, names, result.faults)
        if split == source.split:
            result.train, result.val = videos[TRAIN], videos[TEST]
            result.whole = [*videos[TRAIN], *videos[TEST], *videos[UNUSED]]
        result.splits[split] = videos[TEST]
    if len(result.splits) < 2:
        result.splits = {}
    return result


def _find(folder: Path) -> dict[int, dict[str, Path]]:
    """{split: {class: file}} of all files of the format below a folder."""
    files: dict[int, dict[str, Path]] = {}
    for path in sorted(folder.rglob("*_test_split*.txt")):
        match = PATTERN.fullmatch(path.name)
        if match is None:
            continue
        name, split = match[1], int(match[2])
        other = files.setdefault(split, {}).setdefault(name, path)
        if other != path:
            raise ListError(f"{path} and {other} are of one class and split; remove one")
    return files


def _read_split(
    paths: dict[str, Path], names: list[str], faults: list[str]
) -> dict[str, list[Annotation]]:
    """{mark: annotations} of one split."""
    result: dict[str, list[Annotation]] = {TRAIN: [], TEST: [], UNUSED: []}
    for label, name in enumerate(names):
        if name not in paths:
            continue
        for where, line in read_lines(paths[name]):
            video, _, mark = line.rpartition(" ")
            if mark not in result or not video.strip():
                faults.append(f"{where}: found {line!r}; allowed: VIDEO.avi and 0, 1 or 2")
                continue
            video_id = f"{name}/{without_extension(video.strip())}"
            result[mark].append(Annotation(where, video_id, label))
    return result

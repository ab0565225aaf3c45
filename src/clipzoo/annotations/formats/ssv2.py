"""Something-Something V2: json lists of videos, whose classes are templates of captions."""

from pathlib import Path

from clipzoo.annotations.annotation import Annotation, Annotations, Source
from clipzoo.files import ListError, read_json

FILES = {"train": "train.json", "val": "validation.json"}


def parse_ssv2(source: Source) -> Annotations:
    """train.json and validation.json: [{"id": "78687", "template": "Holding [something]", ...}].

    A class is the template without its brackets; `label`, the caption of the one video, is not
    read. The test set has no labels. A dataset that is only evaluated on needs no train.json.
    """
    result = Annotations([])
    videos: dict[str, list[tuple[str, str, str]]] = {}
    for kind, name in FILES.items():
        path = source.folder / name
        if path.exists():
            videos[kind] = _read(path, result.faults)
        elif kind == "val" or (source.trained_on and not source.spec.evaluation_only):
            raise ListError(f"{path}: no such file; allowed: {' and '.join(FILES.values())}")
    result.class_names = sorted({name for part in videos.values() for _, _, name in part})
    number = {name: i for i, name in enumerate(result.class_names)}
    for kind, target in (("train", result.train), ("val", result.val)):
        rows = videos.get(kind, [])
        target += [Annotation(where, id_, number[name]) for where, id_, name in rows]
    return result


def _read(path: Path, faults: list[str]) -> list[tuple[str, str, str]]:
    """(`file: number`, id, class) of each video; a message for each that has none."""
    content = read_json(path)
    if not isinstance(content, list):
        raise ListError(f"{path}: found a {type(content).__name__}; allowed: a list of videos")
    rows = []
    for i, video in enumerate(content, start=1):
        values = video if isinstance(video, dict) else {}
        id_, template = values.get("id"), values.get("template")
        where = f"{path}: video {i}"
        if not isinstance(id_, str) or not id_ or not isinstance(template, str) or not template:
            faults.append(f"{where}: found {str(video)[:80]!r}; allowed: an id and a template")
            continue
        rows.append((where, id_, template.replace("[", "").replace("]", "")))
    return rows

"""The names, and so the ids, of a dataset's classes.

The committed label files (src/clipzoo/reference/labels/) hold names and ids as the methods used
them. Official annotation files spell the same classes differently (`brush_hair`,
`ApplyEyeMakeup`), so classes are matched by their letters and digits only, ignoring case.
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from clipzoo.annotations.annotation import Annotation, Annotations
from clipzoo.config import ConfigError, Params
from clipzoo.data.records import read_labels, read_official_names
from clipzoo.data.spec import DatasetSpec
from clipzoo.files import ListError, near, raise_all

LABEL_DIR = Path(__file__).parents[1] / "reference" / "labels"


def label_file(name: str) -> Path:
    """The committed label file of that name; ConfigError if there is none."""
    path = LABEL_DIR / f"{name}.csv"
    known = sorted(p.stem for p in LABEL_DIR.glob("*.csv"))
    if name not in known:
        raise ConfigError(
            f"class_names: found {name!r}{near(name, known)}; allowed: {', '.join(known)}"
        )
    return path


def class_key(name: str) -> str:
    """A key that all spellings of a class share.

    Example: `brush_hair`, `BrushHair` and `brush hair` all give `brushhair`.
    """
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def name_classes(
    annotations: Annotations, params: Params, dataset: str, spec: DatasetSpec, folder: Path
) -> None:
    """Assign the chosen names and ids to the classes, in place.

    The names are those of `data.class_names` (for data.dataset), else of labels.csv in `folder`,
    next to the annotation files, else of `class_names` in datasets/<dataset>.yaml, else as in the
    annotation files. With `only_listed_classes` there, videos of other classes are skipped.

    Raises:
        ListError: classes do not match; lists those of both sides.
        ConfigError: there is no label file of the chosen name.
    """
    path, count = folder / "labels.csv", len(annotations.class_names)
    chosen = params.data.class_names if dataset == params.data.dataset else ""
    beside = not chosen and path.exists()
    if not beside and (chosen or spec.class_names):
        path = label_file(chosen or spec.class_names)
    elif not beside and count:
        return
    elif not beside:
        raise ListError(
            f"{path}: no such file; lists with numbers as labels need it, or "
            f"data.class_names, or class_names in datasets/{dataset}.yaml"
        )
    names, official = read_labels(path), read_official_names(path)
    # With a label file of ours, files that number their classes and name them too are matched by
    # the names.
    if not annotations.numbered or (count and not beside):
        _match(annotations, official, path, spec.only_listed_classes)
    elif count not in (0, len(names)):
        raise ListError(f"{path}: has {len(names)} classes; the annotation files have {count}")
    else:
        _number(annotations, names, path)
    annotations.class_names, annotations.official_names = names, official


def _number(annotations: Annotations, names: list[str], path: Path) -> None:
    """Raise ListError unless every label is the position of a name."""
    faults = [
        f"{a.where}: found label {label}; {path} has 0 to {len(names) - 1}"
        for part in annotations.parts()
        for a in part
        for label in a.all_labels
        if label >= len(names)
    ]
    raise_all(f"{len(faults)} labels without a name", faults)


def _match(annotations: Annotations, names: list[str], path: Path, only_listed: bool) -> None:
    """Renumber the classes in the order of their official `names`, matched by `class_key`."""
    ids = {class_key(name): i for i, name in enumerate(names)}
    if len(ids) != len(names):
        keys = Counter(map(class_key, names))
        twice = ", ".join(name for name in names if keys[class_key(name)] > 1)
        raise ListError(f"{path}: names that differ only in case or punctuation: {twice}")
    new = [ids.get(class_key(name), -1) for name in annotations.class_names]
    unlisted = [name for name, i in zip(annotations.class_names, new, strict=True) if i < 0]
    unused = [name for i, name in enumerate(names) if i not in new]
    faults = [f"{path} has {name!r}, which no annotation file names" for name in unused]
    if not only_listed:
        faults += [
            f"the annotation files have {name!r}, which {path} does not have" for name in unlisted
        ]
    raise_all(f"{len(faults)} classes do not match", faults)
    before = len(annotations.train) + len(annotations.val)
    for part in annotations.parts():
        part[:] = [kept for a in part if (kept := _renumbered(a, new)) is not None]
    if unlisted:
        count = before - len(annotations.train) - len(annotations.val)
        annotations.notes.append(
            f"skipped: {count} videos of {len(unlisted)} classes that {path.name} does not have"
        )


def _renumbered(annotation: Annotation, new: list[int]) -> Annotation | None:
    """An annotation with the new id of each class (-1 = not listed); None if its one class is not
    listed. A multi-label annotation stays without labels, since its video is tested on too."""
    if annotation.labels is None:
        label = new[annotation.label]
        return replace(annotation, label=label) if label >= 0 else None
    labels = tuple(sorted(new[k] for k in annotation.labels if new[k] >= 0))
    return replace(annotation, labels=labels, label=labels[0] if labels else -1)

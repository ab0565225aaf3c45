"""Labels compared with the folders that the videos are in.

Lists with numbers as labels do not show the order of their classes: UCF101's classInd.txt has
HammerThrow before Hammering, `sorted()` has it after, and both give 101 classes. Where a folder of
a path is the name of a class, it must be a class of the video.
"""

from collections import Counter
from collections.abc import Iterable

from clipzoo.annotations.annotation import Annotation, Annotations
from clipzoo.annotations.class_names import class_key
from clipzoo.annotations.lookup import Lookup
from clipzoo.data.spec import DatasetSpec
from clipzoo.files import SHOWN, raise_all


def check_folders(
    annotations: Annotations, video_ids: Iterable[str], spec: DatasetSpec, dataset: str
) -> None:
    """Compare labels with the folders in the annotated paths and in those of the files.

    The classes must have their final names; where a label file gives the official ones too, folders
    are compared with these. Only the letters and digits of names are compared;
    folders that are not named like a class say nothing. With `trust_labels` in the dataset's file,
    what differs becomes a note of `annotations`.

    Raises:
        ListError: videos are in a folder of another class; lists them all.
    """
    if spec.format == "folder":  # the folders are the labels
        return
    official = annotations.official_names or annotations.class_names
    classes = {class_key(name): i for i, name in enumerate(official)}
    lookup = Lookup(video_ids, spec)
    pairs: Counter[str] = Counter()
    faults: dict[str, None] = {}
    count = 0
    for annotation in dict.fromkeys(one for part in annotations.parts() for one in part):
        if not annotation.all_labels:
            continue
        count += 1
        # Several copies are left out here, as it is not known which of them will be used.
        copies = lookup.copies(annotation.video_id)
        for path in dict.fromkeys([annotation.video_id, *copies[: len(copies) == 1]]):
            folder = _other_class(path, annotation, classes)
            if folder is not None:
                names = ", ".join(annotations.class_names[i] for i in annotation.all_labels)
                pairs[f"{folder}/ labeled {names!r}"] += 1
                faults[f"{annotation.where}: {path!r} is labeled {names!r}"] = None
                break
    shown = ", ".join(f"{count} in {pair}" for pair, count in pairs.most_common(SHOWN))
    more = f" and {len(pairs) - SHOWN} more such pairs" if len(pairs) > SHOWN else ""
    text = f"{len(faults)} of {count} labels are not the class of the folder ({shown}{more})"
    if spec.trust_labels and faults:
        annotations.notes.append(f"{text}; the labels are taken (trust_labels)")
        return
    raise_all(
        f"{text}. Do the lists number the classes in another order than the names? Put a "
        f"labels.csv (id,name) in their order beside them. If the labels are right and the folders "
        f"wrong, set `trust_labels: true` in datasets/{dataset}.yaml:",
        list(faults),
    )


def _other_class(path: str, annotation: Annotation, classes: dict[str, int]) -> str | None:
    """The innermost folder of a path that is a class, if no folder is a class of the video."""
    folders = {name: classes.get(class_key(name)) for name in path.split("/")[:-1]}
    named = [name for name, label in folders.items() if label is not None]
    if not named or any(folders[name] in annotation.all_labels for name in named):
        return None
    return named[-1]

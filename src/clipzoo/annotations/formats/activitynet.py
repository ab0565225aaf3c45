"""ActivityNet 1.3: one json file with the labeled segments of every video."""

from typing import Any

from clipzoo.annotations.annotation import (
    Annotation,
    Annotations,
    Source,
    read_instance,
    read_mapping,
)
from clipzoo.files import ListError, few

SUBSETS = ("training", "validation", "testing")


def parse_activitynet(source: Source) -> Annotations:
    """activity_net.v1-3.min.json: `{"database": {id: {"subset", "annotations": [...]}}}`.

    Training is on the trimmed instances of the training subset, a record for each (label, segment);
    validation is on whole videos; `whole` has the whole videos of both. An instance that ends where
    it starts is the frame shown there. A whole video has the label of its first instance. The
    testing subset has no labels and is skipped. Class ids are the alphabetical order of all labels.
    """
    paths = sorted(source.folder.glob("activity_net*.json"))
    if len(paths) != 1:
        names = ", ".join(path.name for path in paths) or "none"
        raise ListError(f"{source.folder}: found {names}; allowed: one activity_net.v1-3.min.json")
    (path,) = paths
    database = read_mapping(path).get("database")
    if not isinstance(database, dict):
        raise ListError(f"{path}: has no 'database'; allowed: the json of ActivityNet 1.3")
    result, videos = Annotations([]), {subset: [] for subset in SUBSETS}
    for video_id, entry in database.items():
        subset = entry.get("subset") if isinstance(entry, dict) else None
        if not isinstance(subset, str) or subset not in videos:
            allowed = ", ".join(SUBSETS)
            result.faults.append(
                f"{path}: {video_id!r}: subset {repr(subset)[:100]}; allowed: {allowed}"
            )
        elif subset != "testing":
            if instances := _instances(f"{path}: {video_id!r}", entry, result.faults):
                videos[subset].append((video_id, instances))
        else:
            videos[subset].append((video_id, []))
    labeled = [*videos["training"], *videos["validation"]]
    result.class_names = sorted({name for _, instances in labeled for _, name, _ in instances})
    number = {name: i for i, name in enumerate(result.class_names)}
    for video_id, instances in videos["training"]:
        result.train += [Annotation(w, video_id, number[name], s) for w, name, s in instances]
    result.whole = [
        Annotation(f"{path}: {video_id!r}", video_id, number[instances[0][1]])
        for video_id, instances in labeled
    ]
    result.val = result.whole[len(videos["training"]) :]
    result.notes = _notes(labeled, len(videos["testing"]))
    return result


Instance = tuple[str, str, tuple[float, float]]
"""Where, label, segment in seconds."""


def _instances(where: str, entry: dict[str, Any], faults: list[str]) -> list[Instance]:
    """Labeled segments of one video, in the order of the file."""
    annotations = entry.get("annotations")
    if not isinstance(annotations, list) or not annotations:
        faults.append(f"{where}: has no annotations; allowed: a list of labels and segments")
        return []
    result = []
    for position, one in enumerate(annotations):
        here = f"{where}, annotation {position}"
        found = read_instance(one)
        if found is None:
            allowed = '{"label": NAME, "segment": [START, END]} in seconds'
            faults.append(f"{here}: found {str(one)[:100]}; allowed: {allowed}")
        else:
            result.append((here, *found))
    return result


def _notes(labeled: list[tuple[str, list[Instance]]], num_testing: int) -> list[str]:
    several = [v for v, instances in labeled if len({name for _, name, _ in instances}) > 1]
    notes = []
    if several:
        notes.append(
            f"{len(several)} videos have instances of several classes ({few(several)}); as "
            "whole videos they have the label of the first"
        )
    if num_testing:
        notes.append(f"skipped: {num_testing} videos of the testing subset, which has no labels")
    return notes

"""Which records of its lists a run trains on, validates on and measures.

A record of a list is left out for one of these reasons, and for no other:

    train       it is not in the few-shot pick, not of `data.classes`, or shorter than
                `data.min_frames`
    validation  it is not of `data.classes`, or too short for the method (`val_min_frames`)
    both, test  the weights are a stand-in of another architecture than the demo's, of which
    and others  `demo.other_archs.eval_videos` videos a class are enough (`evaluated`)
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clipzoo.config import BASE_CLASSES_DIR, ConfigError, Params
from clipzoo.data.records import Record, read_labels, read_list
from clipzoo.files import ListError, near, raise_all, read_rows
from clipzoo.models.clip import has_small_budgets
from clipzoo.paths import LISTS_DIR, list_file


@dataclass(frozen=True, kw_only=True)
class TrainingRecords:
    """The videos of a training."""

    selected: list[Record]
    """The videos to train on."""
    dropped: list[Record]
    """Videos with fewer than `data.min_frames` frames."""
    num_all: int
    """Number of videos to train on without a few-shot pick."""


@dataclass(frozen=True, kw_only=True)
class MeasuredSet:
    """The videos of one or more lists of a dataset that are measured."""

    dataset: str
    records: list[Record]
    lists: list[str]
    """Names of the lists that they come from."""
    num_listed: int
    """Number of videos in these lists."""

    @property
    def complete(self) -> bool:
        """Whether all videos of the lists are measured."""
        return len(self.records) == self.num_listed

    @property
    def share(self) -> str:
        """`all`, or `48 of 240`."""
        return "all" if self.complete else f"{len(self.records)} of {self.num_listed}"


def training_records(params: Params) -> TrainingRecords:
    """The videos to train on; none if `train.epochs` is 0.

    Raises:
        ConfigError: no video is long enough.
        ListError: a list is missing or invalid.
    """
    if not params.train.epochs:
        return TrainingRecords(selected=[], dropped=[], num_all=0)
    folder = LISTS_DIR / params.data.dataset
    num_classes = len(read_labels(folder / "labels.csv"))
    everything = picked = read_list(folder / "train.csv", num_classes)
    if params.data.shots:
        picked = read_list(folder / f"train_{params.data.shots}shot.csv", num_classes)
    classes = training_classes(params.data.dataset, params.data.classes, num_classes)
    everything, picked = ([r for r in part if r.label in classes] for part in (everything, picked))
    fewest = params.data.min_frames
    selected = [record for record in picked if record.num_frames >= fewest]
    if not selected:
        raise ConfigError(
            f"data.min_frames: none of {len(picked)} training videos of {folder}/ has {fewest} "
            "frames or more; lower it"
        )
    return TrainingRecords(
        selected=selected,
        dropped=[record for record in picked if record.num_frames < fewest],
        num_all=sum(record.num_frames >= fewest for record in everything),
    )


def validation_records(params: Params, num_classes: int, min_frames: int) -> list[Record]:
    """The videos, of all classes, that a training validates on; `min_frames` as the method's
    `val_min_frames`."""
    records = measured(params, params.data.dataset, ["val"], num_classes).records
    return [record for record in records if record.num_frames >= min_frames]


def measured(params: Params, dataset: str, lists: Sequence[str], num_classes: int) -> MeasuredSet:
    """The videos of some lists of a dataset that are measured.

    Raises:
        ListError: a list is missing or invalid.
    """
    parts = [read_list(list_file(dataset, name), num_classes) for name in lists]
    listed = [record for part in parts for record in part]
    kept = _evaluated(params, listed)
    return MeasuredSet(dataset=dataset, records=kept, lists=[*lists], num_listed=len(listed))


def whole_set(params: Params, dataset: str, num_classes: int) -> MeasuredSet:
    """The videos of a dataset that are measured by zero-shot protocols.

    They are those of whole.csv where there is one (trimmed training segments, or videos in no set
    of the chosen split), else of train and val.

    Raises:
        ListError: there is no list, or one is invalid.
    """
    present = [n for n in ("whole", "train", "val") if list_file(dataset, n).is_file()]
    if not present:
        folder = LISTS_DIR / dataset
        raise ListError(f"{folder}/: neither train.csv nor val.csv; run build_lists {dataset}")
    lists = ["whole"] if "whole" in present else present
    return measured(params, dataset, lists, num_classes)


def _evaluated(params: Params, records: Sequence[Record]) -> list[Record]:
    """All records; or the first `demo.other_archs.eval_videos` of each class, for a stand-in of
    another architecture, of which no accuracy is promised."""
    if not has_small_budgets(params):
        return list(records)
    counts: Counter[int] = Counter()
    kept = []
    for record in records:
        counts[record.label] += 1
        if counts[record.label] <= params.demo.other_archs.eval_videos:
            kept.append(record)
    return kept


def training_classes(dataset: str, classes: str, num_classes: int) -> list[int]:
    """Ids, ascending, of the classes to train on (`data.classes`): all, base, which the training
    list of the dataset determines, or those of a committed list."""
    if classes == "all":
        return list(range(num_classes))
    if classes == "base":
        return base_classes(read_list(list_file(dataset, "train"), num_classes), num_classes)
    return listed_classes(BASE_CLASSES_DIR / f"{classes}.csv", list_file(dataset, "labels"))


def listed_classes(path: Path, labels: Path) -> list[int]:
    """Ids, ascending, of the classes that a file lists by their names.

    Args:
        path: csv with the column name.
        labels: the labels.csv of the dataset.

    Raises:
        ListError: a file cannot be read, or the dataset has no class of some of these names.
    """
    ids = {name: label for label, name in enumerate(read_labels(labels))}
    names = [name for _, name in read_rows(path, ("name",))]
    raise_all(
        f"data.classes: {path.stem}: the classes of {labels} are others",
        [f"{labels} has no class {name!r}{near(name, ids)}" for name in names if name not in ids],
    )
    return sorted(ids[name] for name in names)


def base_classes(records: Iterable[Record], num_classes: int) -> list[int]:
    """Ids, ascending, of the more frequent half of the classes; the others are the novel ones.

    Half of an odd number of classes is rounded up; among equally frequent classes the lower id
    comes first. Source: base-to-novel generalization as in ViFi-CLIP (arXiv 2212.03640).

    Args:
        records: the whole training list.
    """
    counts = Counter(record.label for record in records)
    by_frequency = sorted(range(num_classes), key=lambda label: (-counts[label], label))
    return sorted(by_frequency[: (num_classes + 1) // 2])


def of_classes(records: Sequence[Record], classes: Sequence[int]) -> list[Record]:
    """The records of some classes, whose positions in `classes` become the labels.

    Raises:
        ConfigError: the records have several labels each.
    """
    if any(record.labels is not None for record in records):
        raise ConfigError("data.classes: a multi-label dataset allows: all")
    position = {label: i for i, label in enumerate(classes)}
    return [
        replace(record, label=position[record.label])
        for record in records
        if record.label in position
    ]

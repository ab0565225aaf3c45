"""`clipzoo scan DATASET ROOT`: write a dataset's manifest and, for folders of classes,
its other files."""

import argparse
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from clipzoo.annotations.formats.folder import validation_share
from clipzoo.commands.arguments import Commands, add_command, aligned
from clipzoo.commands.dataset_findings import try_survey
from clipzoo.commands.listing import recipes_of
from clipzoo.config import SHOTS, check_dataset_name, load_params
from clipzoo.data.ledger import ledger_path, ways_out
from clipzoo.data.spec import ANNOTATION_DIR, RAW_DIR, SPEC_DIR, load_spec
from clipzoo.files import ListError, few, read_rows, replacing, write_csv
from clipzoo.frames.manifest import find_videos, manifest_path, write_manifest
from clipzoo.yaml_files import is_plain_text

FEWEST = 5
"""Classes in the table of those with the fewest videos."""
FOLDER_SPEC = """\
about: Your videos, in one folder per class.
format: folder
val_fraction: {val_fraction} # share of each class for validation, unless there are train/ and val/
"""


@dataclass(frozen=True)
class ClassCount:
    """The videos of one class."""

    name: str
    num_train: int
    num_val: int

    @property
    def num_videos(self) -> int:
        """The number of videos in both sets."""
        return self.num_train + self.num_val


@dataclass(frozen=True)
class ScanSummary:
    """What a scan found and wrote."""

    num_videos: int
    num_bytes: int
    classes: list[ClassCount]
    """The classes of a dataset of `format: folder`; empty for other formats."""
    others: list[str]
    """Files without a video extension."""
    written: list[str]
    """Files to track with git."""
    link: str
    """The created link to the videos; empty = none."""
    only_val: bool
    """Each class has only one video, so all are for validation and none for training."""


def scan(dataset: str, root: Path) -> ScanSummary:
    """Find the videos below a folder and write data/raw/<dataset>.csv.

    A dataset without a datasets/<dataset>.yaml gets one of `format: folder`. For that format,
    data/annotations/<dataset>/classes.csv is written as well; names already in it do not change. If
    `root` is not where the pipeline looks (CLIPZOO_DATA/<dataset>, data/raw/<dataset>), the link
    data/raw/<dataset> is created.

    Raises:
        ListError: the folder or its videos cannot be used; nothing is written.
        ConfigError: datasets/<dataset>.yaml is invalid.
    """
    try:
        check_dataset_name(dataset)
        if not is_plain_text(dataset):
            raise ValueError("a name that YAML reads as text without quotes, such as videos_2024")
    except ValueError as error:
        raise ListError(f"dataset: found {dataset!r}; allowed: {error}") from None
    if not root.is_dir():
        raise ListError(f"{root}: no such folder; give the folder that holds the dataset's videos")
    written = []
    spec_path = SPEC_DIR / f"{dataset}.yaml"
    if not spec_path.exists():
        with replacing(spec_path) as part:
            part.write_text(FOLDER_SPEC.format(val_fraction=0.2), encoding="utf-8")
        written.append(str(spec_path))
    try:
        spec = load_spec(dataset)
        videos, others = find_videos(root, spec)
        folders = _class_folders([v.video_id for v in videos]) if spec.format == "folder" else []
        single = bool(folders) and len(videos) == len(folders)
        if written and single:
            with replacing(spec_path) as part:
                part.write_text(FOLDER_SPEC.format(val_fraction=1.0), encoding="utf-8")
        link = _link(dataset, root)
    except (ValueError, OSError):
        if written:
            spec_path.unlink()
        raise
    classes = []
    val_fraction = load_spec(dataset).val_fraction
    if folders:
        names = _write_classes(dataset, folders)
        counts = _count_videos([v.video_id for v in videos], val_fraction)
        classes = [ClassCount(n, *counts[folder]) for folder, n in zip(folders, names, strict=True)]
        written.append(str(classes_path(dataset)))
    write_manifest(videos, manifest_path(dataset))
    written.append(str(manifest_path(dataset)))
    num_bytes = 0 if spec.reader == "directory" else sum(video.size for video in videos)
    only_val = single and val_fraction == 1
    return ScanSummary(len(videos), num_bytes, classes, others, written, link, only_val)


def classes_path(dataset: str) -> Path:
    """File with the names of the class folders, for `format: folder`."""
    return ANNOTATION_DIR / dataset / "classes.csv"


def _count_videos(video_ids: list[str], val_fraction: float) -> dict[str, tuple[int, int]]:
    """Videos for training and validation of each class folder, as build_lists will divide them."""
    parts = [video_id.split("/") for video_id in video_ids]
    if _is_divided(parts):
        counts = Counter((part[0], part[1]) for part in parts)
        folders = {folder for _, folder in counts}
        return {folder: (counts["train", folder], counts["val", folder]) for folder in folders}
    shares = {}
    for folder, num in Counter(part[0] for part in parts).items():
        num_val = validation_share(num, val_fraction)
        shares[folder] = (num - num_val, num_val)
    return shares


def _is_divided(parts: list[list[str]]) -> bool:
    """Whether ids, split at `/`, begin with the sets train and val."""
    return {part[0] for part in parts} == {"train", "val"}


def _class_folders(video_ids: list[str]) -> list[str]:
    """Class folders of `<class>/<video>` or train/<class>/<video> and val/<class>/<video>."""
    parts = [video_id.split("/") for video_id in video_ids]
    divided = _is_divided(parts)
    depth = 1 if divided else 0
    loose = ["/".join(part) for part in parts if len(part) < depth + 2]
    if loose:
        use = "train/CLASS/VIDEO and val/CLASS/VIDEO" if divided else "CLASS/VIDEO"
        raise ListError(f"{len(loose)} videos are in no class folder ({loose[0]}); use {use}")
    return sorted({part[depth] for part in parts})


def _write_classes(dataset: str, folders: list[str]) -> list[str]:
    path = classes_path(dataset)
    known = {}
    if path.exists():
        known = {folder: name for _, folder, name in read_rows(path, ("folder", "name"))}
    rows = [(folder, known.get(folder, folder.replace("_", " "))) for folder in folders]
    write_csv(("folder", "name"), rows, path)
    return [name for _, name in rows]


def _link(dataset: str, root: Path) -> str:
    """Make data/raw/<dataset> a link to `root` unless the pipeline finds the videos anyway."""
    link, target = RAW_DIR / dataset, root.resolve()
    data_root = os.environ.get("CLIPZOO_DATA")
    places = [link, Path(data_root) / dataset] if data_root else [link]
    if data_root and places[1].exists() and places[1].resolve() != target:
        raise ListError(f"{places[1]} (CLIPZOO_DATA) is not {root}; rename the dataset or move one")
    if any(place.exists() and place.resolve() == target for place in places):
        return ""
    if link.is_symlink() or link.exists():
        raise ListError(f"{link} exists and is not {root}; remove it, or choose another name")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target, target_is_directory=True)
    return str(link)


def register(commands: Commands) -> None:
    command = add_command(
        commands,
        "scan",
        "write the manifest of a folder of videos",
        ("scan mine ~/videos", "scan ucf101 /data/UCF-101"),
    )
    command.add_argument("dataset", help="name of the dataset, e.g. ucf101, or any new name")
    command.add_argument("root", type=Path, help="folder that holds its videos")
    command.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    summary = scan(arguments.dataset, arguments.root)
    size_mb = summary.num_bytes / 1e6
    print(f"scan: {summary.num_videos} videos ({size_mb:.1f} MB) in {arguments.root}")
    if summary.classes:
        print(f"{len(summary.classes)} classes: {few([c.name for c in summary.classes], 10)}")
        print(_describe_classes(summary), end="")
    if summary.others:
        names = few(summary.others, 10)
        print(f"ignored {len(summary.others)} files without a video extension: {names}")
    if summary.link:
        print(f"made the link {summary.link} (for this machine only; git ignores it)")
    print(f"wrote {', '.join(summary.written)}")
    recipes = [] if summary.classes else recipes_of(arguments.dataset)
    if not summary.classes:
        print(_describe_copy(arguments.dataset))
    print(_next_steps(arguments.dataset, summary, recipes))


def _describe_classes(summary: ScanSummary) -> str:
    """How many videos the classes have, and which few-shot lists they allow."""
    classes = sorted(summary.classes, key=lambda count: count.num_videos)
    numbers = [count.num_videos for count in classes]
    text = f"videos of a class: {numbers[0]} to {numbers[-1]}, median {median(numbers):g}"
    if numbers[0] < numbers[-1]:
        rows = [
            (count.name, str(count.num_videos), str(count.num_train), str(count.num_val))
            for count in classes[:FEWEST]
        ]
        text += "; the classes with the fewest:\n"
        text += aligned(("Class", "Videos", "Train", "Val"), rows, indent="  ").rstrip("\n")
    text += "\n"
    fewest = min(classes, key=lambda count: count.num_train)
    possible = [str(shots) for shots in SHOTS if shots <= fewest.num_train]
    missing = [str(shots) for shots in SHOTS if shots > fewest.num_train]
    text += f"few-shot lists (data.shots): {', '.join(possible) or 'none'}"
    if missing:
        text += f"; missing: {', '.join(missing)}, because of the class {fewest.name!r} "
        text += f"({fewest.num_train} for training)"
    return text + "\n"


def _describe_copy(dataset: str) -> str:
    """All that is wrong with a dataset as far as its annotations and manifest show."""
    found = try_survey(load_params(), dataset)
    if isinstance(found, str):
        return found or (
            f"put the official annotation files into data/annotations/{dataset}/; then "
            f"`clipzoo missing {dataset}` compares them with the manifest"
        )
    lines = [f"{len(found.joined.videos):,} annotated videos", *found.notes]
    if found.shortage:
        lines.append(
            f"{found.shortage} (`clipzoo missing {dataset}` shows more); {ways_out(dataset)}"
        )
    elif found.lost:
        lines.append(f"{len(found.lost):,} are missing, all in {ledger_path(dataset)}")
    else:
        lines[0] += ", each with a file"
    return "\n".join(lines)


def _next_steps(dataset: str, summary: ScanSummary, recipes: Sequence[str]) -> str:
    """What to do after a scan: run one of the recipes that use the dataset, whose settings fit it,
    or else change params.yaml, which may be the demo's."""
    track = shlex.join(["git", "add", *summary.written])
    if recipes:
        first = shlex.quote(recipes[0])
        return (
            f"track them:   {track}\n"
            f"for queued experiments, which see only tracked files, also: git add "
            f"data/annotations/{dataset}\n"
            f"{len(recipes)} recipes use {dataset}: {few(recipes, 5)}\n"
            f"(`clipzoo recipes` lists all, with what is missing here)\n"
            f"next: clipzoo check {first}, then clipzoo zoo {first}"
        )
    names = evaluate = ""
    if summary.classes:
        names = f"class names are in {summary.written[-2]}: edit them there\n"
    if summary.only_val:
        evaluate = " -S train.epochs=0"
        names += (
            "each class has only one video, so all are for validation (val_fraction: 1 in "
            f"datasets/{dataset}.yaml) and none for training: set train.epochs to 0\n"
        )
    return (
        f"{names}"
        f"track them:   {track}\n"
        "in params.yaml (change other values as you like):\n"
        "  data:\n"
        f"    dataset: {dataset}\n"
        f"    datasets:\n    - {dataset}\n"
        "    demo: []\n"
        "    zero_shot: []\n"
        "or, without editing params.yaml:\n"
        f"  dvc exp run -S data.dataset={dataset} -S 'data.datasets=[{dataset}]' "
        f"-S 'data.demo=[]' -S 'data.zero_shot=[]' -S recipe={dataset}{evaluate}\n"
        "next: dvc repro"
    )

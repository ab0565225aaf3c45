"""The zoo's datasets at small size, with annotation files in their official form.

Every class is there, with one or two videos in each set; the video files are copies of a few tiny
ones. About 5 % of the annotated videos have no file, and some files are broken, as in everybody's
copy of Kinetics.
"""

import csv
import io
import itertools
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from videos import make_video

LABELS = Path(__file__).parents[2] / "src/clipzoo/reference/labels"
MISSING_EVERY = 19
"""One of so many annotated videos has no file: about 5 %."""
BROKEN = 2
"""Files of each copy that cannot be decoded."""
KINETICS_HEADER = ("label", "youtube_id", "time_start", "time_end", "split")


@dataclass(frozen=True)
class Official:
    """One dataset in its official form."""

    files: dict[str, str]
    """Annotation files: name -> content."""
    train: list[str]
    """Annotated training videos, as paths below the dataset's folder."""
    val: list[str]
    """The videos that it is tested on."""
    counts: dict[str, object]
    """What datasets/<name>.yaml says of the numbers: num_train, num_val, ..."""
    surplus: list[str] = field(default_factory=list)
    """Files that no annotation names."""

    @property
    def annotated(self) -> list[str]:
        """All annotated videos, each once."""
        return list(dict.fromkeys([*self.train, *self.val]))

    @property
    def absent(self) -> list[str]:
        """The annotated videos that the copy lacks."""
        return self.annotated[7::MISSING_EVERY]

    @property
    def broken(self) -> list[str]:
        """The annotated videos whose file cannot be decoded: the last ones of the test set."""
        return [path for path in reversed(self.val) if path not in self.absent][:BROKEN]


def class_names(name: str) -> list[str]:
    """The names in a committed label file, by id."""
    with (LABELS / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return [row["name"] for row in csv.DictReader(file)]


def write_copy(official: Official, annotations: Path, videos: Path, sources: list[Path]) -> None:
    """Write a dataset's annotation files, and the videos of an incomplete copy.

    Args:
        official: the dataset.
        annotations: folder for the annotation files.
        videos: folder for the videos.
        sources: videos to copy from, in turn.
    """
    for name, text in official.files.items():
        path = annotations / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    there = [path for path in official.annotated if path not in official.absent]
    for path, source in zip([*there, *official.surplus], itertools.cycle(sources), strict=False):
        (videos / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, videos / path)
    for path in official.broken:
        (videos / path).write_bytes(b"\0\0\0\x18ftypmp42" + bytes(300))


def make_sources(folder: Path, extension: str, num_frames: int = 20) -> list[Path]:
    """Three short videos of different length, 10 frames a second."""
    return [
        make_video(folder / f"{n}{extension}", num_frames=num_frames + n, size="64x48")
        for n in range(3)
    ]


def kinetics400() -> Official:
    """train.csv and val.csv; folders as the mirror's archives give them, with the test set and the
    folder of replacements for videos that its archives have broken."""
    train, val, rows = [], [], {"train": [], "validate": []}
    for number, name in enumerate(class_names("kinetics400")):
        for kind, folder, paths in (("train", "train", train), ("validate", "val", val)):
            youtube_id, start = f"{folder[0]}{number:010d}", number % 90
            rows[kind].append((name, youtube_id, start, start + 10, kind))
            paths.append(f"{folder}/{youtube_id}_{start:06d}_{start + 10:06d}.mp4")
    replaced = Path(train[3]).name
    return Official(
        files={
            "train.csv": _csv(KINETICS_HEADER, rows["train"]),
            "val.csv": _csv(KINETICS_HEADER, rows["validate"]),
        },
        train=train,
        val=val,
        counts={"num_classes": 400},
        surplus=[
            *(f"test/x{number:010d}_000001_000011.mp4" for number in range(30)),
            f"replacement/replacement_for_corrupted_k400/{replaced}",
        ],
    )


def kinetics400_val() -> Official:
    """val.csv alone, and the videos of the whole dataset."""
    whole = kinetics400()
    return replace(
        whole,
        files={"val.csv": whole.files["val.csv"]},
        train=[],
        surplus=[*whole.train, *whole.surplus],
    )


def kinetics600(split: int) -> Official:
    """test.csv with all classes of Kinetics-600; the split evaluates on 160 of them."""
    names = class_names(f"kinetics600_split{split}")
    others = [name for name in class_names("kinetics400")[:5] if name not in names]
    rows, val = [], []
    for number, name in enumerate([*names, *others]):
        youtube_id = f"s{number:010d}"
        rows.append((name, youtube_id, 10, 20, "test"))
        if name in names:
            val.append(f"{youtube_id}_000010_000020.mp4")
    return Official(
        files={"test.csv": _csv(KINETICS_HEADER, rows)},
        train=[],
        val=val,
        counts={"num_classes": 160},
    )


def ucf101() -> Official:
    """classInd.txt and three splits; files of HandstandPushups are named v_HandStandPushups."""
    names = class_names("ucf101")
    videos = {
        (group, name): f"{name}/v_{name}_g{group:02d}_c01.avi"
        for group in (1, 2, 3)
        for name in names
    }
    files = {"classInd.txt": _lines(f"{i} {name}" for i, name in enumerate(names, 1))}
    for split in (1, 2, 3):
        train = [
            f"{path} {names.index(name) + 1}"
            for (group, name), path in videos.items()
            if group != split
        ]
        test = [path for (group, _), path in videos.items() if group == split]
        files[f"trainlist{split:02d}.txt"] = _lines(train)
        files[f"testlist{split:02d}.txt"] = _lines(test)
    return Official(
        files=files,
        train=[path for (group, _), path in videos.items() if group != 1],
        val=[path for (group, _), path in videos.items() if group == 1],
        counts={"num_train": [202] * 3, "num_val": [101] * 3},
    )


def hmdb51() -> Official:
    """A file for each class and split in the archive's folder; one video a class in neither set."""
    names = [name.replace(" ", "_") for name in class_names("hmdb51")]
    files, train, val, unused = {}, [], [], []
    for name in names:
        for split in (1, 2, 3):
            marks = [0, *(2 if number == split else 1 for number in (1, 2, 3))]
            files[f"testTrainMulti_7030_splits/{name}_test_split{split}.txt"] = _lines(
                f"clip_{number}_{name}.avi {mark} " for number, mark in enumerate(marks)
            )
        unused.append(f"{name}/clip_0_{name}.avi")
        val.append(f"{name}/clip_1_{name}.avi")
        train += [f"{name}/clip_2_{name}.avi", f"{name}/clip_3_{name}.avi"]
    return Official(
        files=files,
        train=[*train, *unused],
        val=val,
        counts={"num_train": [102] * 3, "num_val": [51] * 3, "num_whole": 204},
    )


def activitynet() -> Official:
    """The json of version 1.3, with its instance of no length and a testing subset."""
    database: dict[str, dict[str, object]] = {}
    train, val = [], []
    for number, name in enumerate(class_names("activitynet")):
        for subset, paths in (("training", train), ("validation", val)):
            video_id = f"{subset[0]}{number:010d}"
            segments = [[0.0, 1.5]] if number else [[0, 0], [0.2, 1.9]]
            annotations = [{"label": name, "segment": segment} for segment in segments]
            database[video_id] = {"subset": subset, "duration": 2.0, "annotations": annotations}
            paths.append(f"v1-3/train_val/v_{video_id}.mp4")
    for number in range(10):
        database[f"x{number:010d}"] = {"subset": "testing", "duration": 2.0, "annotations": []}
    return Official(
        files={"activity_net.v1-3.min.json": json.dumps({"database": database})},
        train=train,
        val=val,
        counts={"num_train": [201], "num_val": [200], "num_whole": 400},
        surplus=[f"v1-3/test/v_x{number:010d}.mp4" for number in range(10)],
    )


def charades() -> Official:
    """Segments of several classes a video, and test videos with all their labels or none."""
    names = class_names("charades")
    header = ("id", "subject", "scene", "actions", "length")
    sets: dict[str, list[tuple[str, ...]]] = {"train": [], "test": []}
    num_segments = 0
    for kind, rows in sets.items():
        for number, members in enumerate(_runs(range(len(names)), 4)):
            actions = ";".join(
                f"c{label:03d} 0.20 {1.2 + number % 5 / 10:.2f}" for label in members
            )
            rows.append((f"{kind[:2].upper()}{number:03d}", "ABCD", "Kitchen", actions, "2.00"))
            num_segments += len(members) if kind == "train" else 0
    sets["test"].append(("TE999", "ABCD", "Kitchen", "", "2.00"))
    return Official(
        files={
            "Charades_v1_classes.txt": _lines(f"c{i:03d} {name}" for i, name in enumerate(names)),
            "Charades_v1_train.csv": _csv(header, sets["train"]),
            "Charades_v1_test.csv": _csv(header, sets["test"]),
        },
        train=[f"Charades_v1_480/{row[0]}.mp4" for row in sets["train"]],
        val=[f"Charades_v1_480/{row[0]}.mp4" for row in sets["test"]],
        counts={"num_train": [num_segments], "num_val": [len(sets["test"])]},
    )


def _runs(numbers: Iterable[int], size: int) -> Iterator[list[int]]:
    """Runs of `size` numbers, one after the other."""
    rest = iter(numbers)
    while run := list(itertools.islice(rest, size)):
        yield run


def _csv(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)

"""`clipzoo predict VIDEO...`: the most likely classes of video files."""

import argparse
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from clipzoo.commands.arguments import Commands, add_command
from clipzoo.config import CROPS, MAX_CLIPS, ConfigError
from clipzoo.data.decoding import VideoError
from clipzoo.data.records import class_name_faults
from clipzoo.files import few, read_text, shown
from clipzoo.serve.output import as_csv, as_json, as_line, as_text, csv_header, numbered

if TYPE_CHECKING:
    from clipzoo.serve.model import VideoModel
    from clipzoo.serve.prediction import Prediction

AnyPrediction = TypeVar("AnyPrediction", bound="Prediction")
Found = TypeVar("Found")

SUFFIXES = (
    *(".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"),
    *(".mts", ".ogg", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
)
"""Of the files of a folder, those with such a name are taken for videos."""
UNKNOWN = "unknown"
"""The label of a video none of whose cosines reaches `--min-cosine`."""


def open_model(name: str | None, device: str) -> "VideoModel":
    """The model of a name (`serve.sources.read_model`); None = that of the last `dvc repro`.

    Raises:
        WeightsError, ListError, ConfigError: the model cannot be read, or there is none; or there
            is no such device.
    """
    from clipzoo.serve.model import load  # slow: it imports torch

    try:
        return load(name, device)
    except ConfigError as error:
        if str(error).startswith("device:"):  # which is an option here
            raise ConfigError(f"--{error}") from error
        raise


def video_files(paths: Sequence[str]) -> list[Path]:
    """The files that arguments name: files, the videos of folders, and `-`, a list on stdin.

    Raises:
        ConfigError: a folder has no video, or there is nothing to do.
    """
    names = [name for path in paths for name in (_lines(sys.stdin) if path == "-" else [path])]
    files: list[Path] = []
    for name in names:
        path = Path(name)
        if not path.is_dir():
            files.append(path)
            continue
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not found:
            raise ConfigError(
                f"{path}: no video in this folder; allowed: files with names like {SUFFIXES[8]}"
            )
        files += found
    if not files:
        raise ConfigError("predict: found no video; allowed: files, folders, or - for a list")
    return files


def _lines(lines: Iterator[str]) -> list[str]:
    return [line.rstrip("\r\n") for line in lines if line.strip()]


def class_names(arguments: argparse.Namespace) -> list[str] | None:
    """The classes that `--classes FILE` or `--class "a, b"` names; None = the model's own.

    Raises:
        ConfigError: names classes that are empty or appear twice, and their lines; or there is
            none, and the model of open_clip that is asked for has none of its own.
    """
    if arguments.classes is not None:
        lines = read_text(arguments.classes, ConfigError).split("\n")
        named = {f"{arguments.classes}:{i}": x for i, x in enumerate(lines, 1) if x.strip()}
        if not named:
            raise ConfigError(f"{arguments.classes}: found no class; allowed: one a line")
    elif arguments.class_names is not None:
        words = arguments.class_names.split(",")
        named = {f"--class: class {i}": word.strip() for i, word in enumerate(words, 1)}
    else:
        _require_own_classes(arguments.model)
        return None
    if faults := class_name_faults(list(named.values()), list(named)):
        raise ConfigError(few(faults, separator="; "))
    return list(named.values())


def _require_own_classes(model: str | None) -> None:
    """Raise ConfigError before the weights of a model without classes of its own are downloaded."""
    if model is None:
        return
    from clipzoo.serve.model import NO_CLASSES  # slow: it imports torch
    from clipzoo.serve.sources import OPEN_CLIP

    if model.startswith(OPEN_CLIP):
        raise ConfigError(f"{model}: {NO_CLASSES}")


def each_result(
    files: list[Path], use: Callable[[Path], Iterable[Found]], failed: list[Path]
) -> Iterator[tuple[Path, Found]]:
    """All that `use` makes of each video; one that cannot be read is named, and added to `failed`,
    perhaps after some results."""
    from clipzoo.data.store import StoreError
    from clipzoo.runtime.progress import progress_bar

    with progress_bar("videos", len(files), "video", disable=len(files) == 1) as bar:
        on_terminal = sys.stderr.isatty() and not bar.disable
        for path in files:
            try:
                if path.exists() and not path.is_file():
                    raise VideoError(f"{path}: not a regular file; allowed: a video file")
                for found in use(path):
                    if on_terminal:
                        bar.clear()  # else what the caller prints would follow it in its line
                    yield path, found
                    if on_terminal:
                        bar.refresh()
            except (VideoError, StoreError) as error:
                failed.append(path)
                if on_terminal:
                    bar.clear()
                print(f"error: {shown(str(error))}", file=sys.stderr, flush=True)
            bar.update()


def raise_if_failed(failed: list[Path], files: list[Path]) -> None:
    """VideoError if some videos could not be read, so that the exit code says it."""
    if failed:
        raise VideoError(f"{len(failed)} of {numbered(len(files), 'video')} cannot be read")


def _predictions(
    model: "VideoModel", path: Path, names: list[str] | None, arguments: argparse.Namespace
) -> "Iterator[Prediction]":
    """The prediction of a video or those of its windows; with `--save` they are also drawn."""
    from clipzoo.serve.drawing import Curve, draw_curve, draw_prediction, frames_to_draw

    test, every, picture = model.config.views, arguments.every, arguments.picture
    # All classes if one that is not told may have the highest cosine, or a curve is drawn.
    all_classes = arguments.min_cosine is not None or (picture and every is not None)
    num_classes = max(1, len(model.class_names if names is None else names))
    options: dict[str, Any] = {
        "top": num_classes if all_classes else _top(arguments),
        "views": (arguments.clips or test.clips, arguments.crops or test.crops),
        "zero_shot": arguments.zero_shot,
    }
    if every is None:
        found = model.predict(path, names, **options)
        if picture:
            best = _first(found, _top(arguments))
            frames = model.pictures(path, frames_to_draw(best))
            draw_prediction(picture(path), path.name, best, frames)
        yield _first(found, _top(arguments), arguments.min_cosine)
        return
    curve = Curve()
    for window in model.windows(path, names, every=every, **options):
        if picture:
            curve.add(window)
        yield _first(window, _top(arguments), arguments.min_cosine)
    if picture:
        draw_curve(picture(path), path.name, curve, model.pictures(path, curve.stills()))


def _top(arguments: argparse.Namespace) -> int:
    """How many classes are told: 5, or the one of a window in a line for people."""
    if arguments.top is not None:
        return arguments.top
    return 1 if arguments.every and not (arguments.json or arguments.csv) else 5


def _first(found: "AnyPrediction", top: int, least: float | None = None) -> "AnyPrediction":
    """The first labels of a prediction; `unknown` if no class of all has the least cosine."""
    highest = max(found.cosines)
    if least is not None and highest < least:
        # No class has been told, and so no probability.
        unknown: dict[str, Any] = {"labels": [UNKNOWN], "probabilities": [math.nan]}
        unknown["weights"] = None
        return replace(found, cosines=[highest], **unknown)
    return replace(
        found,
        labels=found.labels[:top],
        probabilities=found.probabilities[:top],
        cosines=found.cosines[:top],
        weights=found.weights and replace(found.weights, by_label=found.weights.by_label[:top]),
    )


def _pictures(folder: str | None, files: list[Path]) -> Callable[[Path], Path] | None:
    """Where the picture of each video is drawn: by its name, below the folders in which the videos
    differ, so that two of one name have two pictures."""
    if folder is None:
        return None
    for part in (Path(folder), *Path(folder).parents):
        if part.exists() and not part.is_dir():
            inside = "" if part == Path(folder) else f" {folder} in"
            raise ConfigError(
                f"--save: found{inside} {part}, which is a file; allowed: a folder, or none"
            )

    def real(path: Path) -> Path:  # without `..`, which would lead out of the folder
        return Path(os.path.realpath(path.parent))

    root = os.path.commonpath([real(path) for path in files])

    def place(path: Path) -> Path:
        return Path(folder) / real(path).relative_to(root) / f"{path.name}.png"

    return place


def check_length(every: float | None) -> None:
    """Raise ConfigError unless `--every` can be the length of windows (seconds)."""
    if every is None:
        return
    from clipzoo.serve.windows import check_every  # slow: it imports torch

    try:
        check_every(every)
    except ConfigError as error:
        raise ConfigError(f"--{error}") from error


def _check(arguments: argparse.Namespace) -> None:
    """Raise ConfigError for numbers that are not allowed, before the model is read."""
    top, clips, crops = arguments.top, arguments.clips, arguments.crops
    if top is not None and top < 1:
        raise ConfigError(f"--top: found {top}; allowed: 1 or more")
    if clips is not None and not 1 <= clips <= MAX_CLIPS:
        raise ConfigError(f"--clips: found {clips}; allowed: 1 to {MAX_CLIPS}")
    if crops is not None and crops not in CROPS:
        raise ConfigError(f"--crops: found {crops}; allowed: one of {', '.join(map(str, CROPS))}")
    check_length(arguments.every)
    least = arguments.min_cosine
    if least is not None and not -1 <= least <= 1:
        raise ConfigError(f"--min-cosine: found {least:g}; allowed: -1 to 1")


def _run(arguments: argparse.Namespace) -> None:
    _check(arguments)
    names, files = class_names(arguments), video_files(arguments.videos)
    arguments.picture = _pictures(arguments.save, files)
    model, failed, last = open_model(arguments.model, arguments.device), [], None
    if arguments.csv:
        print(csv_header(arguments.every is not None), end="", flush=True)
    results = each_result(files, lambda p: _predictions(model, p, names, arguments), failed)
    for path, found in results:
        if arguments.json or arguments.csv:
            text = as_json(path, found) if arguments.json else as_csv(path, found)
        elif arguments.every is None:
            text = as_text(path, found)
        else:
            title = "" if path is last else f"{shown(str(path))}\n"
            text = title + as_line(found)
        print(text, end="", flush=True)
        last = path
    raise_if_failed(failed, files)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The options by which a command finds its model."""
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="a model folder, hf:OWNER/NAME or openclip:ARCH/TAG (default: the last run's)",
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))


def register(commands: Commands) -> None:
    parser = add_command(
        commands,
        "predict",
        "the most likely classes of video files",
        (
            "predict juggling.mp4",
            'predict videos/ --class "juggling balls, knitting" --top 2',
            "predict a.mp4 b.avi --model models/mine --json",
            "predict game.mp4 --every 2 --save pictures",
        ),
    )
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="a file, a folder, or - (stdin)")
    add_model_arguments(parser)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--classes", metavar="FILE", help="a file with one class a line")
    group.add_argument("--class", dest="class_names", metavar="NAMES", help='"a, b": these classes')
    parser.add_argument(
        "--top", type=int, metavar="N", help="classes a video (5; in lines of windows 1)"
    )
    parser.add_argument(
        "--clips", type=int, metavar="N", help="temporal clips (default: its test's)"
    )
    parser.add_argument("--crops", type=int, metavar="N", help="spatial crops of each clip")
    parser.add_argument(
        "--min-cosine", type=float, metavar="X", help=f"below it, a video is {UNKNOWN}"
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--zero-shot", action="store_true", default=None, help="score as the stage zero_shot does"
    )
    kind.add_argument(
        "--trained", dest="zero_shot", action="store_false", help="score as the stage test does"
    )
    parser.add_argument(
        "--every", type=float, metavar="SECONDS", help="predict each window of this length"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object a line")
    form.add_argument("--csv", action="store_true", help="a table with a row for each class")
    parser.add_argument(
        "--save", metavar="DIR", help="draw a picture of each video: frames and scores, as png"
    )
    parser.set_defaults(run=_run)

"""`clipzoo predict VIDEO...`: the most likely classes of video files."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from clipzoo.commands.arguments import Commands, add_command
from clipzoo.commands.use import PARAMS_FILE
from clipzoo.config import ConfigError, load_params
from clipzoo.data.decoding import VideoError
from clipzoo.files import read_text, shown

if TYPE_CHECKING:
    from clipzoo.serve.model import Prediction, VideoModel

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
        WeightsError, ListError, ConfigError: the model cannot be read, or there is none.
    """
    from clipzoo.serve.folder import model_of_run  # slow: they import torch
    from clipzoo.serve.model import VideoModel, load
    from clipzoo.tensors import WeightsError

    if name is not None:
        return load(name, device)
    try:
        return VideoModel(model_of_run(load_params(PARAMS_FILE)), device)
    except WeightsError as error:
        raise WeightsError(
            f"{error}; without --model the model of the last `dvc repro` is used: run that, or "
            "give a model folder"
        ) from error


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
    return [line.rstrip("\n") for line in lines if line.strip()]


def class_names(arguments: argparse.Namespace) -> list[str] | None:
    """The classes that `--classes FILE` or `--class "a, b"` names; None = the model's own."""
    if arguments.classes:
        return _lines(iter(read_text(arguments.classes, ConfigError).splitlines()))
    if arguments.class_names:
        return [name.strip() for name in arguments.class_names.split(",")]
    return None


def as_text(path: Path, prediction: "Prediction") -> str:
    """A few lines for people: probability, cosine and class, and when the frames are shown."""
    first, last = prediction.seconds[0], prediction.seconds[-1]
    title = f"{shown(str(path))} ({len(prediction.frames)} frames, {first:.1f} to {last:.1f} s)\n"
    rows = zip(prediction.probabilities, prediction.cosines, prediction.labels, strict=True)
    return title + "".join(f"  {p:6.3f}  {c:6.3f}  {shown(label)}\n" for p, c, label in rows)


def as_json(path: Path, prediction: "Prediction") -> str:
    """One line; `predictions` has the shape of the task video-classification."""
    rows = zip(prediction.labels, prediction.probabilities, prediction.cosines, strict=True)
    content = {
        "video": str(path),
        "predictions": [{"label": x, "score": p, "cosine": c} for x, p, c in rows],
        "frames": prediction.frames,
        "seconds": prediction.seconds,
    }
    return json.dumps(content, ensure_ascii=False) + "\n"


def _predict(
    model: "VideoModel", path: Path, names: list[str] | None, arguments: argparse.Namespace
) -> "Prediction":
    test = model.config.views
    views = (arguments.clips or test.clips, arguments.crops or test.crops)
    found = model.predict(
        path, names, top=arguments.top, views=views, zero_shot=arguments.zero_shot
    )
    least = arguments.min_cosine
    if least is not None and max(found.cosines) < least:
        return replace(found, labels=[UNKNOWN], probabilities=[0.0], cosines=[max(found.cosines)])
    return found


def each_video(
    files: list[Path], use: Callable[[Path], Found], failed: list[Path]
) -> Iterator[tuple[Path, Found]]:
    """What `use` makes of each video; one that cannot be read is named, and added to `failed`."""
    from clipzoo.runtime.progress import progress_bar

    with progress_bar("videos", len(files), "video", disable=len(files) == 1) as bar:
        for path in files:
            try:
                found = use(path)
            except VideoError as error:
                failed.append(path)
                print(f"error: {shown(str(error))}", file=sys.stderr, flush=True)
            else:
                yield path, found
            bar.update()


def raise_if_failed(failed: list[Path], files: list[Path]) -> None:
    """VideoError if some videos could not be read, so that the exit code says it."""
    if failed:
        raise VideoError(f"{len(failed)} of {len(files)} videos cannot be read")


def _run(arguments: argparse.Namespace) -> None:
    names, files = class_names(arguments), video_files(arguments.videos)
    model = open_model(arguments.model, arguments.device)
    write, failed = as_json if arguments.json else as_text, []
    for path, found in each_video(files, lambda p: _predict(model, p, names, arguments), failed):
        print(write(path, found), end="", flush=True)
    raise_if_failed(failed, files)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The options by which a command finds its model."""
    parser.add_argument("--model", metavar="DIR", help="a model folder (default: the last run's)")
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
        ),
    )
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="a file, a folder, or - (stdin)")
    add_model_arguments(parser)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--classes", metavar="FILE", help="a file with one class a line")
    group.add_argument("--class", dest="class_names", metavar="NAMES", help='"a, b": these classes')
    parser.add_argument("--top", type=int, default=5, metavar="N", help="classes a video (5)")
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
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(run=_run)

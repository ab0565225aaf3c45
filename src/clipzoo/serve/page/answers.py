"""What a model says of a video, as the page shows it: lines of JSON, as soon as each is known."""

import base64
import math
import shlex
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from clipzoo.serve.model import VideoModel
    from clipzoo.serve.prediction import Window

TOP = 10
"""Classes of the table."""
LONG_SECONDS = 20.0
"""A video longer than this gets a curve over time."""
MOST_WINDOWS = 60
"""Points of the curve."""
MOST_PICTURES = 64
"""Frames that are shown; a test of 10 clips of 32 frames would have 320."""
NUM_CURVES = 5
"""Classes of the curve."""
MOST_ON_A_LINE = 20
"""Classes that the command names itself; more are in a file."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of the model."""

    path: Path
    """The video."""
    name: str
    """What the one who asks calls it."""
    class_names: list[str] | None
    """None = the model's own."""


def asked_classes(text: str | None, own: Sequence[str]) -> list[str] | None:
    """The class names of a text, one a line; None if there is no text, or they are the model's own,
    which the model that was trained on them scores.

    Example: `asked_classes("a\\n\\n b ", ["c"]) == ["a", "b"]`.
    """
    if text is None:
        return None
    names = [line.strip() for line in text.split("\n") if line.strip()]
    return None if names == list(own) else names


def window_seconds(duration: float) -> float:
    """The length of the windows of a long video: whole seconds, 2 at least, so that there are no
    more than MOST_WINDOWS. Example: of 3 minutes, 3 s."""
    return float(max(2, math.ceil(duration / MOST_WINDOWS)))


def answer(
    model: "VideoModel", request: Request, options: Sequence[str]
) -> Generator[dict[str, Any], None, None]:
    """The lines of an answer but for `done` and `error`.

    Args:
        options: words of the command line that name the model and the device.

    Yields:
        `prediction` (classes, probabilities, cosines), `commands`, `pictures` (JPEGs in base64,
        with their times); for a long video `progress` (seconds done, of all) and `curve`.

    Raises:
        VideoError, ConfigError: as `VideoModel.predict`.
    """
    path, names = request.path, request.class_names
    found = model.predict(path, names, top=TOP)
    duration = model.duration(path)
    every = window_seconds(duration) if duration > LONG_SECONDS else None
    yield {
        "prediction": {
            "labels": found.labels,
            "probabilities": found.probabilities,
            "cosines": found.cosines,
            "num_frames": len(found.frames),
            "num_classes": len(names or model.class_names),
        },
        "commands": command_lines(request, options, every),
    }
    shown = evenly(len(found.frames), MOST_PICTURES)
    jpegs = model.read_frames(path, [found.frames[i] for i in shown])
    yield {
        "pictures": [
            {"seconds": found.seconds[i], "jpeg": base64.b64encode(jpeg).decode("ascii")}
            for i, jpeg in zip(shown, jpegs, strict=True)
        ]
    }
    if every is not None:
        windows: list[Window] = []
        top = len(names or model.class_names)
        for window in model.windows(path, names, every=every, top=top):
            windows.append(window)
            yield {"progress": {"seconds": min(window.end, duration), "of": duration}}
        yield {"curve": {"every": every, **curve(windows)}}


def evenly(count: int, most: int) -> list[int]:
    """Up to `most` of `count` positions, spread evenly: `evenly(5, 3) == [0, 2, 4]`."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


def curve(windows: Sequence["Window"]) -> dict[str, Any]:
    """The probabilities over time of the NUM_CURVES classes that are highest anywhere."""
    rows = [dict(zip(w.labels, w.probabilities, strict=True)) for w in windows]
    peaks = {label: max(row[label] for row in rows) for label in rows[0]}
    chosen = sorted(peaks, key=lambda label: -peaks[label])[:NUM_CURVES]
    return {
        "starts": [w.start for w in windows],
        "ends": [w.end for w in windows],
        "best": [[w.labels[0], w.probabilities[0]] for w in windows],
        "series": [{"label": x, "probabilities": [row[x] for row in rows]} for x in chosen],
    }


def command_lines(request: Request, options: Sequence[str], every: float | None) -> list[str]:
    """What gives the same in a shell: the table, and for a long video the curve."""
    name = f"./{request.name}" if request.name.startswith("-") else request.name
    words, first = ["clipzoo", "predict", name, *options], []
    names = request.class_names
    if names:
        if len(names) > MOST_ON_A_LINE or any("," in n or n.startswith("-") for n in names):
            first = [shlex.join(["printf", "%s\\n", *names]) + " > classes.txt"]
            words += ["--classes", "classes.txt"]
        else:
            words += ["--class", ", ".join(names)]
    lines = [*first, shlex.join([*words, "--top", str(TOP)])]
    return lines if every is None else [*lines, shlex.join([*words, "--every", f"{every:g}"])]

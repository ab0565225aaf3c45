"""Predictions as text: for people, as JSON, and as csv."""

import csv
import io
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clipzoo.files import shown

if TYPE_CHECKING:
    from clipzoo.serve.prediction import Prediction


def as_text(path: Path, prediction: "Prediction") -> str:
    """A few lines for people: probability, cosine and class, and when the frames are shown."""
    first, last = prediction.seconds[0], prediction.seconds[-1]
    frames = numbered(len(prediction.frames), "frame")
    title = f"{shown(str(path))} ({frames}, {first:.1f} to {last:.1f} s)\n"
    return title + "".join(f"  {row}\n" for row in _for_people(prediction))


def as_line(window: "Prediction") -> str:
    """One line for people: its time, and probability, cosine and class, perhaps of several."""
    start, end = _times(window).values()
    return f"  {start:9.2f} to {end:9.2f} s  {' |'.join(_for_people(window))}\n"


def _for_people(prediction: "Prediction") -> list[str]:
    return [
        f"{'-' if p is None else f'{p:.3f}':>6}  {c:6.3f}  {shown(label)}"
        for label, p, c in _rows(prediction)
    ]


def _rows(prediction: "Prediction") -> list[tuple[str, float | None, float]]:
    """Label, probability and cosine; None instead of NaN, which JSON and csv do not have."""
    rows = zip(prediction.labels, prediction.probabilities, prediction.cosines, strict=True)
    return [(label, None if math.isnan(p) else p, c) for label, p, c in rows]


def as_json(path: Path, prediction: "Prediction") -> str:
    """One line; `predictions` and the names of the two numbers are those of the task
    video-classification of the model hub."""
    content = {
        "video": _name(path),
        **_times(prediction),
        "predictions": [{"label": x, "score": p, "cosine": c} for x, p, c in _rows(prediction)],
        "top_k": len(prediction.labels),
        "num_frames": len(prediction.frames),
        "frames": prediction.frames,
        "seconds": prediction.seconds,
    }
    return json.dumps(content, ensure_ascii=False) + "\n"


def csv_header(windows: bool) -> str:
    """The header of `as_csv`."""
    return _csv([("video", *(("start", "end") if windows else ()), "label", "score", "cosine")])


def as_csv(path: Path, prediction: "Prediction") -> str:
    """A row for each label: the video, start and end of a window, label, score and cosine."""
    about = (_name(path), *_times(prediction).values())
    return _csv([(*about, *row) for row in _rows(prediction)])


def _csv(rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _times(prediction: "Prediction") -> dict[str, float]:
    """Start and end of a window, to the microsecond; nothing of a whole video."""
    found = {key: getattr(prediction, key, None) for key in ("start", "end")}
    return {key: round(value, 6) for key, value in found.items() if value is not None}


def _name(path: Path) -> str:
    """A path as text that can be encoded: its bytes need not be UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def numbered(count: int, unit: str) -> str:
    """A number of things: `1 video`, `2 videos`."""
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"

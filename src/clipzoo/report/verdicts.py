"""Compare a run with the published row: its videos, its settings, and the verdict.

A result gets a verdict only if it was measured with the settings of its recipe, on the videos that
the authors published, and if the recipe allows one. The demo's results are compared with what was
measured on other machines.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from clipzoo.config import is_file_name
from clipzoo.report.bounds import Bounds, judge
from clipzoo.report.recipes import Expected, Published, Recipe
from clipzoo.report.released import RELEASED_TOLERANCE, released_parent
from clipzoo.report.stored import load_settings

REFERENCE_DIR = Path(__file__).parents[1] / "reference"

# Settings that cannot change a result, or (in data) only name what else is computed.
HARMLESS = {
    "recipe",
    "data.allow_missing",  # of earlier versions; missing videos change the fingerprint
    "data.datasets",
    "data.demo",
    "data.zero_shot",
    "frames.shard_videos",
    "train.activation_checkpointing",
    "train.checkpoint_every",
}
# Sections (or keys) that only the other one of the two evaluations reads.
ELSEWHERE = {
    "test": ("zero_shot.",),
    "zero_shot": ("test.clips", "test.crops", "test.dense"),
}


REPRODUCED = "reproduced"
"""How the verdict on a result within the tolerance begins."""
RELEASED = "released weights: "
"""What the verdict on released weights says first."""
AUTHORS_PROCESSES = 8
"""GPUs of the authors' runs."""
SHOWN = 3
"""Number of modified settings that a verdict names."""
OWN_RUN = "own run"
"""The verdict on a run whose name is not that of a recipe, as on a user's own videos."""


@dataclass(frozen=True, kw_only=True)
class VideoSet:
    """A published list of videos: a row of reference/video_sets.csv."""

    method: str
    name: str
    num_videos: int
    median_frames: int | None
    """The median number of frames of a video; None = the list has no frame counts."""
    videos_sha256: str


@cache
def video_sets() -> list[VideoSet]:
    """All published lists, in the order of the file."""
    with open(REFERENCE_DIR / "video_sets.csv", encoding="utf-8", newline="") as file:
        return [
            VideoSet(
                method=row["method"],
                name=row["list"],
                num_videos=int(row["unique_ids"]),
                median_frames=int(row["median_frames"]) if row["median_frames"] else None,
                videos_sha256=row["videos_sha256"],
            )
            for row in csv.DictReader(file)
        ]


def named_set(name: str) -> VideoSet:
    """The published list of that name; methods that share a name share the list.

    Raises:
        ValueError: there is none.
    """
    for known in video_sets():
        if known.name == name:
            return known
    raise ValueError(f"no list {name!r} in {REFERENCE_DIR.name}/video_sets.csv")


def compare_videos(values: Mapping[str, Any], published: str) -> tuple[str, bool]:
    """Find the published set of videos that a result was measured on.

    Args:
        values: a metrics file's values: num_videos, num_expected, videos_sha256 and, if videos are
            missing, expected_sha256.
        published: the list that the recipe names; '' = none.

    Returns:
        the set in words ('' = no known one), and whether it is the `published` one. If it is not,
        the words say how many videos differ: exactly if these are the missing ones, else at least
        how many.
    """
    by_sha = {known.videos_sha256: known.name for known in reversed(video_sets())}
    target = named_set(published) if published else None
    sha = values["videos_sha256"]
    if not sha:
        return _compare_rows(values["num_videos"], target)
    if target and sha == target.videos_sha256:
        return f"the published {target.name}", True
    if sha in by_sha:
        other = f", not the published {target.name}" if target else ""
        return f"{by_sha[sha]}{other}", False
    expected = by_sha.get(values.get("expected_sha256", ""))
    if expected:
        missing = values["num_expected"] - values["num_videos"]
        return f"{missing} videos fewer than {expected}", False
    if target is None:
        return "", False
    least = max(abs(values["num_videos"] - target.num_videos), 1)
    return f"at least {least} videos differ from the published {target.name}", False


def is_part(values: Mapping[str, Any], published: str) -> bool:
    """Whether a result was measured on the published set without the videos that a copy lacks.

    Args: as in `compare_videos`.
    """
    if not published:
        return False
    target = named_set(published)
    expected = (values.get("expected_sha256"), values["num_expected"])
    return expected == (target.videos_sha256, target.num_videos)


def _compare_rows(num_rows: int, target: VideoSet | None) -> tuple[str, bool]:
    """`compare_videos` for score files, whose rows have no ids: the number alone counts, which the
    authors' processes fill up to a multiple of theirs with videos from the beginning."""
    words = f"{num_rows} rows without ids"
    if target is None:
        return words, False
    padded = -(-target.num_videos // AUTHORS_PROCESSES) * AUTHORS_PROCESSES
    if num_rows not in (target.num_videos, padded):
        return f"{words}, not the {target.num_videos} of the published {target.name}", False
    extra = f" and {num_rows - target.num_videos} repeated" if num_rows > target.num_videos else ""
    return f"{words}: as many as the published {target.name}{extra}", True


def read_settings(root: Path, recipe: str, stem: str) -> dict[str, Any] | None:
    """`load_settings`; None also if they are damaged, for which a run counts as not done."""
    try:
        return load_settings(root, recipe, stem)
    except ValueError:
        return None


def modified(used: Mapping[str, Any], expected: Mapping[str, Any], stem: str) -> list[str]:
    """Settings in which a run differs from its recipe and that can change the result.

    Args:
        used: settings of the run by dotted key; with batch normalization, values of `runtime` too.
        expected: settings of the recipe, with those of `authors_split` if it says them.
        stem: the name of the metrics file, `test`, `fused` or `zero_shot_<dataset>`.

    Returns:
        dotted keys, sorted; a key that only one of the two has is among them.
    """
    ignored = ELSEWHERE["zero_shot" if stem.startswith("zero_shot_") else "test"]
    differing = {
        key
        for key in used.keys() | expected.keys()
        if key not in used or key not in expected or used[key] != expected[key]
    }
    # Only batch normalization depends on the machine, and not every recipe says on what it ran.
    shared = used.keys() & expected.keys()
    differing -= {key for key in differing - shared if key.startswith("runtime.")}
    if released_parent(used, expected):
        differing.discard("model.checkpoint")  # the verdict says it
    ignored += () if stem == "fused" else ("fusion.",)
    inputs = {used.get("model.inputs"), expected.get("model.inputs")}
    ignored += () if "attributes" in inputs else ("attributes.",)
    weights = {used.get("model.weights"), expected.get("model.weights")}
    ignored += () if "demo" in weights else ("demo.",)
    # The content of a file may not show its activation; all other weights have only one.
    ignored += () if any(map(is_file_name, filter(None, weights))) else ("model.activation",)
    selects = {used.get("train.select"), expected.get("train.select")}
    ignored += ("train.val_every",) if selects == {"last"} else ()
    return sorted(key for key in differing - HARMLESS if not key.startswith(ignored))


def modified_anywhere(used: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """`modified` of the two kinds of evaluation together, which read different settings."""
    stems = ("test", "zero_shot_")
    return sorted({key for stem in stems for key in modified(used, expected, stem)})


def authors_split(recipe: Recipe | None, settings: Mapping[str, Any]) -> dict[str, int]:
    """The authors' micro-batch, by dotted key: what batch normalization depends on.

    Only their clips on one GPU count. With fewer GPUs and as large a micro-batch, the statistics
    are over as many clips. Nothing is known without a recipe that says on how many GPUs its config
    gives the batch size.
    """
    gpus = recipe.authors.config_gpus if recipe else 0
    return {"runtime.micro_batch": settings["train.batch_size"] // gpus} if gpus else {}


def is_reproduced(words: str) -> bool:
    """Whether a verdict says that the result is the published, or the expected, one."""
    return words.removeprefix(RELEASED).startswith(REPRODUCED)


def verdict(
    value: float,
    row: Published | Expected | None,
    recipe: Recipe | None,
    changed: list[str] | None,
    videos: bool | Bounds | None,
    *,
    released: bool = False,
) -> str:
    """The verdict on one result, in words.

    Args:
        value: ours, percent.
        row: the published number, or the expected one; None = none for this result.
        recipe: the run's recipe; None = no recipe has its name.
        changed: the result of `modified`; None = the settings were not recorded.
        videos: whether the videos are the published set; if this copy lacks some of them, the
            bounds of the result on the complete set, None = unknown for this metric.
        released: the result is that of released weights, which have a tolerance of their own.
    """
    if recipe is None:
        return OWN_RUN
    if changed is None:
        return "no verdict: settings not recorded"
    if changed:
        more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
        return f"modified: {', '.join(changed[:SHOWN])}{more}"
    if row is None or row.value is None:
        return "no published value"
    start, tolerance = (RELEASED if released else ""), row.tolerance
    if isinstance(row, Published):
        if not recipe.verdict:
            return "no verdict: see the recipe"
        if videos is False:
            reason = "other videos" if recipe.video_sets else "the set of videos is not published"
            return f"no verdict: {reason}"
        if row.clips is None or row.crops is None:
            return "no verdict: views not published"
        if videos is None:
            return "no verdict: videos are missing, and there are no bounds for this metric"
        tolerance = RELEASED_TOLERANCE if released else tolerance
        if isinstance(videos, Bounds):
            return start + judge(videos, row.value, tolerance)
    delta = value - row.value
    if abs(delta) <= tolerance:
        return f"{start}{REPRODUCED} (within {tolerance:g})"
    side = "below" if delta < 0 else "above"
    return f"{start}{abs(delta):.1f} {side} (tolerance {tolerance:g})"

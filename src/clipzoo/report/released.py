"""Runs of released weights: how they, and the files that they start from, are named."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SUFFIX = "-released"
RELEASED_TOLERANCE = 0.1
"""Largest difference, in percentage points, that counts as reproduced where nothing is trained: the
decoding of the videos and the rounding of the processor remain."""
TRAINING_ONLY = ("train.", "augment.")
"""Sections that an evaluation does not read, but for `EVALUATED`."""
EVALUATED = ("train.raw_clip_share",)
"""What changes a model that is not trained, too."""
DIGITS = 12
"""Number of digits of the sha256 in the name of a released file."""


def released_run(recipe: str) -> str:
    """The name of the run that evaluates released weights of a recipe."""
    return recipe + SUFFIX


def recipe_of(run: str) -> str:
    """The recipe whose released weights a run evaluates; '' = it is not named as such a run."""
    return run.removesuffix(SUFFIX) if run.endswith(SUFFIX) else ""


def expected_settings(
    used: Mapping[str, Any], expected: Mapping[str, Any], stem: str
) -> dict[str, Any]:
    """The settings with which released weights of a recipe are evaluated.

    They are those of the recipe, without training and from any checkpoint, whatever the sections
    say that only training reads.

    Args:
        used: settings of the run by dotted key.
        expected: settings of the recipe.
        stem: the name of the metrics file; `fused` may be of score files, without a checkpoint.
    """
    ignored = {
        key: value
        for key, value in used.items()
        if key.startswith(TRAINING_ONLY) and key not in EVALUATED
    }
    checkpoint = used.get("model.checkpoint", "")
    if checkpoint or stem == "fused":
        ignored["model.checkpoint"] = checkpoint
    else:
        ignored["model.checkpoint"] = "a released file"
    return {**expected, **ignored, "train.epochs": 0}


def released_file(recipe: str, sha256: str, suffix: str) -> str:
    """The name, in models/zoo/, of a released file of a recipe's model.

    Example: `text4vis/k400-vitb16-f8.released-0123456789ab.pt`.
    """
    return f"{recipe}.released-{sha256[:DIGITS]}{suffix}"


def released_parent(used: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """The digest of the released file that a run took for its parent's model.

    Args:
        used: settings of the run by dotted key.
        expected: settings of its recipe, whose checkpoint is the kept model of the parent.

    Returns:
        the first `DIGITS` of its sha256; '' = the run took no released file for it.
    """
    kept = expected.get("model.checkpoint", "")
    if not kept:
        return ""
    parent = re.escape(str(Path(kept).with_suffix("")))
    pattern = rf"{parent}\.released-([0-9a-f]{{{DIGITS}}})(\.\w+)?"
    match = re.fullmatch(pattern, used.get("model.checkpoint", ""))
    return match[1] if match else ""


def describe_given(
    used: Mapping[str, Any], expected: Mapping[str, Any], metrics: Mapping[str, Any]
) -> str:
    """What a verdict says about files that replaced the runs of parents; '' = there are none.

    Args:
        used, expected: as for `released_parent`.
        metrics: the run's values; `video_source` names the file that a fusion took for its video
            branch.
    """
    digest = released_parent(used, expected)
    model = f"; from a released model (sha256 {digest}...)" if digest else ""
    source = metrics.get("video_source", "")
    return model + (f"; video branch from {source}" if source else "")

"""Compare the cases of golden files with what this project computes."""

import inspect
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from clipzoo.models.pixels import OPENAI
from parity import data, measures, model, mote, openvclip, training, vificlip
from parity.inputs import Case

NAMES = ("name", "kind", "recipe")
"""Keys of a case that are neither inputs nor outputs; the recipe is how its numbers were made."""


@dataclass(frozen=True)
class Topic:
    """A kind of case."""

    compute: Callable[..., Case]
    """Plain function: inputs by keyword -> outputs by name."""
    tolerance: Callable[[Case, np.ndarray], Any]
    """(case, golden values) -> largest absolute difference, broadcast against the values."""
    open_questions: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Arguments that the golden files do not give, and their possible values; an output is ok if it
    agrees for one of them."""


def _model(_: Case, values: np.ndarray) -> float:
    return 1e-4 * float(np.abs(values).max(initial=0))


def _relative(_: Case, values: np.ndarray) -> np.ndarray:
    return 1e-4 * np.abs(values)


def _exact(*_: object) -> float:
    return 0.0


def _probability(*_: object) -> float:
    return 1e-6


def _percent(*_: object) -> float:
    return 1e-6 * 100


def _rates(case: Case, _: np.ndarray) -> list[float]:
    return [0.0, 1e-6 * case["base_lr"] * case["clip_ratio"], 1e-6 * case["base_lr"]]


def _pixels(*_: object) -> float:
    return 2 / 255 / max(OPENAI.std)


def _every_rate(case: Case, _: np.ndarray) -> float:
    return 1e-6 * case["base_lr"]


def _mixed(*_: object) -> float:
    return 1e-5


def _levels(*_: object) -> float:
    """One of 255: the authors turn clips gray by Pillow, or resize them as floats."""
    return 1.0


TOPICS = {
    "text4vis": Topic(model.text4vis, _model, {"batch_statistics": (False, True)}),
    "bike": Topic(model.bike, _model),
    "bike-attribute-head": Topic(model.bike_attribute_head, _model),
    "actionclip": Topic(model.actionclip_head, _model),
    "mote-evaluation": Topic(mote.evaluation, _model),
    "mote-training": Topic(mote.training, _model),
    "actionclip-kl": Topic(model.actionclip_loss, _model),
    "vificlip": Topic(vificlip.model, _model),
    "vificlip-steps": Topic(vificlip.steps, _model),
    "vificlip-midpoints": Topic(vificlip.midpoints, _exact),
    "vificlip-tsn": Topic(vificlip.tsn, _exact),
    "val-uniform": Topic(data.sample_indices, _exact),
    "test-uniform": Topic(data.sample_indices, _exact),
    "test-dense": Topic(data.sample_dense_indices, _exact),
    "inclusive-ranges": Topic(data.inclusive_ranges, _exact),
    "segment-centres": Topic(data.segment_centers, _exact),
    "multi-scale-pairs": Topic(data.multi_scale_pairs, _exact),
    "warmup-cosine": Topic(data.learning_rates, _rates),
    "warmup-multistep": Topic(data.learning_rates, _rates),
    "iteration-rates": Topic(training.iteration_rates, _every_rate),
    "cut-boxes": Topic(training.cut_boxes, _exact),
    "mixed-clips": Topic(training.mixed_clips, _mixed),
    "augmented-clip": Topic(training.augmented_clip, _levels),
    "preprocess": Topic(data.preprocess, _pixels),
    "half-class": Topic(measures.half_class, _percent, {"unit_parts": (False, True)}),
    "mAP": Topic(
        measures.mean_average_precision,
        _percent,
        {"positive_share": (None, 0.1, 0.2, 0.25, 0.3, 0.5)},
    ),
    "text4vis-view-fusion": Topic(measures.text4vis_view_fusion, _probability),
    "bike-view-fusion": Topic(measures.bike_view_fusion, _probability),
    "bike-zero-shot-frames": Topic(measures.bike_zero_shot_frames, _percent),
    "actionclip-template-fusion": Topic(measures.actionclip_template_fusion, _probability),
    "openvclip": Topic(openvclip.openvclip, _model),
    "openvclip-steps": Topic(openvclip.steps, _relative),
    "openvclip-windows": Topic(openvclip.windows, _exact),
    "openvclip-train-pixels": Topic(openvclip.train_pixels, _levels),
    "openvclip-test-pixels": Topic(openvclip.view_pixels, _levels),
    "bike-attribute-fusion": Topic(measures.bike_attribute_fusion, _percent),
}


def kind_of(case: Case) -> str:
    """The kind of a case; models have only a name, which begins with the kind:
    `text4vis-vit-none` is of `text4vis`."""
    name = str(case.get("kind") or case.get("name", ""))
    known = [kind for kind in TOPICS if f"{name}-".startswith(f"{kind}-")]
    return max(known, key=len, default=name)


def check(case: Case) -> str:
    """Compute a case and compare every output.

    Returns:
        `ok`, or the fault: the largest difference, an unknown kind, a missing input, a key that is
        neither an input nor an output, or no output at all.
    """
    topic = TOPICS.get(kind_of(case))
    if topic is None:
        return f"unknown kind {kind_of(case)!r}; known: {', '.join(TOPICS)}"
    parameters = inspect.signature(topic.compute).parameters
    inputs = {name: case[name] for name in parameters if name in case}
    missing = [
        n for n, p in parameters.items() if n not in case and p.default is inspect.Parameter.empty
    ]
    if missing:
        return f"missing input {', '.join(missing)}"
    golden = {k: v for k, v in case.items() if k not in parameters and k not in NAMES}
    if not golden:
        return "no output to compare"
    best: dict[str, tuple[float, str]] = {}
    for answers in _combinations(topic, inputs):
        outputs = topic.compute(**inputs, **answers)
        unknown = [key for key in golden if key not in outputs]
        if unknown:
            return f"unknown output {', '.join(unknown)}; known: {', '.join(outputs)}"
        for key in golden:
            value = outputs[key]
            if key == "tokens":  # golden rows end where only padding follows
                value = value[:, : len(golden[key][0])]  # [K, 77] -> [K, L]
            difference = largest_difference(topic, case, golden[key], value)
            best[key] = min(difference, best.get(key, difference))
        if all(excess <= 1 for excess, _ in best.values()):
            return "ok"
    worst = max(best, key=lambda key: best[key])
    return f"{worst} {best[worst][1]}"


def _combinations(topic: Topic, inputs: Case) -> Iterator[Case]:
    questions = {k: v for k, v in topic.open_questions.items() if k not in inputs}
    for values in itertools.product(*questions.values()):
        yield dict(zip(questions, values, strict=True))


def largest_difference(topic: Topic, case: Case, golden: Any, output: Any) -> tuple[float, str]:
    """The largest difference: in units of the tolerance (at most 1 is ok), and in words.

    In a dict, every golden entry is compared. Infinity if shapes differ or an entry is missing.
    """
    if isinstance(golden, dict):
        missing = [key for key in golden if key not in output]
        if missing:
            return float("inf"), f"has no {', '.join(missing)}"
        entries = [
            (*largest_difference(topic, case, value, output[key]), key)
            for key, value in golden.items()
        ]
        excess, words, key = max(entries, default=(0.0, "is empty", ""))
        return excess, f"of {key} {words}"
    expected, actual = _array(golden), _array(output)
    if expected.shape != actual.shape:
        return float("inf"), f"has shape {list(actual.shape)}, golden {list(expected.shape)}"
    if not expected.size:
        return 0.0, "is empty"
    difference = np.nan_to_num(np.atleast_1d(np.abs(expected - actual)), nan=np.inf)
    allowed = np.broadcast_to(topic.tolerance(case, expected), difference.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = np.where(difference == 0, 0.0, difference / allowed)
    worst = np.unravel_index(np.argmax(excess), excess.shape)
    return float(excess[worst]), f"differs by {difference[worst]:.3g}, allowed {allowed[worst]:.3g}"


def _array(values: Any) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach().numpy()
    return np.asarray(values, dtype=np.float64)


def check_file(path: str | Path) -> Iterator[tuple[str, str]]:
    """(name, verdict) of each case of a golden JSON file: a list of cases."""
    for number, case in enumerate(json.loads(Path(path).read_text(encoding="utf-8"))):
        yield f"{path}[{number}] {case.get('name') or kind_of(case)}", check(case)

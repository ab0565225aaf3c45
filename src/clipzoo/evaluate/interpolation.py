"""Weights between the raw and the fine-tuned vision tower.

Fine-tuning gains accuracy on its dataset and loses some of what the raw CLIP knows; a mean of both
sets of weights often keeps more of it (Wortsman et al., arXiv 2109.01903). The share alpha of the
fine-tuned tower is chosen on the validation list of the training dataset, never on the unseen one.
"""

import copy
from pathlib import Path

import torch
from torch import nn

from clipzoo.clips.inputs import Views
from clipzoo.config import Params
from clipzoo.evaluate import metrics
from clipzoo.evaluate.plots import plot_interpolation
from clipzoo.evaluate.scoring import score_set
from clipzoo.files import read_rows, write_csv
from clipzoo.methods import raw_model
from clipzoo.methods.parts.method import Method
from clipzoo.models.text import ClassText
from clipzoo.paths import PICTURES, PREDICTIONS_DIR

VAL_CURVE = PREDICTIONS_DIR / "interpolation.csv"
"""The validation top-1 of each alpha, which zero_shot chooses by; empty where off."""
COLUMNS = ("alpha", "top1", "top1_ci95_low", "top1_ci95_high")


@torch.no_grad()
def interpolate(raw: nn.Module, tuned: Method, alpha: float) -> Method:
    """A copy of `tuned` whose vision tower is (1 - alpha) raw + alpha fine-tuned, by parameter.

    Args:
        raw: the raw vision tower; parameters that it does not have (temporal modules) stay tuned.
        tuned: the fine-tuned model.
        alpha: share of the fine-tuned tower, 0 to 1.
    """
    model = copy.deepcopy(tuned)
    raw_state = raw.state_dict()
    for name, value in model.visual.state_dict().items():
        if name in raw_state and value.is_floating_point():
            value.copy_(torch.lerp(raw_state[name], value, alpha))
    return model


def accuracy_curve(
    params: Params,
    device: torch.device,
    tuned: Method,
    clips: Views,
    text: ClassText,
    set_name: str,
) -> list[tuple[float, ...]]:
    """Top-1 of every alpha of `zero_shot.interpolation` on one set of videos.

    All processes call this. The text is the class text of `tuned` (`scoring.class_text`).

    Returns:
        A row of `COLUMNS` for each alpha, in percent; empty on all ranks but 0.
    """
    rows = []
    raw = raw_model().visual if params.zero_shot.interpolation else tuned.visual
    for alpha in params.zero_shot.interpolation:
        name, model = f"{set_name} alpha {alpha:g}", interpolate(raw, tuned, alpha)
        scored = score_set(model, clips, text, name, params=params, device=device)
        if scored is not None:  # rank 0 has them all
            values = metrics.evaluate(scored.probabilities(), scored.labels)
            rows.append((alpha, *(values[key] for key in COLUMNS[1:])))
    return rows


def write_curve(rows: list[tuple[float, ...]], path: Path) -> None:
    """Write a curve as csv; only the header where interpolation is off."""
    write_csv(COLUMNS, rows, path)


def read_curve(path: Path = VAL_CURVE) -> list[tuple[float, ...]]:
    """The rows of a curve that `write_curve` has written."""
    return [tuple(map(float, values)) for _, *values in read_rows(path, COLUMNS)]


def chosen_alpha(rows: list[tuple[float, ...]]) -> float:
    """The alpha with the highest top-1 of a curve; among equals the largest (most fine-tuned)."""
    return max((top1, alpha) for alpha, top1, *_ in rows)[1]


def describe_choice(rows: list[tuple[float, ...]], plots: str | Path) -> dict[str, float]:
    """Plot the curves of both sets of videos; return the metrics of the chosen alpha.

    Args:
        rows: the curve on the unseen dataset; none where interpolation is off.
        plots: folder for interpolation.csv and pictures/interpolation.png.

    Returns:
        interpolated_alpha, chosen on the validation list, and on the unseen dataset
        interpolated_top1 and its interval; empty without rows.
    """
    if not rows:
        return {}
    val_rows = read_curve()
    plots = Path(plots)
    write_curve(rows, plots / "interpolation.csv")
    plot_interpolation(
        plots / PICTURES / "interpolation.png",
        {"validation, seen classes": val_rows, "unseen dataset": rows},
    )
    alpha = chosen_alpha(val_rows)
    (chosen,) = [row for row in rows if row[0] == alpha]
    return {f"interpolated_{key}": value for key, value in zip(COLUMNS, chosen, strict=True)}

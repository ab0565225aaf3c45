"""`clipzoo fuse VIDEO ATTRIBUTES`: the weighted sum of two branches' scores, and its
verdict if they are released ones."""

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clipzoo.runtime.ending import run_command
from clipzoo.commands.arguments import Commands, add_command
from clipzoo.config import ConfigError, Params
from clipzoo.config import replace as replace_params
from clipzoo.files import ListError, json_sha256, write_json, write_metrics
from clipzoo.paths import metrics_file, plots_dir, settings_file
from clipzoo.report.recipes import fused_recipes, load_recipe, load_recipes
from clipzoo.report.released import released_run

WEIGHT = 0.7
"""Weight of the first file, where no recipe gives it."""


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """The weighted sum of two files, measured."""

    video: Path
    attributes: Path
    weight: float
    """Weight of the first file."""
    shape: tuple[int, int]
    """Videos, classes."""
    video_ids: list[str] | None
    """The ids of the videos; None = the files have none."""
    values: dict[str, float]
    """The metrics of `fusion.compare`."""
    curve: list[tuple[float, float]]
    """(weight, top-1 in percent)."""


def measure(video: Path, attributes: Path, weight: float, labels: Path | None) -> Fusion:
    """The accuracies of both files and of their weighted sum.

    Args:
        video, attributes: prediction files of this project (.safetensors), or PyTorch files with
            one tensor [N, K] of single-softmax probabilities, as BIKE's authors save them.
        weight: the share of the first in the sum.
        labels: a PyTorch file with one int64 tensor [N]; needed if both files have none.

    Raises:
        FusionError: the files do not belong together, or hold no probabilities.
        WeightsError, ListError: a file cannot be read.
    """
    import torch

    from clipzoo.evaluate import fusion, metrics  # slow: they import torch
    from clipzoo.models.archives import read_tensor

    first, second = fusion.read_scores(video), fusion.read_scores(attributes)
    if labels is not None:
        tensor = read_tensor(labels)
        if tensor.dim() != 1 or tensor.is_floating_point() or tensor.dtype == torch.bool:
            raise ListError(
                f"{labels}: found {tensor.dtype} {list(tensor.shape)}; allowed: class ids, int64 "
                "[videos]"
            )
        given = fusion.Scores(
            name=str(labels), probabilities=first.probabilities, labels=tensor.long()
        )
        try:
            metrics.check(first.probabilities, tensor.long())
        except ValueError as error:
            raise ListError(f"{labels}: {error}") from error
        for scores in (first, second):
            fusion.check_same_videos(scores, given)
        second = replace(second, labels=given.labels)
    truth = fusion.same_labels(first, second)
    num_videos, num_classes = first.probabilities.shape
    return Fusion(
        video=video,
        attributes=attributes,
        weight=weight,
        shape=(num_videos, num_classes),
        video_ids=first.video_ids or second.video_ids,
        values=fusion.compare(first, second, truth, weight),
        curve=fusion.weight_curve(first, second, truth),
    )


def describe(fused: Fusion) -> str:
    """The accuracies as a text."""
    from clipzoo.evaluate import fusion

    values, weight = fused.values, fused.weight
    best = fusion.best_weight(fused.curve, weight)
    lines = ["{} videos, {} classes".format(*fused.shape)]
    titles = {
        "fused": f"fused, {weight:g} of the first",
        "video": str(fused.video),
        "attributes": str(fused.attributes),
    }
    width = max(map(len, titles.values()))
    for name, title in titles.items():
        low, high = values[f"{name}_top1_ci95_low"], values[f"{name}_top1_ci95_high"]
        lines.append(
            f"{title:{width}}  top-1 {values[f'{name}_top1']:.4f} ({low:.2f} to {high:.2f})  "
            f"top-5 {values[f'{name}_top5']:.4f}"
        )
    for name in ("video", "attributes"):
        key = f"fused_gain_over_{name}"
        low, high = values[f"{key}_ci95_low"], values[f"{key}_ci95_high"]
        lines.append(f"gain over {titles[name]}: {values[key]:+.2f} ({low:+.2f} to {high:+.2f})")
    lines.append(
        f"best weight {best:g}: top-1 {dict(fused.curve)[best]:.4f}, chosen on these very labels: "
        "not a result"
    )
    return "\n".join(lines) + "\n"


def released_params(recipe: str, weight: float | None) -> Params:
    """The parameters of the run that compares released scores with a recipe's published numbers.

    The recipe is that of the second branch, which says what it is fused with; a weight of None
    stands for the recipe's. ConfigError if the recipe is unknown, or fuses nothing.
    """
    _, params = load_recipe(recipe)
    if not params.fusion.with_:
        fused = [name for name, (_, settings) in load_recipes().items() if fused_recipes(settings)]
        raise ConfigError(
            f"--released: {recipe} is fused with no other; allowed: {', '.join(fused)}"
        )
    values: dict[str, Any] = {"recipe": released_run(recipe), "train.epochs": 0}
    if weight is not None:
        values["fusion.video_weight"] = weight
    return replace_params(params, values)


def write_results(fused: Fusion, params: Params) -> Path:
    """Write the results of released scores, as the stage `fuse` writes its own; returns the path of
    the metrics file."""
    from clipzoo.data.records import videos_sha256
    from clipzoo.evaluate.fusion import plot_weights
    from clipzoo.files import file_sha256
    from clipzoo.runtime.machine import environment

    plots, path = plots_dir(params.recipe, "fused"), metrics_file(params.recipe, "fused")
    plot_weights(plots, {"validation": fused.curve}, {"the weight": fused.weight})
    settings = params.settings()
    write_json(settings, settings_file(params.recipe, "fused"))
    sources = {
        f"{branch}_source": f"{file.name}, sha256 {file_sha256(file)}"
        for branch, file in (("video", fused.video), ("attributes", fused.attributes))
    }
    about = {
        "dataset": params.data.dataset,
        "protocol": "score files; fused with attributes",
        "num_videos": fused.shape[0],
        "num_expected": fused.shape[0],
        "videos_sha256": videos_sha256(fused.video_ids) if fused.video_ids else "",
        "settings_sha256": json_sha256(settings),
        "environment": environment("cpu"),
    }
    write_metrics(path, {**about, **sources, **fused.values})
    return path


def _run(arguments: argparse.Namespace) -> None:
    weight = arguments.weight
    if weight is not None and not 0 <= weight <= 1:
        raise ListError(f"--weight: found {weight}; allowed: 0 to 1")
    params = released_params(arguments.released, weight) if arguments.released else None
    if weight is None:
        weight = params.fusion.video_weight if params else WEIGHT
    fused = measure(arguments.video, arguments.attributes, weight, arguments.labels)
    print(describe(fused), end="")
    if params is None:
        return
    print(f"wrote {write_results(fused, params)}", flush=True)
    command = ["dvc", "repro", "--single-item", "report"]
    if run_command([sys.executable, "-m", *command]):
        raise ConfigError(f"`{' '.join(command)}` failed; see its message above")


def register(commands: Commands) -> None:
    command = add_command(
        commands,
        "fuse",
        "measure the weighted sum of two files of scores of the same videos",
        (
            "fuse predictions/zoo/demo/bike-vcs/test.safetensors predictions/test.safetensors",
            "fuse k400_video_sims.pt k400_sentence_sims.pt --weight 0.7 "
            "--labels k400_video_labels.pt --released bike/k400-vitb32-f8-attributes",
        ),
    )
    files = "test.safetensors of a run, or a .pt file with one tensor of probabilities"
    command.add_argument("video", type=Path, metavar="VIDEO", help=f"the first: {files}")
    command.add_argument("attributes", type=Path, metavar="ATTRIBUTES", help="the second")
    command.add_argument(
        "--weight",
        type=float,
        metavar="W",
        help="of the first, 0 to 1; by default the recipe's, or 0.7",
    )
    command.add_argument(
        "--labels", type=Path, metavar="FILE", help=".pt file with the class ids, for two .pt files"
    )
    command.add_argument(
        "--released",
        metavar="RECIPE",
        help="compare with this recipe's published numbers: the run RECIPE-released in RESULTS.md",
    )
    command.set_defaults(run=_run)

"""Commands outside the pipeline: `python -m clipzoo COMMAND`."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from clipzoo.runtime.ending import ending
from clipzoo.commands.arguments import add_command, aligned, show_examples
from clipzoo.commands.check import check_command
from clipzoo.commands.compare import METHODS, PAGE, compare_command
from clipzoo.commands.dataset_findings import try_survey
from clipzoo.commands.fuse import fuse_command
from clipzoo.commands.listing import recipes_command, recipes_of
from clipzoo.commands.lists import add_list_commands
from clipzoo.commands.missing import missing_command
from clipzoo.commands.planned import add_options
from clipzoo.commands.predictions import predictions_command
from clipzoo.commands.repro import repro_command
from clipzoo.commands.scan import ScanSummary, scan
from clipzoo.commands.use import use_command
from clipzoo.commands.zoo import zoo_command
from clipzoo.config import SHOTS, load_params
from clipzoo.data.ledger import ledger_path, ways_out
from clipzoo.files import few, shown

EXAMPLES = (
    "recipes 'text4vis/k400-*'",
    "check text4vis/k400-vitb16-f8",
    "use demo/head-none",
    "scan mine ~/videos",
    "missing kinetics400",
    "predictions test --wrong",
    "compare demo demo/bike-vcs",
    "fuse predictions/zoo/demo/bike-vcs/test.safetensors predictions/test.safetensors",
    "COMMAND --help",
)
FEWEST = 5
"""Classes in the table of those with the fewest videos."""


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands; what it returns has `run`, the function of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m clipzoo",
        description=__doc__,
        epilog=show_examples(EXAMPLES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_scan(commands)
    _add_missing(commands)
    add_list_commands(commands)
    _add_recipes(commands)
    _add_zoo(commands)
    _add_predictions(commands)
    _add_compare(commands)
    _add_fuse(commands)
    return parser


def main() -> None:
    """Run one command; print expected errors as a message and exit with code 1."""
    arguments = make_parser().parse_args()
    try:
        arguments.run(arguments)
    except (ValueError, OSError) as error:
        print("error:", shown(str(error), kept="\n"), file=sys.stderr)
        sys.exit(1)


def _add_scan(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = add_command(
        commands,
        "scan",
        "write the manifest of a folder of videos",
        ("scan mine ~/videos", "scan ucf101 /data/UCF-101"),
    )
    command.add_argument("dataset", help="name of the dataset, e.g. ucf101, or any new name")
    command.add_argument("root", type=Path, help="folder that holds its videos")
    command.set_defaults(run=_run_scan)


def _add_missing(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = add_command(
        commands,
        "missing",
        "show what this copy of a dataset lacks, and accept it",
        ("missing kinetics400", "missing kinetics400 --accept"),
    )
    command.add_argument("dataset", help="name of the dataset, e.g. kinetics400")
    command.add_argument(
        "--accept", action="store_true", help="write it to data/annotations/DATASET/missing.csv"
    )
    command.set_defaults(run=missing_command)


def _add_recipes(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = add_command(
        commands,
        "recipes",
        "list recipes with their published value and what is missing here",
        ("recipes", "recipes 'text4vis/k400-*'"),
    )
    command.add_argument("patterns", nargs="*", help="names or patterns; all if none is given")
    command.set_defaults(run=recipes_command)
    command = add_command(
        commands,
        "use",
        "put a recipe's values into params.yaml",
        ("use demo/head-none", "use text4vis/k400-vitb16-f8 --queue"),
    )
    command.add_argument("recipe", help="name of the recipe, e.g. text4vis/k400-vitb32-f8")
    add_options(command)
    command.add_argument("--queue", action="store_true", help="add it to DVC's queue instead")
    command.set_defaults(run=use_command)
    command = add_command(
        commands,
        "check",
        "show what a recipe's run needs and what is missing",
        (
            "check text4vis/k400-vitb16-f8",
            "check text4vis/k400-vitb16-f8 --released k400-vitb16-f8.pt",
        ),
    )
    command.add_argument("recipe", help="name of the recipe")
    add_options(command)
    command.set_defaults(run=check_command)
    command = add_command(
        commands,
        "repro",
        "run the pipeline as `dvc repro` does, without its advice to push",
        ("repro",),
    )
    command.add_argument(
        "--no-note", action="store_true", help="do not name settings that differ from the recipe"
    )
    command.set_defaults(run=repro_command)


def _add_zoo(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = add_command(
        commands,
        "zoo",
        "run recipes one after the other",
        (
            "zoo 'demo/*'",
            "zoo text4vis/k400-vitb16-f8 text4vis/k400-vitb32-f8 --stop",
            "zoo text4vis/k400-vitb16-f8 --released k400-vitb16-f8.pt",
            "zoo text4vis/k400-vitb16-f8 --smoke",
            "zoo text4vis/ucf101-vitl14-f16 --parent k400-vitl14-f16.pt",
            "zoo text4vis/k400-vitb16-f8 -S train.epochs=10 -S train.batch_size=128",
        ),
    )
    command.add_argument("recipes", nargs="+", help="names or patterns, e.g. 'text4vis/k400-*'")
    add_options(command)
    command.add_argument("--stop", action="store_true", help="stop at the first failure")
    command.add_argument("--again", action="store_true", help="also run recipes that are finished")
    command.add_argument(
        "--smoke",
        action="store_true",
        help="only try the stages, on a few videos and with two steps; no result is written",
    )
    command.add_argument(
        "--keep", action="store_true", help="with --smoke: leave its folder in .state/smoke/"
    )
    command.set_defaults(run=zoo_command)


def _add_predictions(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = add_command(
        commands,
        "predictions",
        "show what the last run predicted for each video",
        ("predictions", "predictions test --wrong", "predictions demo_unseen --wrong --top 0"),
    )
    command.add_argument(
        "set",
        nargs="?",
        metavar="SET",
        help="test, zero_shot_<dataset>, a dataset or a .parquet file; all of the run if not given",
    )
    command.add_argument(
        "--wrong", action="store_true", help="only wrong ones, the most confident first"
    )
    command.add_argument(
        "--top", type=int, default=20, metavar="N", help="at most N videos (20); 0 = all"
    )
    command.set_defaults(run=predictions_command)


def _add_compare(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = add_command(
        commands,
        "compare",
        "write report/comparison.md: finished runs side by side, with paired intervals",
        ("compare", "compare demo demo/bike-vcs", "compare 'demo/few-shot-*'"),
    )
    command.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help=f"names or patterns of runs with results; {', '.join(METHODS)} if none is given",
    )
    command.add_argument(
        "--output", type=Path, default=PAGE, metavar="FILE", help=f"the page; default: {PAGE}"
    )
    command.set_defaults(run=compare_command)


def _add_fuse(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
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
    command.set_defaults(run=fuse_command)


def _run_scan(arguments: argparse.Namespace) -> None:
    summary = scan(arguments.dataset, arguments.root)
    size_mb = summary.num_bytes / 1e6
    print(f"scan: {summary.num_videos} videos ({size_mb:.1f} MB) in {arguments.root}")
    if summary.class_names:
        print(f"{len(summary.class_names)} classes: {few(summary.class_names, 10)}")
        print(_describe_classes(summary), end="")
    if summary.others:
        names = few(summary.others, 10)
        print(f"ignored {len(summary.others)} files without a video extension: {names}")
    if summary.link:
        print(f"made the link {summary.link} (for this machine only; git ignores it)")
    print(f"wrote {', '.join(summary.written)}")
    recipes = [] if summary.class_names else recipes_of(arguments.dataset)
    if not summary.class_names:
        print(_describe_copy(arguments.dataset))
    print(_next_steps(arguments.dataset, summary, recipes))


def _describe_classes(summary: ScanSummary) -> str:
    """How many videos the classes have, and which few-shot lists they allow."""
    classes = sorted(summary.classes, key=lambda count: count.num_videos)
    numbers = [count.num_videos for count in classes]
    text = f"videos of a class: {numbers[0]} to {numbers[-1]}, median {median(numbers):g}"
    if numbers[0] < numbers[-1]:
        text += "; the classes with the fewest:"
    text += "\n"
    if numbers[0] < numbers[-1]:
        rows = [
            (count.name, str(count.num_videos), str(count.num_train), str(count.num_val))
            for count in classes[:FEWEST]
        ]
        text += aligned(("Class", "Videos", "Train", "Val"), rows, indent="  ")
    fewest = min(classes, key=lambda count: count.num_train)
    possible = [str(shots) for shots in SHOTS if shots <= fewest.num_train]
    missing = [str(shots) for shots in SHOTS if shots > fewest.num_train]
    text += f"few-shot lists (data.shots): {', '.join(possible) or 'none'}"
    if missing:
        text += f"; missing: {', '.join(missing)}, because of the class {fewest.name!r} "
        text += f"({fewest.num_train} for training)"
    return text + "\n"


def _describe_copy(dataset: str) -> str:
    """All that is wrong with a dataset as far as its annotations and manifest show."""
    found = try_survey(load_params(), dataset)
    if isinstance(found, str):
        return found or (
            f"put the official annotation files into data/annotations/{dataset}/; then `python -m "
            f"clipzoo missing {dataset}` compares them with the manifest"
        )
    lines = [f"{len(found.joined.videos):,} annotated videos", *found.notes]
    if found.shortage:
        lines.append(
            f"{found.shortage} (`python -m clipzoo missing {dataset}` shows more); "
            f"{ways_out(dataset)}"
        )
    elif found.lost:
        lines.append(f"{len(found.lost):,} are missing, all in {ledger_path(dataset)}")
    else:
        lines[0] += ", each with a file"
    return "\n".join(lines)


def _next_steps(dataset: str, summary: ScanSummary, recipes: Sequence[str]) -> str:
    """What to do after a scan.

    Args:
        summary: of the scan.
        recipes: that use the dataset; their settings fit it, while those of params.yaml may be the
            demo's.
    """
    track = shlex.join(["git", "add", *summary.written])
    if recipes:
        first = shlex.quote(recipes[0])
        return (
            f"track them:   {track}\n"
            f"for queued experiments, which see only tracked files, also: git add "
            f"data/annotations/{dataset}\n"
            f"{len(recipes)} recipes use {dataset}: {few(recipes, 5)}\n"
            f"(`python -m clipzoo recipes` lists all, with what is missing here)\n"
            f"next: python -m clipzoo check {first}, then python -m clipzoo zoo {first}"
        )
    if summary.class_names:
        names = f"class names are in {summary.written[-2]}: edit them there\n"
    else:
        names = ""
    evaluate = " -S train.epochs=0" if summary.only_val else ""
    if summary.only_val:
        names += (
            "each class has only one video, so all are for validation (val_fraction: 1 in "
            f"datasets/{dataset}.yaml) and none for training: set train.epochs to 0\n"
        )
    return (
        f"{names}"
        f"track them:   {track}\n"
        "in params.yaml (change other values as you like):\n"
        "  data:\n"
        f"    dataset: {dataset}\n"
        f"    datasets:\n    - {dataset}\n"
        "    demo: []\n"
        "    zero_shot: []\n"
        "or, without editing params.yaml:\n"
        f"  dvc exp run -S data.dataset={dataset} -S 'data.datasets=[{dataset}]' "
        f"-S 'data.demo=[]' -S 'data.zero_shot=[]' -S recipe={dataset}{evaluate}\n"
        "next: dvc repro"
    )


if __name__ == "__main__":
    with ending():
        main()

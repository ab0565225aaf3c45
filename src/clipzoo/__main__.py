"""Commands outside the pipeline: `python -m clipzoo COMMAND`."""

import argparse
import shlex
import sys
from pathlib import Path

from clipzoo.commands import recipes as zoo
from clipzoo.commands.check import check_command
from clipzoo.commands.lists import add_list_commands
from clipzoo.commands.scan import ScanSummary, scan


def main() -> None:
    """Run one command; print expected errors as a message and exit with code 1."""
    parser = argparse.ArgumentParser(prog="python -m clipzoo", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_scan(commands)
    add_list_commands(commands)
    _add_recipes(commands)
    arguments = parser.parse_args()
    try:
        arguments.run(arguments)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _add_scan(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("scan", help="write the manifest of a folder of videos")
    command.add_argument("dataset", help="name of the dataset, e.g. ucf101, or any new name")
    command.add_argument("root", type=Path, help="folder that holds its videos")
    command.set_defaults(run=_run_scan)


def _add_recipes(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("use", help="put a recipe's values into params.yaml")
    command.add_argument("recipe", help="name of the recipe, e.g. text4vis/k400-vitb32-f8")
    command.add_argument("--queue", action="store_true", help="add it to DVC's queue instead")
    command.set_defaults(run=zoo.use_command)
    command = commands.add_parser(
        "check", help="show what a recipe's run needs and what is missing"
    )
    command.add_argument("recipe", help="name of the recipe")
    command.set_defaults(run=check_command)
    command = commands.add_parser("zoo", help="run recipes one after the other")
    command.add_argument("recipes", nargs="+", help="names or patterns, e.g. 'text4vis/k400-*'")
    command.add_argument("--stop", action="store_true", help="stop at the first failure")
    command.add_argument("--again", action="store_true", help="also run recipes that are finished")
    command.set_defaults(run=zoo.zoo_command)


def _run_scan(arguments: argparse.Namespace) -> None:
    summary = scan(arguments.dataset, arguments.root)
    size_mb = summary.num_bytes / 1e6
    print(f"scan: {summary.num_videos} videos ({size_mb:.1f} MB) in {arguments.root}")
    if summary.class_names:
        shown = ", ".join(summary.class_names[:10]) + (", ..." if summary.class_names[10:] else "")
        print(f"{len(summary.class_names)} classes: {shown}")
    if summary.others:
        shown = ", ".join(summary.others[:10]) + (", ..." if summary.others[10:] else "")
        print(f"ignored {len(summary.others)} files without a video extension: {shown}")
    if summary.link:
        print(f"made the link {summary.link} (for this machine only: do not track it)")
    print(f"wrote {', '.join(summary.written)}")
    print(_next_steps(arguments.dataset, summary))


def _next_steps(dataset: str, summary: ScanSummary) -> str:
    track = shlex.join(["git", "add", *summary.written])
    if summary.class_names:
        names = f"class names are in {summary.written[-2]}: edit them there\n"
    else:
        names = f"put the official annotation files into data/annotations/{dataset}/\n"
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
    main()

"""`clipzoo results RUN`: all results of one run, of which RESULTS.md has one line."""

import argparse

from clipzoo.commands.arguments import Commands, add_command
from clipzoo.report.tables import read_report


def _run(arguments: argparse.Namespace) -> None:
    print(read_report().run_markdown(arguments.run_name), end="")


def register(commands: Commands) -> None:
    examples = ("results demo", "results demo/head-none")
    summary = "print all results of a run, its training and the settings that differ"
    command = add_command(commands, "results", summary, examples)
    command.add_argument("run_name", metavar="RUN", help="name of a recipe with results, e.g. demo")
    command.set_defaults(run=_run)

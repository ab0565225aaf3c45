"""The parser of all commands, and what they share: examples in their help, and plain tables."""

import argparse
from collections.abc import Sequence
from importlib import import_module
from typing import TypeAlias

from clipzoo.files import shown

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What a command file's `register` adds its command to."""

COMMANDS = (
    *("scan", "missing", "lists"),  # of datasets
    *("listing", "use", "check", "repro", "zoo"),  # of recipes
    *("results", "predictions", "compare", "fuse"),  # of results
    *("predict", "embed", "serve", "export", "publish"),  # of models
)
"""The modules of the commands, in the order of the help text."""
EXAMPLES = (
    "recipes 'text4vis/k400-*'",
    "check text4vis/k400-vitb16-f8",
    "use demo/head-none",
    "scan mine ~/videos",
    "COMMAND --help",
)


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands; its result has `run`, the function of the chosen command."""
    parser = argparse.ArgumentParser(
        prog="clipzoo",
        description="Commands outside the pipeline: `clipzoo COMMAND`.",
        epilog=show_examples(EXAMPLES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in COMMANDS:  # each module adds its own
        import_module(f"clipzoo.commands.{name}").register(commands)
    return parser


def add_command(
    commands: Commands, name: str, summary: str, examples: Sequence[str]
) -> argparse.ArgumentParser:
    """Add a subcommand.

    Args:
        summary: one line, for the list of commands and its own help.
        examples: command lines without `clipzoo`, shown at the end of its help.
    """
    return commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=show_examples(examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def show_examples(examples: Sequence[str]) -> str:
    """The end of a help text."""
    return "\n".join(["examples:", *(f"  clipzoo {example}" for example in examples)])


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], indent: str = "") -> str:
    """A table in plain text, each column as wide as its widest cell; one line for each row."""
    cells = [[shown(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    return "".join(
        indent
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        + "\n"
        for row in cells
    )

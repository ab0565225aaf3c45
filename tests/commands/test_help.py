"""The help texts of the command line."""

import argparse
import shlex
from collections.abc import Iterator

import pytest

from clipzoo.__main__ import make_parser


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and those of its subcommands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from parsers(child)


def examples(parser: argparse.ArgumentParser) -> list[list[str]]:
    """The words of the examples, without `clipzoo`."""
    lines = (parser.epilog or "").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("  clipzoo ")]


@pytest.mark.parametrize("parser", [*parsers(make_parser())], ids=lambda parser: parser.prog)
def test_every_help_has_examples_that_are_valid(parser: argparse.ArgumentParser):
    shown = examples(parser)
    assert shown
    for words in shown:
        if words != ["COMMAND", "--help"]:
            name = parser.prog.removeprefix("clipzoo").split()
            assert words[: len(name)] == name
            assert callable(make_parser().parse_args(words).run)
    assert parser.epilog is not None
    assert parser.epilog in parser.format_help()

"""Commands outside the pipeline: `clipzoo COMMAND`."""

import argparse
import os
import sys
from pathlib import Path

from clipzoo.runtime.ending import ending
from clipzoo.commands import (
    check,
    compare,
    fuse,
    listing,
    lists,
    missing,
    predictions,
    repro,
    results,
    scan,
    use,
    zoo,
)
from clipzoo.commands.arguments import show_examples
from clipzoo.files import shown

COMMANDS = (
    scan,
    missing,
    lists,
    listing,
    use,
    check,
    repro,
    zoo,
    results,
    predictions,
    compare,
    fuse,
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
        description=__doc__,
        epilog=show_examples(EXAMPLES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.register(commands)
    return parser


def main() -> None:
    """Run one command; print expected errors as a message and exit with code 1."""
    arguments = make_parser().parse_args()
    try:
        arguments.run(arguments)
    except (ValueError, OSError) as error:
        print("error:", shown(str(error), kept="\n"), file=sys.stderr)
        sys.exit(1)


def console() -> None:
    """The console command `clipzoo`, and `python -m clipzoo`.

    Where the current folder is the root of another copy of the repository, the command is that
    copy's: its stages run their own code too (`PYTHONPATH=src` in dvc.yaml), and not that of the
    checkout which is installed in this environment.
    """
    source = Path("src").resolve()
    if (source / "clipzoo/__main__.py").is_file() and source != Path(__file__).resolve().parents[1]:
        paths = [str(source), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        os.execve(sys.executable, [sys.executable, "-m", "clipzoo", *sys.argv[1:]], environment)
    with ending():
        main()


if __name__ == "__main__":
    console()

"""`python -m clipzoo repro`: `dvc repro` without its last line, the advice to `dvc push`.

Most users have no remote storage, and what they are to read comes after it. DVC has no option for
that. A filter behind a pipe would take the terminal from the stages and hide the exit status.
"""

import argparse
import sys

from clipzoo.commands.use import leftovers
from clipzoo.given_files import remove_links

ADVICE = "dvc push"


def repro_command(arguments: argparse.Namespace) -> None:
    """`python -m clipzoo repro [--no-note]`: run the pipeline in this process; exits with DVC's
    status."""
    from dvc.cli import main  # slow to import
    from dvc.ui import ui

    remove_links(broken=True)
    if not arguments.no_note:
        print(leftovers(), end="", flush=True)

    write = ui.write

    def write_other(*texts: object, **options: object) -> None:
        if not any(ADVICE in str(text) for text in texts):
            write(*texts, **options)  # pyright: ignore[reportArgumentType]

    ui.write = write_other
    sys.exit(main(["repro"]))

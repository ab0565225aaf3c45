"""Commands outside the pipeline: `clipzoo COMMAND`."""

import os
import sys
from pathlib import Path

from clipzoo.runtime.ending import ending
from clipzoo.commands.arguments import make_parser
from clipzoo.files import shown


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

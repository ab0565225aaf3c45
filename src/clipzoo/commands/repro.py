"""`clipzoo repro`: `dvc repro`, with the seconds of its stages instead of the advice to `dvc push`.

Most users have no remote storage, and what they are to read comes after it. DVC has no option for
that. A filter behind a pipe would take the terminal from the stages and hide the exit status.
"""

import argparse
import os
import sys
import time
from typing import Any

from clipzoo.runtime.ending import PART, was_interrupted
from clipzoo.commands.arguments import Commands, add_command
from clipzoo.commands.use import leftovers
from clipzoo.given_files import remove_links
from clipzoo.runtime.one_run import begin_run

ADVICE = "dvc push"
DVC_INTERRUPTED = 252
"""Exit code of DVC after Ctrl-C between two stages."""


def _run(arguments: argparse.Namespace) -> None:
    """Run the pipeline in this process, which exits with the status of DVC."""
    from dvc.cli import main  # slow to import
    from dvc.stage import run
    from dvc.stage.exceptions import StageCmdFailedError
    from dvc.ui import ui

    remove_links(broken=True)
    begin_run()
    if not arguments.no_note:
        print(leftovers(), end="", flush=True)

    write = ui.write

    def write_other(*texts: object, **options: object) -> None:
        if not any(ADVICE in str(text) for text in texts):
            write(*texts, **options)  # pyright: ignore[reportArgumentType]

    def stage_error(command: str, status: int) -> StageCmdFailedError:
        """DVC itself ignores Ctrl-C while a stage runs."""
        if was_interrupted(status):
            raise KeyboardInterrupt
        return StageCmdFailedError(command, status)

    began, seconds, run_stage = time.perf_counter(), {}, run.cmd_run

    def timed(stage: Any, *arguments: Any, **options: Any) -> None:
        start = time.perf_counter()
        run_stage(stage, *arguments, **options)
        seconds[stage.addressing] = time.perf_counter() - start

    ui.write = write_other
    run.cmd_run = timed
    run.StageCmdFailedError = stage_error  # pyright: ignore[reportAttributeAccessIssue]
    os.environ[PART] = "1"
    status = main(["repro"])
    if status == DVC_INTERRUPTED:
        raise KeyboardInterrupt
    print(seconds_text(seconds, time.perf_counter() - began), end="", flush=True)
    sys.exit(status)


def seconds_text(seconds: dict[str, float], total: float) -> str:
    """A line with the seconds of each stage that ran, and those of DVC itself; '' = none ran."""
    if not seconds:
        return ""
    stages = ", ".join(f"{name} {taken:.0f}" for name, taken in seconds.items())
    return (
        f"seconds: {stages}, dvc itself {total - sum(seconds.values()):.0f}; {total:.0f} in all\n"
    )


def register(commands: Commands) -> None:
    command = add_command(
        commands,
        "repro",
        "run the pipeline as `dvc repro` does, without its advice to push",
        ("repro",),
    )
    command.add_argument(
        "--no-note", action="store_true", help="do not name settings that differ from the recipe"
    )
    command.set_defaults(run=_run)

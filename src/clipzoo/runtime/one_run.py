"""One run, one params.yaml: every stage of a `dvc repro` reads the settings that it began with.

DVC reads params.yaml when it starts, and again after each stage, to record the stage's settings.
Each stage reads it too. If the file is edited meanwhile, or written by `use`, results would get the
name and the settings of another run.

The settings of a run are written to .state/runs/, in a file named after DVC's process: when
`clipzoo repro` begins, or else by the first stage that `dvc repro` runs. Stages compare
theirs.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from clipzoo.config import ConfigError, load_params
from clipzoo.files import process_exists, read_json, write_json
from clipzoo.paths import STATE_DIR
from clipzoo.sections import flatten
from clipzoo.settings import describe_difference

PARAMS_FILE = Path("params.yaml")
RUNS_DIR = STATE_DIR / "runs"
VARIABLE = "CLIPZOO_RUN"
"""Environment variable with the path of the run's file, for the processes of a stage."""
SHELLS = {"sh", "bash", "dash", "zsh", "ksh", "fish"}


@contextmanager
def same_params() -> Iterator[None]:
    """Check before and after a block, which runs a stage, that params.yaml is that of the run;
    ConfigError as `check_params`, or if params.yaml is invalid."""
    if not PARAMS_FILE.is_file():  # whoever needs it reports that
        yield
        return
    path = begin_run()
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(path)
    try:
        check_params()
        yield
        check_params()
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before


def begin_run() -> Path:
    """The file with the settings of this run, which the first call writes.

    It also removes the files of processes of this machine that have ended. ConfigError if
    params.yaml is invalid.
    """
    path = _file_of_run()
    if not path.is_file():
        for earlier in RUNS_DIR.glob(f"{_prefix()}*.json"):
            pid = earlier.name.removeprefix(_prefix()).partition("-")[0]
            if pid.isdecimal() and not process_exists(int(pid)):
                earlier.unlink(missing_ok=True)
        write_json(_settings(), path)
    return path


def check_params() -> None:
    """Raise ConfigError if params.yaml is not what it was when the run of this stage began."""
    if VARIABLE not in os.environ:
        return
    began = read_json(os.environ[VARIABLE])
    assert isinstance(began, dict)
    if changed := describe_difference(began, _settings()):
        raise ConfigError(
            f"{PARAMS_FILE} has changed since this run began ({changed}), so results would get "
            "the wrong settings; run the same command again for the settings of now, or put the "
            "values back first to keep the work that is done"
        )


def _settings() -> dict[str, Any]:
    """Everything in params.yaml but `runtime`, by dotted key."""
    return flatten(load_params().model_dump(exclude={"runtime"}))


def _prefix() -> str:
    return f"{os.uname().nodename}-"  # machines may share the folder


def _file_of_run() -> Path:
    """The file of the DVC process that runs this stage, or of this process if there is none."""
    process = psutil.Process()
    if "DVC_ROOT" in os.environ:  # DVC has started a shell, and the shell this process
        parents = (parent for parent in process.parents() if parent.name() not in SHELLS)
        process = next(parents, process)
    return RUNS_DIR / f"{_prefix()}{process.pid}-{process.create_time():.2f}.json"

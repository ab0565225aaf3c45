"""Start a stage on all machines of a cluster's job, by the command that the cluster has for that.

With `runtime.launcher: srun --ntasks-per-node=1`, the stage that DVC starts runs

    srun --ntasks-per-node=1 env CLIPZOO_TASK=1 ... python stages/train.py

and waits for it. Each of these tasks is a machine; what torchrun needs to know is in the variables
of Slurm or SkyPilot, or in its own, which a launcher may set (NNODES, NODE_RANK, RDZV_ENDPOINT).
"""

import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Mapping
from functools import partial

from clipzoo.runtime.ending import run_command
from clipzoo.config import ConfigError
from clipzoo.runtime.parent import signal_with_parent

TASK = "CLIPZOO_TASK"
"""Environment variable of what a launcher started."""
PORT = 29500
"""Of the first machine, where the others meet it, unless RDZV_ENDPOINT says otherwise."""
NAMES = {
    "Slurm": ("SLURM_STEP_NUM_NODES", "SLURM_NODEID", "SLURM_STEP_NODELIST"),
    "SkyPilot": ("SKYPILOT_NUM_NODES", "SKYPILOT_NODE_RANK", "SKYPILOT_NODE_IPS"),
}
"""Variables with the number of machines, the number of this one, and their names."""


def is_task() -> bool:
    """Whether a launcher has started this process."""
    return TASK in os.environ


def run_under(launcher: str) -> int:
    """Run this script and its arguments under a launcher, and wait; returns its exit code.

    If this process is killed, the launcher gets SIGTERM, with which it ends its tasks.

    Raises:
        ConfigError: the launcher is not an installed program.
    """
    try:
        command = shlex.split(launcher)
    except ValueError:  # a quote that is not closed
        command = []
    if not command or shutil.which(command[0]) is None:
        raise ConfigError(
            f"runtime.launcher: found {launcher!r}, and no such program is on PATH; allowed: a "
            "command that runs what follows it on every machine (srun --ntasks-per-node=1), or ''"
        )
    # Not every launcher hands on the environment.
    kept = {TASK: "1", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    variables = [f"{name}={value}" for name, value in kept.items()]
    return run_command(
        [*command, "env", *variables, sys.executable, *sys.argv],
        preexec_fn=partial(signal_with_parent, signal.SIGTERM),
    )


def machines_of_task(environment: Mapping[str, str]) -> dict[str, str]:
    """NNODES, NODE_RANK and RDZV_ENDPOINT of a task; {} = it runs on one machine, or they are set.

    Raises:
        ConfigError: no variable says how many machines there are.
    """
    if "NNODES" in environment:
        return {}
    for count, number, names in NAMES.values():
        if count not in environment:
            continue
        if environment[count] == "1":
            return {}
        first = first_host(environment[names])
        return {
            "NNODES": environment[count],
            "NODE_RANK": environment[number],
            "RDZV_ENDPOINT": environment.get("RDZV_ENDPOINT", f"{first}:{PORT}"),
        }
    found = ", ".join(count for count, *_ in NAMES.values())
    raise ConfigError(
        f"runtime.launcher: none of {found} and NNODES is set in what it started; allowed: a "
        "launcher of Slurm or SkyPilot, or one that sets NNODES, NODE_RANK and RDZV_ENDPOINT"
    )


def first_host(names: str) -> str:
    """The first of several hosts: names or addresses, one a line, or a list of Slurm.

    Example: `gpu[03-05,09],login1` -> `gpu03`.
    """
    first = names.split()[0]
    if found := re.match(r"([^,\[]*)\[([^\],-]*)[^\]]*\]([^,\[]*)", first):
        return "".join(found.groups())
    return first.split(",")[0]

"""Start a stage in one process or through torchrun; report errors without a traceback.

torch is not imported here, so stages that do not need it start quickly.
"""

import argparse
import contextlib
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from clipzoo.runtime.ending import ending
from clipzoo.config import ConfigError, Params, RuntimeConfig, load_params
from clipzoo.runtime.allocator import keep_freed_memory
from clipzoo.runtime.cluster_launch import is_task, machines_of_task, run_under
from clipzoo.runtime.failures import describe, is_final, is_of_a_connection
from clipzoo.runtime.lock import only_one
from clipzoo.runtime.machine import count_processes, usable_cores
from clipzoo.runtime.one_run import check_params, same_params
from clipzoo.runtime.parent import announce_launcher, exit_with_launcher

JOIN_SECONDS = 3600
"""How long a machine waits for the others, at the start or after one was lost: long enough for a
cluster to replace it."""
CONNECT_SECONDS = 300
"""How long a machine waits for the first one, which may still be busy with an earlier stage."""

Condition = Callable[[Params], bool]


def run_stage(
    main: Callable[[], None],
    *,
    distributed: bool | Condition = False,
    before: Callable[[], object] | None = None,
) -> None:
    """Run a stage's `main`; print an expected error as one message instead of a traceback.

    In one folder a stage with the same arguments runs once at a time (`lock.only_one`). The
    launcher holds the lock for the processes that it starts, which end with it.

    Args:
        distributed: whether to start `runtime.processes` processes of this script through
            torchrun, if that is more than one; or a function of the parameters that decides it.
            There are several machines if NNODES, NODE_RANK and RDZV_ENDPOINT are in the
            environment. The number of processes is not part of the DVC command, so changing it
            reruns nothing.
        before: called before params.yaml is read for the first time, so that it can name more
            faults than the reader does.
    """
    # Only the script's own `main` ends this process; tests run stages in theirs.
    with ending() if main.__module__ == "__main__" else contextlib.nullcontext():
        _run(main, distributed, before)


def _run(
    main: Callable[[], None],
    distributed: bool | Condition,
    before: Callable[[], object] | None = None,
) -> None:
    """Run a stage here or in processes of its own; exit with code 1 after an expected error."""
    keep_freed_memory()
    launched = bool(distributed) and "RANK" in os.environ
    try:
        if launched:
            exit_with_launcher()
            check_params()
            main()
            from clipzoo.runtime.distributed import finish

            finish()
            return
        if before is not None:
            before()
        # The process that waits for a launcher's tasks holds the lock for them.
        lock = contextlib.nullcontext() if is_task() else only_one(_stage())
        with lock, same_params():
            params = load_params() if distributed else None
            if params is not None and (not callable(distributed) or distributed(params)):
                if is_task():
                    os.environ.update(machines_of_task(os.environ))
                elif launcher := params.runtime.launcher:
                    sys.exit(run_under(launcher))
                processes = count_processes(params.runtime)
                if processes > 1 or "NNODES" in os.environ:
                    _torchrun(processes, params.runtime)
                    return
            _set_threads(1)
            main()
    except Exception as error:
        if launched:
            _leave(error)
        text = describe(error)
        if text is None:
            raise
        print(f"error: {text}", file=sys.stderr, flush=True)
        sys.exit(1)


def dataset_argument() -> str:
    """The dataset that the stage runs for: its one argument, `--dataset NAME`."""
    return _argument("dataset")


def recipe_argument() -> str:
    """The recipe that the stage fuses with: its one argument, `--recipe NAME`."""
    return _argument("recipe")


def _argument(name: str) -> str:
    parser = argparse.ArgumentParser()
    parser.add_argument(f"--{name}", required=True, metavar="NAME", help="of params.yaml")
    return getattr(parser.parse_args(), name)


def _stage() -> str:
    """The stage and its arguments, and which of several machines this is: each has a launcher."""
    number = os.environ.get("NODE_RANK", "0")
    machine = [] if number == "0" else [f"machine {number}"]
    return " ".join([Path(sys.argv[0]).stem, *sys.argv[1:], *machine])


def _leave(error: Exception) -> None:
    """Report the error of one of several processes and end it at once.

    A normal exit would wait for loader threads and for exchanges with other processes, which may
    never end.
    """
    from clipzoo.runtime.distributed import leave

    text = describe(error)
    if is_of_a_connection(error) or os.environ["RANK"] != "0":
        # If all ranks fail alike, rank 0 reports the error and exits first, which ends the others.
        # If a connection broke, the launcher reports which of its processes was lost.
        time.sleep(10)
    if text is None:
        traceback.print_exc()
    else:
        print(f"error: {text}", file=sys.stderr)
    leave(failed=is_final(error))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _torchrun(processes: int, runtime: RuntimeConfig) -> None:
    """Run this script and its arguments in `processes` processes; exit 1 if one fails."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError
    from torch.distributed.run import main

    from clipzoo.runtime import loopback

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    options = ["--nproc-per-node", str(processes), "--max-restarts", str(runtime.max_restarts)]
    options += ["--signals-to-handle", "SIGTERM,SIGHUP,SIGQUIT"]  # SIGINT is KeyboardInterrupt
    options += _machines() if "NNODES" in os.environ else loopback.options()
    announce_launcher()
    _set_threads(processes)
    try:
        main([*options, *sys.argv])
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:  # otherwise the process has printed its error
            signal_name = signal.Signals(-failure.exitcode).name
            hint = "; if memory ran out, lower runtime.micro_batch or runtime.processes"
            print(
                f"error: process {rank} was killed by {signal_name}"
                f"{hint if signal_name == 'SIGKILL' else ''}",
                file=sys.stderr,
            )
        sys.exit(1)
    except RendezvousError as error:
        raise ConfigError(
            f"RDZV_ENDPOINT: found {os.environ.get('RDZV_ENDPOINT')}; NNODES="
            f"{os.environ.get('NNODES')} machines did not meet there ({type(error).__name__}); "
            "allowed: host:port of the first machine, which runs this stage too. If they had met "
            "before, the run has ended on another machine, whose output says why"
        ) from error
    except SignalException as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _set_threads(processes: int) -> None:
    """Divide the usable cores among this machine's processes; OMP_NUM_THREADS overrides it."""
    if "OMP_NUM_THREADS" in os.environ:
        return
    threads = max(1, usable_cores() // processes)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:  # read the variable when it was imported
        sys.modules["torch"].set_num_threads(threads)


def _machines() -> list[str]:
    """Options of torchrun for one of several machines; ConfigError if a variable is missing or
    wrong."""
    for name in ("NODE_RANK", "RDZV_ENDPOINT"):
        if name not in os.environ:
            raise ConfigError(
                f"NNODES is set but {name} is not; several machines need "
                "NNODES, NODE_RANK and RDZV_ENDPOINT (host:port of the machine with NODE_RANK 0)"
            )
    endpoint = os.environ["RDZV_ENDPOINT"]
    if not endpoint.rpartition(":")[2].isdigit():
        raise ConfigError(f"RDZV_ENDPOINT: found {endpoint!r}; allowed: host:port")
    # A new port after each restart; otherwise a machine that stays keeps the port of a lost one.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    is_host = int(os.environ["NODE_RANK"] == "0")
    timeouts = f"join_timeout={JOIN_SECONDS},read_timeout={CONNECT_SECONDS}"
    return [
        *("--nnodes", os.environ["NNODES"]),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint),
        *("--rdzv-id", "-".join([Path(sys.argv[0]).stem, *sys.argv[1:]])),
        *("--rdzv-conf", f"is_host={is_host},{timeouts}"),
    ]

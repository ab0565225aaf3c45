"""Starting a stage: one process or torchrun, and errors a person can read.

Imports nothing heavy: the stages that need no torch start without it.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable

from clipzoo.config import load_params


def run_stage(main: Callable[[], None], *, distributed: bool = False) -> None:
    """Run a stage's `main`; print an expected error as one message instead of a traceback.

    Args:
        main: the stage.
        distributed: start `runtime.processes` processes of this script through torchrun (a lone
            one needs none); several machines through NNODES, NODE_RANK and RDZV_ENDPOINT in the
            environment. The number of processes is no part of the DVC command, so that changing
            it reruns nothing.
    """
    try:
        starts = distributed and "RANK" not in os.environ
        processes = load_params().runtime.processes if starts else 1
        if processes > 1 or (starts and "NNODES" in os.environ):
            _torchrun(processes)
        else:
            main()
    except (ValueError, OSError) as error:
        if os.environ.get("RANK", "0") != "0":
            # The same error on every rank is told once: rank 0 exits first and ends the others.
            time.sleep(10)
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(1)


def _torchrun(processes: int) -> None:
    """Run this script and its arguments in `processes` processes; exit 1 if one fails."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    options = ["--nproc-per-node", str(processes)]
    if "NNODES" in os.environ:
        for name in ("NODE_RANK", "RDZV_ENDPOINT"):
            if name not in os.environ:
                raise ValueError(
                    f"NNODES is in the environment, {name} is not; several machines need "
                    "NNODES, NODE_RANK and RDZV_ENDPOINT (host:port of the first machine)"
                )
        options += ["--nnodes", os.environ["NNODES"], "--node-rank", os.environ["NODE_RANK"]]
        options += ["--rdzv-backend", "c10d", "--rdzv-endpoint", os.environ["RDZV_ENDPOINT"]]
        options += ["--rdzv-id", "clipzoo"]
    else:
        options += ["--standalone"]
    threads = max(1, (os.cpu_count() or 1) // processes)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    try:
        main([*options, *sys.argv])
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:  # else the process has said why before it ended
            signal_name = signal.Signals(-failure.exitcode).name
            hint = "; was memory short? lower runtime.micro_batch or runtime.processes"
            print(
                f"error: process {rank} was ended by {signal_name}"
                f"{hint if signal_name == 'SIGKILL' else ''}",
                file=sys.stderr,
            )
        sys.exit(1)

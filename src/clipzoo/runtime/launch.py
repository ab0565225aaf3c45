"""Start a stage in one process or through torchrun; report errors without a traceback.

Does not import torch, so that stages that do not need it start quickly.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable

from clipzoo.config import load_params
from clipzoo.runtime.allocator import keep_freed_memory


def run_stage(main: Callable[[], None], *, distributed: bool = False) -> None:
    """Run a stage's `main`; print an expected error as one message instead of a traceback.

    Args:
        main: the stage.
        distributed: start `runtime.processes` processes of this script through torchrun, if more
            than one; on several machines if NNODES, NODE_RANK and RDZV_ENDPOINT are in the
            environment. The number of processes is not part of the DVC command, so changing it
            reruns nothing.
    """
    keep_freed_memory()
    try:
        launching = distributed and "RANK" not in os.environ
        processes = load_params().runtime.processes if launching else 1
        if processes > 1 or (launching and "NNODES" in os.environ):
            _torchrun(processes)
        else:
            main()
    except (ValueError, OSError) as error:
        if os.environ.get("RANK", "0") != "0":
            # All ranks may fail alike: rank 0 reports it and exits first, which ends the others.
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
                    f"NNODES is set but {name} is not; several machines need "
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
        if failure.exitcode < 0:  # otherwise the process has printed its error
            signal_name = signal.Signals(-failure.exitcode).name
            hint = "; if memory ran out, lower runtime.micro_batch or runtime.processes"
            print(
                f"error: process {rank} was killed by {signal_name}"
                f"{hint if signal_name == 'SIGKILL' else ''}",
                file=sys.stderr,
            )
        sys.exit(1)

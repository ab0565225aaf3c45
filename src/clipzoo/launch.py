"""Starting a stage: one process or torchrun, and errors a person can read.

Imports nothing heavy: the stages that need no torch start without it.
"""

import os
import sys
from collections.abc import Callable

from clipzoo.config import load_params


def run_stage(main: Callable[[], None], *, distributed: bool = False) -> None:
    """Run a stage's `main`; print an expected error as one message instead of a traceback.

    Args:
        main: the stage.
        distributed: start `runtime.processes` processes of this script through torchrun; several
            machines through NNODES, NODE_RANK and RDZV_ENDPOINT in the environment. The number of
            processes is no part of the DVC command, so that changing it reruns nothing.
    """
    try:
        if distributed and "RANK" not in os.environ:
            _exec_torchrun()
        main()
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(1)


def _exec_torchrun() -> None:
    """Replace this process by torchrun over the same script and arguments."""
    command = [sys.executable, "-m", "torch.distributed.run"]
    command += ["--nproc-per-node", str(load_params().runtime.processes)]
    if "NNODES" in os.environ:
        for name in ("NNODES", "NODE_RANK", "RDZV_ENDPOINT"):
            if name not in os.environ:
                raise ValueError(f"{name} is not in the environment; several machines need it")
        command += ["--nnodes", os.environ["NNODES"], "--node-rank", os.environ["NODE_RANK"]]
        command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", os.environ["RDZV_ENDPOINT"]]
        command += ["--rdzv-id", "clipzoo"]
    else:
        command += ["--standalone"]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.stdout.flush()
    os.execv(sys.executable, [*command, *sys.argv])

"""What the processes of a stage exchange, on `sys.argv[2]`; started by torchrun.

Rank 0 writes what every rank has computed and received to the folder `sys.argv[1]`.
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import tracing
from gradient_sums import CASES, step_gradients

from clipzoo.clips.encoding import encode_set
from clipzoo.runtime.distributed import (
    barrier,
    gather_objects,
    gather_rows,
    rank,
    start,
    world_size,
)
from clipzoo.train import loop

STEPS = [(8, 2), (3, 1)]
"""(clips of a step, clips of a micro-batch); of 3 clips on 2 processes, one has a filler."""


def rows_of(process: int) -> torch.Tensor:
    """As many rows as the rank plus one, float32 [rank + 1, 2]."""
    return torch.arange(2 * (process + 1)).view(-1, 2) + 10.0 * process


def exchange(device: torch.device) -> dict[Any, Any]:
    """Gradients, losses and scores of this rank, and all that it has received."""
    found: dict[Any, Any] = {"backend": dist.get_backend(), "device": device.type}
    found["objects"] = gather_objects(
        {"rank": rank(), "ids": ["v1", "v 2"], "row": rows_of(rank())}
    )
    # Of ranks 0, 1, 2, ...: place 0, places 1 and 2, places 3 to 5, ...
    starts = [process * (process + 1) // 2 for process in range(world_size() + 1)]
    places = torch.arange(starts[rank()], starts[rank() + 1], device=device)
    found["rows"] = gather_rows(rows_of(rank()).to(device), places, starts[-1]).cpu()
    for case in CASES:
        for size, micro_batch in STEPS:
            loss, gradients = step_gradients(case, size, micro_batch, device=device)
            # Clones: gradients are views of DDP's buckets, and a view is sent with its bucket.
            found[case, size] = loss, {name: g.cpu().clone() for name, g in gradients.items()}
    found["trace"] = tracing.trace("ce-fp32", 2, device=device)
    run = tracing.make_run("ce-fp32", 2, device=device)
    found["top1"] = loop.single_view_score(run)
    found["features"] = encode_set(
        run.method, run.val_clips, "test", params=run.params, device=device
    )
    return found


def main(folder: Path, device_name: str) -> None:
    os.chdir(folder)
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False
    device = start(device_name)
    found = gather_objects(exchange(device))
    if rank() == 0:
        torch.save(found, folder / "found.pt")
    barrier()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

"""How the clips of a step are dealt to processes and micro-batches.

Place i of a step (0 .. B - 1) belongs to process i % world size, which encodes its places in
micro-batches; places that are mixed with each other stay together:

    step of 7, 2 processes, micro-batches of 2      process 0: [0 2] [4 6]    process 1: [1 3] [5]
    the same in groups of 2                         process 0: [0 1] [4 5]    process 1: [2 3] [6]
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch.nn.modules.batchnorm import _BatchNorm

from clipzoo.methods.parts.method import Method
from clipzoo.runtime.distributed import rank, world_size


@dataclass(frozen=True)
class MicroBatch:
    """Clips (or texts) that one process encodes at once."""

    places: list[int]
    """Their places in the step."""
    counted: bool
    """False for the filler of a process with no clip left: every process joins every exchange."""


def micro_batches(step_size: int, micro_batch: int, group: int = 1) -> list[MicroBatch]:
    """This process's share of a step; every process has the same number of micro-batches.

    Example: a step of 5 and micro_batch 2 on 2 processes: places 0, 2, 4 make [0, 2], [4] on the
    first, and places 1, 3 make [1, 3] and a filler on the second.

    Args:
        group: clips that follow each other in the step and are encoded at once. A micro-batch has
            as many whole groups as it has room for, and at least one.
    """
    groups = [range(step_size)[i : i + group] for i in range(0, step_size, group)]
    share = groups[rank() :: world_size()]
    largest_share = math.ceil(len(groups) / world_size())
    at_once = max(1, micro_batch // group)
    parts = (share[i : i + at_once] for i in range(0, largest_share, at_once))
    return filled([place for places in part for place in places] for part in parts)


def filled(parts: Iterable[Sequence[int]]) -> list[MicroBatch]:
    """A micro-batch for each part; an empty part gets the first place of the step as its filler."""
    return [MicroBatch(list(part or [0]), counted=bool(part)) for part in parts]


def has_batch_norm(method: Method) -> bool:
    """Whether a method normalizes over the clips of a micro-batch (ResNet towers)."""
    return any(isinstance(module, _BatchNorm) for module in method.modules())


def split_settings(method: Method, micro_batch: int) -> dict[str, int]:
    """How a run splits its steps, by dotted key: `runtime.micro_batch`, and `runtime.processes` of
    all machines together. It is empty if the result does not depend on that."""
    if not has_batch_norm(method):
        return {}
    return {"runtime.micro_batch": micro_batch, "runtime.processes": world_size()}

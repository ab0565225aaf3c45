"""Which clips each optimizer step takes: a function of the seed and the epoch only.

It does not depend on the number of processes, on micro-batches or on resume points.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clipzoo.config import Params
from clipzoo.methods import METHODS
from clipzoo.models.clip import has_small_budgets

_TEMPLATES = 1
"""Fourth number of the seed of a clip's template, so that it is not the seed of its frames."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which clips each optimizer step takes."""

    num_clips: int
    """Clips of an epoch. Clip p shows record p modulo the number of records: few-shot picks are
    repeated, each time with other random choices."""
    batch_size: int
    epochs: int
    seed: int
    max_steps: int | None
    """Stop after this many steps; None = after all epochs."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch; the last may be smaller, none is dropped."""
        return max(1, math.ceil(self.num_clips / self.batch_size))

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the run."""
        steps = self.steps_per_epoch * self.epochs
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def step_positions(self, epoch: int) -> list[list[int]]:
        """The clips of every step of an epoch: a permutation, cut into batches.

        Its seed is (seed, epoch). Steps after the end of the run are left out.
        """
        order = np.random.default_rng([self.seed, epoch]).permutation(self.num_clips).tolist()
        steps = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        return steps[: max(self.total_steps - epoch * self.steps_per_epoch, 0)]

    def draw_templates(self, epoch: int, positions: Sequence[int], num_templates: int) -> list[int]:
        """The template of each clip's text; the seed of a draw is (seed, epoch, position)."""
        streams = [[self.seed, epoch, position, _TEMPLATES] for position in positions]
        return [int(np.random.default_rng(s).integers(num_templates)) for s in streams]

    def validates(self, step: int, every_epochs: int) -> bool:
        """Whether a validation follows after `step` steps: every N epochs and at the end."""
        if step == self.total_steps:
            return True
        epoch, rest = divmod(step, self.steps_per_epoch)
        return rest == 0 and epoch % every_epochs == 0


def make_plan(params: Params, num_records: int, num_all: int) -> Plan:
    """The plan of a run with `num_records` training records.

    Few-shot picks from `num_all` records are repeated num_all // num_records times, so that an
    epoch is about as long as one over all records, unless the authors of the method do not.
    """
    repeated = METHODS[params.model.method].repeats_shots
    repeats = num_all // num_records if repeated and params.data.shots and num_records else 1
    return Plan(
        num_clips=num_records * repeats,
        batch_size=params.train.batch_size,
        epochs=params.train.epochs,
        seed=params.seed,
        max_steps=params.demo.other_archs.train_steps if has_small_budgets(params) else None,
    )

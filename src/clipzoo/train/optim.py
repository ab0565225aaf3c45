"""Which parameters learn at which rate, and how the rates change over a run."""

import math
from typing import Any

import torch
from torch import nn

from clipzoo.config import TrainConfig

CLIP_PREFIXES = ("visual.", "text.", "logit_scale")


def parameter_groups(
    model: nn.Module, lr: float, tower_lr_ratio: float, decay_vectors: bool = True
) -> list[dict[str, Any]]:
    """Groups for AdamW: the head at `lr`, CLIP's parameters at `lr * tower_lr_ratio`.

    `visual.*`, `text.*` and `logit_scale` come from CLIP. Everything else is the head, and so are
    the temporal modules inside the tower (`control_point`). All groups use the optimizer's weight
    decay, for every parameter, biases and norms included, as in the code of Text4Vis. A ratio of 0
    freezes CLIP's parameters.

    Args:
        decay_vectors: False = parameters of one dimension are in groups of their own, without
            weight decay, as in Open-VCLIP (slowfast/models/optimizer.py, ZERO_WD_1D_PARAM).
            logit_scale, which has no dimension, decays there too.

    Returns:
        groups with `params`, `lr` and `base_lr` (the peak); an empty group is left out.
    """
    groups: list[dict[str, Any]] = [
        {"name": "towers", "params": [], "base_lr": lr * tower_lr_ratio},
        {"name": "head", "params": [], "base_lr": lr},
    ]
    if not decay_vectors:
        groups += [
            {**group, "name": f"{group['name']}, vectors", "params": [], "weight_decay": 0.0}
            for group in groups
        ]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            in_tower = name.startswith(CLIP_PREFIXES) and ".control_point." not in name
            apart = 2 if parameter.dim() == 1 and not decay_vectors else 0
            groups[apart + (0 if in_tower else 1)]["params"].append(parameter)
    return [{**group, "lr": group["base_lr"]} for group in groups if group["params"]]


def make_optimizer(model: nn.Module, settings: TrainConfig) -> torch.optim.AdamW:
    """AdamW over the `parameter_groups` of a method."""
    return torch.optim.AdamW(
        parameter_groups(model, settings.lr, settings.tower_lr_ratio, settings.decay_vectors),
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        fused=settings.fused or None,  # False would also turn off torch's default, foreach
    )


def count_skipped_steps(
    optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, steps: int
) -> int:
    """How many of the `steps` since the start of the run the scaler has skipped.

    It skips a step whose gradients overflow; AdamW, whose state a resumed run loads, does not count
    such a step. A fused AdamW counts on its device, which has to be waited for.
    """
    if not scaler.is_enabled():
        return 0
    counts = [state["step"] for state in optimizer.state.values()]
    return steps - int(counts[0]) if counts else steps


def schedule_factor(step: int, steps_per_epoch: int, settings: TrainConfig) -> float:
    """Factor of the base learning rate at an optimizer step: linear warm-up, then `schedule`.

    The rate changes only at the first step of an epoch and at every `steps_per_lr_update`-th step
    of it (the 10th, 20th, ... for 10), as in Text4Vis. There it follows the progress in epochs, e =
    epoch + i / steps_per_epoch, with i the number of the step in its epoch, from 0. Below
    `warmup_epochs` the factor is start + (1 - start) * e / warmup_epochs, with start =
    `warmup_start_share`; above, with min = `min_lr_share`:

        cosine:             min + (1 - min) * (1 + cos(pi * (e - warmup) / (epochs - warmup))) / 2
        cosine_from_start:  min + (1 - min) * (1 + cos(pi * e / epochs)) / 2
        multistep:          gamma ** (number of milestones <= e)
        constant:           1

    cosine_from_start is that of ViFi-CLIP (timm's CosineLRScheduler without `warmup_prefix`): the
    rate falls at once where the warm-up ends, with 5 epochs of 10 from 1 to 0.505 (min 0.01).

    Example: 40 steps in an epoch, 5 warm-up epochs, steps_per_lr_update 10: steps 0 to 8 have
    factor 0, steps 9 to 18 have 9 / 40 / 5 = 0.045.
    """
    # 12 steps in an epoch, steps_per_lr_update 5: the rate of step i is that of the last change,
    # which is where i + 1 is a multiple of 5, or the first step of the epoch.
    #
    #   i         0  1  2  3  4  5  6  7  8  9 10 11 | 0  1
    #   changed   0  0  0  0  4  4  4  4  4  9  9  9 | 0  0
    epoch, i = divmod(step, steps_per_epoch)
    every, warmup = settings.steps_per_lr_update, settings.warmup_epochs
    changed = max((i + 1) // every * every - 1, 0)
    progress = epoch + changed / steps_per_epoch
    if progress < warmup:
        start = settings.warmup_start_share
        return start + (1 - start) * (progress / warmup)
    if settings.schedule == "constant":
        return 1.0
    if settings.schedule == "multistep":
        return settings.gamma ** sum(milestone <= progress for milestone in settings.milestones)
    if settings.schedule == "cosine_from_start":
        share = progress / settings.epochs
    else:
        share = (progress - warmup) / max(settings.epochs - warmup, 1e-12)
    cosine = (math.cos(math.pi * min(share, 1.0)) + 1) / 2
    return settings.min_lr_share + (1 - settings.min_lr_share) * cosine

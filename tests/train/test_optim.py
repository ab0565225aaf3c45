import math
from pathlib import Path

import pytest
import torch
from torch import nn

from clipzoo.config import load_params
from clipzoo.train.optim import make_optimizer, parameter_groups, schedule_factor

SETTINGS = load_params(Path(__file__).parents[2] / "params.yaml").train


def factors(steps: int, **options: object) -> list[float]:
    defaults = {"epochs": 4, "warmup_epochs": 0, "schedule": "constant", "steps_per_lr_update": 1}
    settings = SETTINGS.model_copy(update=defaults | options)
    return [schedule_factor(step, 4, settings) for step in range(steps)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"schedule": "constant"}, [1.0] * 9),
        ({"warmup_epochs": 2}, [0, 1 / 8, 2 / 8, 3 / 8, 4 / 8, 5 / 8, 6 / 8, 7 / 8, 1]),
        # The rate changes at the first, 3rd, 6th ... step of an epoch.
        (
            {"warmup_epochs": 2, "steps_per_lr_update": 3},
            [0, 0, 2 / 8, 2 / 8, 4 / 8, 4 / 8, 6 / 8, 6 / 8, 1],
        ),
        (
            {"schedule": "multistep", "milestones": [1, 1.5], "gamma": 0.5},
            [1] * 4 + [0.5] * 2 + [0.25] * 3,
        ),
        (
            {"schedule": "cosine", "epochs": 2},
            [(1 + math.cos(math.pi * i / 8)) / 2 for i in range(9)],
        ),
        (
            {"schedule": "cosine_from_start", "epochs": 2, "warmup_epochs": 1},
            [0, 1 / 4, 2 / 4, 3 / 4] + [(1 + math.cos(math.pi * i / 8)) / 2 for i in range(4, 9)],
        ),
        (
            {"schedule": "cosine", "epochs": 2, "warmup_epochs": 1, "min_lr_share": 0.1}
            | {"warmup_start_share": 0.2},
            [0.2, 0.4, 0.6, 0.8]
            + [0.1 + 0.9 * (1 + math.cos(math.pi * i / 4)) / 2 for i in range(5)],
        ),
    ],
)
def test_schedules(options: dict[str, object], expected: list[float]):
    assert factors(9, **options) == pytest.approx(expected)


def test_clip_learns_slower_than_the_head_and_the_temporal_modules_in_its_tower():
    model = nn.ModuleDict({"visual": nn.ModuleDict(), "fusion_model": nn.Linear(1, 1, bias=False)})
    model["visual"]["conv1"] = nn.Linear(2, 1, bias=False)  # pyright: ignore[reportIndexIssue]
    model["visual"]["control_point"] = nn.ModuleDict({"conv": nn.Linear(3, 1, bias=False)})  # pyright: ignore[reportIndexIssue]
    model.register_parameter("logit_scale", nn.Parameter(nn.Linear(4, 1).weight))
    groups = {group["name"]: group for group in parameter_groups(model, 0.5, 0.1)}
    sizes = {name: sorted(p.shape[1] for p in g["params"]) for name, g in groups.items()}
    assert sizes == {"towers": [2, 4], "head": [1, 3]}
    assert (groups["towers"]["lr"], groups["head"]["lr"]) == (0.05, 0.5)


def test_vectors_need_not_decay_but_logit_scale_does():
    """A norm moves by its gradient alone; a matrix and a number without gradients shrink."""
    model = nn.Module()
    model.visual = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    model.head = nn.Linear(3, 3)
    model.logit_scale = nn.Parameter(torch.tensor(2.0))
    for decay_vectors in (True, False):
        settings = SETTINGS.model_copy(
            update={"weight_decay": 0.5, "lr": 0.1, "decay_vectors": decay_vectors}
        )
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        optimizer = make_optimizer(model, settings)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        for name, parameter in model.named_parameters():
            rate = 0.1 if name.startswith("head.") else 0.1 * settings.tower_lr_ratio
            decays = decay_vectors or parameter.dim() != 1
            factor = 1 - rate * 0.5 if decays else 1.0
            torch.testing.assert_close(parameter.detach(), before[name] * factor, msg=name)

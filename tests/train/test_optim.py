import math
from pathlib import Path

import pytest
from torch import nn

from clipzoo.config import load_params
from clipzoo.train.optim import parameter_groups, schedule_factor

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

"""benchmarks/methods.py at tiny sizes: what `clipzoo compare` reads of it."""

import importlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clipzoo.commands.compare import METHODS

ROOT = Path(__file__).parents[1]
RECIPES = [name for name in METHODS if (ROOT / f"recipes/{name}.yaml").is_file()]


def test_every_method_takes_steps_and_scores_clips_of_equal_sizes(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    module = importlib.import_module("methods")
    case = replace(
        module.CASES["demo"],
        changes={"model.num_segments": 2, "model.input_px": 32},
        num_classes=5,
        step_clips=3,
        test_clips=2,
        rounds=2,
    )
    for recipe in RECIPES:
        subject = module.Subject(recipe, case)
        before = [p.clone() for p in subject.trial.method.parameters()]
        subject.step()
        after = list(subject.trial.method.parameters())
        assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)), recipe
        scores = subject.test()  # [b, K]
        torch.testing.assert_close(scores.sum(dim=1), torch.ones(2), msg=recipe)
        assert scores.shape == (2, 5)
    # Every round of a method takes twice as long as that of the one before, and the first 1 s.
    seconds = {recipe: 2.0**i for i, recipe in enumerate(RECIPES)}
    taken = iter([s for _ in range(2 * (case.rounds + 1)) for s in seconds.values()])
    monkeypatch.setattr(module, "seconds", lambda action: next(taken))
    measured = module.measure_times(case, RECIPES)
    for recipe, values in measured.items():
        assert values["step_ratio"] == values["step_least"] == values["step_most"]
        assert values["step_ratio"] == values["step_seconds"] == seconds[recipe]
        assert values["clip_ratio"] == seconds[recipe] == values["clip_seconds"] * 2
    assert measured[RECIPES[0]]["parameters"] > 1e6

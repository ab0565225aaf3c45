"""The search for the largest micro-batch, and the steps on noise that it takes."""

from pathlib import Path

import pytest
import torch

from clipzoo.commands import trial_steps
from clipzoo.commands.trial_steps import largest_micro_batch, new_trial, step_fits
from clipzoo.config import Params, load_params, replace

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


def tiny_params(**changes: object) -> Params:
    values = {"model.input_px": 16, "model.num_segments": 2, "text4vis.head_layers": 1}
    return replace(load_params(ROOT / "params.yaml"), values | changes)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 32, 33])
def test_the_largest_that_fits_is_found(limit):
    for capacity in range(limit + 3):
        tried = []
        found = largest_micro_batch(lambda n, c=capacity, t=tried: t.append(n) or n <= c, limit)
        assert found == min(capacity, limit)
        assert max(tried) <= limit
        assert len(set(tried)) == len(tried) <= 2 * limit.bit_length()


def test_sizes_are_doubled_and_then_bisected():
    tried = []
    largest_micro_batch(lambda n: tried.append(n) or n <= 11, 32)
    assert tried == [1, 2, 4, 8, 16, 12, 10, 11]


def test_a_step_too_large_leaves_no_gradients(monkeypatch):
    """The second step would otherwise have less memory than a first one."""
    params = tiny_params()
    trial = new_trial(params, CPU)
    original, sizes = trial.gradients.add, []

    def add(labels, *others):
        sizes.append(len(labels))
        result = original(labels, *others)
        if len(labels) > 3:
            raise torch.OutOfMemoryError
        return result

    monkeypatch.setattr(trial.gradients, "add", add)
    fits = step_fits(trial)
    assert largest_micro_batch(fits, 8) == 3
    assert sizes == [1, 2, 4, 3]
    assert fits(4) is False
    assert all(p.grad is None for p in trial.method.parameters())


@pytest.mark.parametrize("loss", ["ce", "infonce"])
def test_a_trial_changes_every_parameter_that_training_changes(loss):
    params = tiny_params(**{"text4vis.loss": loss, "train.precision": "bf16"})
    trial = new_trial(params, CPU)
    before = {n: p.detach().clone() for n, p in trial.method.named_parameters() if p.requires_grad}
    trial.step_of(trial.inputs.example(4, CPU))
    same = [n for n, p in trial.method.named_parameters() if torch.equal(p, before.get(n, p * 2))]
    assert not same


def test_a_model_too_large_fits_no_clip(monkeypatch):
    def too_large(params, device):
        raise torch.OutOfMemoryError

    shares = []
    monkeypatch.setattr(trial_steps, "new_trial", too_large)
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda share, device: shares.append(share)
    )
    assert trial_steps.largest_on_gpu(tiny_params(), 8, CPU) == 0
    assert shares == [0.95, 1.0]

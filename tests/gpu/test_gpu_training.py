"""Training, validation and testing on a GPU: the numbers of a CPU, and the same errors."""

import functools
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import tracing
from test_gpu_steps import largest_difference
from test_traces import GOLDEN

from clipzoo.clips import encoding
from clipzoo.runtime.distributed import start
from clipzoo.train import loop
from clipzoo.train.setup import TrainingError
from clipzoo.train.state import STATE_DIR

SCALE = 256.0
POISONED_STEP = 2


def losses(device: torch.device, case: str = "ce-fp32", **changes: Any) -> list[float]:
    """Of the five steps; `changes` of `train`, by key."""
    values = {f"train.{key}": value for key, value in changes.items()}
    return tracing.trace(case, 2, device=device, changes=values)["losses"]


def with_scale(monkeypatch: pytest.MonkeyPatch, scale: float) -> None:
    scaler = functools.partial(torch.amp.GradScaler, init_scale=scale)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)


@pytest.mark.parametrize("loss", ["ce", "infonce"])
def test_five_steps_have_the_losses_of_a_cpu(device, loss, record_property):
    found = losses(device, f"{loss}-fp32")
    expected = GOLDEN[f"{loss}-fp32"]["losses"]
    worst = max(abs(a / b - 1) for a, b in zip(found, expected, strict=True))
    record_property("largest relative difference", f"{worst:.2g}")
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("loss", ["ce", "infonce"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_five_steps_in_reduced_precision(device, loss, precision, monkeypatch, record_property):
    with_scale(monkeypatch, SCALE)
    found = losses(device, f"{loss}-fp32", precision=precision)
    expected = GOLDEN[f"{loss}-fp32"]["losses"]
    worst = max(abs(a / b - 1) for a, b in zip(found, expected, strict=True))
    record_property("largest relative difference", f"{worst:.2g}")
    assert found == pytest.approx(expected, rel=3e-2)
    assert worst > 1e-7, "autocast rounds"


def test_checkpointed_activations_change_no_loss(device):
    assert losses(device, activation_checkpointing=True) == pytest.approx(losses(device), rel=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "changes",
    [{"fused": True}, {"compile": True}, {"compile": True, "fused": True, "precision": "bf16"}],
    ids=["fused", "compiled", "compiled-bf16"],
)
def test_kernels_of_other_kinds_round_otherwise_at_most(gpu, changes, record_property):
    limit = 3e-2 if "precision" in changes else 1e-3
    found, expected = losses(gpu, **changes), GOLDEN["ce-fp32"]["losses"]
    worst = max(abs(a / b - 1) for a, b in zip(found, expected, strict=True))
    record_property("largest relative difference", f"{worst:.2g}")
    assert found == pytest.approx(expected, rel=limit)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_resumed_run_has_the_losses_of_a_whole_one(device, precision, monkeypatch):
    """Optimizer and scaler continue with the state that was on the device."""
    with_scale(monkeypatch, SCALE)
    expected = losses(device, precision=precision)
    original, taken = loop.set_learning_rate, []

    def die(optimizer, run, number):
        if number == 3:
            raise KeyboardInterrupt
        return original(optimizer, run, number)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "set_learning_rate", die)
        with pytest.raises(KeyboardInterrupt):
            losses(device, precision=precision, checkpoint_every=2)
    assert list(STATE_DIR.rglob("state.pt"))
    monkeypatch.setattr(
        loop, "set_learning_rate", lambda o, r, n: taken.append(n) or original(o, r, n)
    )
    resumed = losses(device, precision=precision, checkpoint_every=2)
    assert taken == [2, 3, 4]
    assert resumed == pytest.approx(expected, rel=1e-5)


def test_a_step_whose_gradients_overflow_is_skipped(device, monkeypatch):
    """Of fp16; a scale of 2 ** 40 is halved at each of the five steps and stays too large."""
    with_scale(monkeypatch, 2.0**40)
    changes = {"train.precision": "fp16"}
    assert tracing.trace("ce-fp32", 4, device=device, changes=changes)["moved"] == 0


@pytest.mark.parametrize("first", [0, POISONED_STEP])
def test_a_loss_that_is_not_finite_names_its_step_and_videos(device, first, monkeypatch):
    """Under fp16, where the scaler skips such a step and would go on for ever."""
    run = tracing.make_run("ce-fp32", 2, device=device, changes={"train.precision": "fp16"})
    original = loop.set_learning_rate

    def poison(optimizer, run, number):
        if number == first:
            with torch.no_grad():
                run.method.get_parameter("visual.proj").fill_(float("nan"))
        return original(optimizer, run, number)

    monkeypatch.setattr(loop, "set_learning_rate", poison)
    steps = itertools.chain(*(run.plan.step_positions(epoch) for epoch in range(2)))
    positions = next(itertools.islice(steps, first, None))
    videos = ", ".join(run.clips.record(position).video_id for position in positions)
    with pytest.raises(TrainingError, match=rf"step {first} \(epoch 0\) is nan.*: {videos};"):
        loop.train(run)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_set_is_encoded_as_on_a_cpu(device, precision, record_property):
    """By `encode_videos` (validation) and `encode_set` (test), and the model is moved back."""
    on_cpu = tracing.make_run("ce-fp32", 2)
    options: dict[str, Any] = {"micro_batch": 2, "workers": 2}
    positions = [3, 0, 4, 1, 2]
    expected = encoding.encode_videos(
        on_cpu.method, on_cpu.val_clips, positions, device=tracing.CPU, precision="fp32", **options
    )
    run = tracing.make_run("ce-fp32", 2, device=device, changes={"test.precision": precision})
    found = encoding.encode_videos(
        run.method, run.val_clips, positions, device=device, precision=precision, **options
    )
    whole = encoding.encode_set(run.method, run.val_clips, "test", params=run.params, device=device)
    assert whole is not None
    assert found.device.type == whole.device.type == "cpu"
    assert next(run.method.parameters()).device.type == "cpu"
    torch.testing.assert_close(whole[positions], found, rtol=1e-3, atol=1e-3)
    difference = largest_difference(found, expected)
    record_property("largest difference", f"{difference:.2g}")
    assert difference < (1e-4 if precision == "fp32" else 3e-2)


def test_validation_counts_as_on_a_cpu(device):
    expected = loop.single_view_score(tracing.make_run("ce-fp32", 2))
    assert loop.single_view_score(tracing.make_run("ce-fp32", 2, device=device)) == expected


def test_auto_takes_a_gpu_where_there_is_one(device, monkeypatch):
    if device.type == "cpu":
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert start("auto") == device
    assert start("cpu") == torch.device("cpu")


def test_the_model_file_holds_no_device(device):
    losses(device)
    assert Path("models/model.safetensors").is_file()
    assert all(
        tensor.device.type == "cpu"
        for tensor in loop.read_safetensors(Path("models/model.safetensors"))[0].values()
    )

"""Features and gradients on a GPU are those of a CPU, within what their precision rounds."""

from typing import Any

import gradient_sums
import pytest
import torch
from gradient_sums import CASES, CPU, make_method, step_gradients
from torch import Tensor
from tracing import ROOT

from clipzoo.commands import trial_steps
from clipzoo.commands.trial_steps import largest_on_gpu, new_trial
from clipzoo.config import load_params, replace
from clipzoo.train.copies import Copies

PARAMS = load_params(ROOT / "params.yaml")
REAL_PARAMS = replace(
    PARAMS, {"model.arch": "ViT-B/32", "model.input_px": 224, "model.num_segments": 8}
)
LIMITS = {"fp32": 1e-4, "bf16": 3e-2, "fp16": 4e-3}
"""Of a difference, as a share of the largest number: bf16 keeps 8 bits, fp16 11, fp32 24."""
SCALE = 256.0
"""Of the loss under fp16: large enough to keep small gradients, too small to overflow."""


def largest_difference(found: Tensor, expected: Tensor) -> float:
    """As a share of the largest expected number; inf where a number is missing."""
    difference = (found.detach().cpu().double() - expected.double()).abs().max()
    share = float(difference / expected.double().abs().max())
    return share if share == share else float("inf")


def features(method: Any, clips: Tensor, device: torch.device, precision: str) -> Tensor:
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    with torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype is not None):
        return method.to(device).encode(clips.to(device)).float()


@pytest.mark.parametrize("precision", LIMITS)
def test_features_equal_those_of_a_cpu(device, precision, record_property):
    clips = gradient_sums.clips(8)
    expected = features(make_method("ce"), clips, CPU, "fp32")
    found = features(make_method("ce"), clips, device, precision)
    difference = largest_difference(found, expected)
    record_property("largest difference", f"{difference:.2g}")
    assert difference < LIMITS[precision]
    assert precision == "fp32" or difference > LIMITS["fp32"] / 10, "autocast rounds"


@pytest.mark.gpu
@pytest.mark.parametrize("precision", LIMITS)
def test_features_of_a_real_tower_equal_those_of_a_cpu(gpu, precision, record_property):
    torch.manual_seed(0)
    trial = new_trial(REAL_PARAMS, CPU)
    method, clips = trial.method, trial.inputs.example(2, CPU)
    expected = features(method, clips, CPU, "fp32")
    difference = largest_difference(features(method, clips, gpu, precision), expected)
    record_property("largest difference", f"{difference:.2g}")
    assert difference < LIMITS[precision]


def assert_gradients(
    found: dict[str, Tensor], expected: dict[str, Tensor], *, limit: float, scale: float = 1.0
) -> float:
    """Every gradient within `limit` of its largest value; returns the largest difference."""
    assert found.keys() == expected.keys()
    differences = {
        name: largest_difference(gradient / scale, expected[name].cpu())
        for name, gradient in found.items()
    }
    assert max(differences.values()) < limit, {n: d for n, d in differences.items() if d >= limit}
    return max(differences.values())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("micro_batch", [8, 2])
def test_gradients_equal_those_of_a_cpu(device, case, micro_batch, record_property):
    """Of single clips, and of losses over the whole step in one pass and in two."""
    expected_loss, expected = step_gradients(case, 8, 8)
    loss, gradients = step_gradients(case, 8, micro_batch, device=device)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    difference = assert_gradients(gradients, expected, limit=1e-4)
    record_property("largest difference", f"{difference:.2g}")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-4), ("fp16", 3e-2)])
def test_micro_batches_with_the_scaler_equal_one_batch(
    device, case, precision, limit, record_property
):
    options: dict[str, Any] = {"device": device, "precision": precision, "scale": SCALE}
    whole_loss, whole = step_gradients(case, 8, 8, **options)
    loss, gradients = step_gradients(case, 8, 2, **options)
    assert loss == pytest.approx(whole_loss, rel=limit)
    difference = assert_gradients(gradients, whole, limit=limit)
    record_property("largest difference", f"{difference:.2g}")
    _, exact = step_gradients(case, 8, 8)
    if (case, precision) == ("actionclip-dropout", "fp16"):
        # Rounding turns 4 of the 2048 ReLUs on or off, and with each its whole gradient.
        for name, gradient in gradients.items():
            off = gradient.cpu() / SCALE - exact[name].cpu()
            assert float(off.norm() / exact[name].norm()) < 2 * limit, name
    else:
        assert_gradients(gradients, exact, limit=2 * limit, scale=SCALE)


@pytest.mark.gpu
def test_the_largest_micro_batch_is_found(gpu, monkeypatch, record_property):
    """Of a GPU of 4 GB, of which the model and its optimizer take half."""
    assert largest_on_gpu(replace(PARAMS, {"train.precision": "bf16"}), 5, gpu) == 5
    total = torch.cuda.get_device_properties(gpu).total_memory
    monkeypatch.setattr(trial_steps, "MEMORY_SHARE", 4e9 / total)
    largest = largest_on_gpu(replace(REAL_PARAMS, {"train.precision": "bf16"}), 1024, gpu)
    record_property("clips of ViT-B/32 in 4 GB", largest)
    assert 4 <= largest <= 40


@pytest.mark.gpu
def test_clips_are_copied_while_kernels_run(gpu):
    """Every micro-batch arrives whole, though kernels read it long after it was given to them; and
    a copy does not wait for the kernels before it, but for those that use its buffer."""
    copies = Copies(gpu)
    given = [torch.full((8, 1 << 20), i, dtype=torch.uint8).pin_memory() for i in range(12)]
    sums, finished = [], []
    for clips in given:
        sent = copies.send(clips)
        copied, computed = torch.cuda.Event(), torch.cuda.Event()
        copied.record(copies._stream)
        torch.cuda._sleep(200_000_000)  # cycles, about 0.1 s
        sums.append(sent.sum(dtype=torch.int64))
        computed.record()
        finished.append((copied, computed))
    finished[0][1].synchronize()
    finished[1][0].synchronize()
    assert not finished[1][1].query(), "copied while the kernels before ran"
    assert not finished[5][0].query(), "only two are ahead"
    assert [int(total) for total in sums] == [i * 8 << 20 for i in range(12)]

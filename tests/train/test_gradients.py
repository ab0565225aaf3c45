"""The gradients of a step do not depend on the number of processes and micro-batches."""

import os
import subprocess
import sys
from pathlib import Path

import gradient_sums
import pytest
import torch
from gradient_sums import CASES, STEPS, make_method, step_gradients
from torch import nn

from clipzoo.methods.parts.raw import FrameMean
from clipzoo.models.clip import build_clip
from clipzoo.train.dealing import MicroBatch, micro_batches, split_settings

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone")
LABELS = gradient_sums.LABELS
SIZES = {case: (8,) if case.startswith("actionclip") else (8, 3) for case in CASES}
PATHS = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]


def assert_close(gradients: dict, expected: dict) -> None:
    """Every gradient within 1e-5 of its largest value.

    A shift of all texts hardly changes a softmax over classes: the gradient of the text tower's
    last bias is the small rest of a sum, and is within 1e-5 of a tenth of the largest of all.
    """
    assert gradients.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in gradients.items():
        limit = 1e-5 * float(expected[name].abs().max())
        if name == "text.tower.ln_final.bias":
            limit = max(limit, 1e-5 * largest / 10)
        torch.testing.assert_close(gradient, expected[name], rtol=0, atol=limit, msg=name)


@pytest.mark.parametrize(("case", "size"), [(case, size) for case in CASES for size in SIZES[case]])
def test_micro_batches_change_nothing(case, size):
    whole_loss, whole = step_gradients(case, size, micro_batch=size)
    assert all(float(gradient.abs().sum()) > 0 for gradient in whole.values())
    assert ("logit_scale" in whole) is (case != "vificlip-text")
    assert any(name.startswith("text.") for name in whole) is (case in gradient_sums.TRAINED_TEXT)
    for micro_batch in (1, 2):  # 8 or 3 micro-batches, and 4 or 2
        loss, gradients = step_gradients(case, size, micro_batch)
        assert loss == pytest.approx(whole_loss, rel=1e-5)
        assert_close(gradients, whole)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_change_nothing(processes, tmp_path):
    """Whole and uneven steps, some of which leave processes without a clip, in one torchrun."""
    subprocess.run(
        [*TORCHRUN, f"--nproc-per-node={processes}", gradient_sums.__file__, str(tmp_path)],
        check=True,
        capture_output=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(PATHS)},
    )
    found = torch.load(tmp_path / "gradients.pt")
    for case in CASES:
        for size, micro_batch in STEPS:
            loss, expected = step_gradients(case, size, micro_batch=size)
            *ranks, gradients = found[case, size, micro_batch]
            assert len(ranks) == processes
            assert [rank_loss for rank_loss, _ in ranks] == pytest.approx(
                [loss] * processes, rel=1e-5
            )
            assert all(sums == ranks[0][1] for _, sums in ranks), "the same on every rank"
            assert_close(gradients, expected)


def test_infonce_is_the_loss_of_the_whole_step():
    """It is not the mean over its parts, so that the tests above can fail."""
    whole, _ = step_gradients("infonce", 8, micro_batch=2)
    first_half, _ = step_gradients("infonce", 4, micro_batch=4)
    ce_whole, _ = step_gradients("ce", 8, micro_batch=2)
    assert whole == pytest.approx(plain_infonce(8), rel=1e-5)
    assert first_half == pytest.approx(plain_infonce(4), rel=1e-5)
    assert abs(whole - first_half) > 0.05
    assert abs(whole - ce_whole) > 0.05


def plain_infonce(size: int) -> float:
    """The loss by its formula: KL both ways, mean over all entries, times the batch."""
    method, text = make_method("infonce"), gradient_sums.class_text()
    labels = torch.tensor(LABELS[:size])
    with torch.no_grad():
        videos = nn.functional.normalize(method.encode(gradient_sums.clips(size)), dim=-1)
        logits = 10 * videos @ text.class_embeddings[0, labels].T
    targets = (10.0 * (labels[:, None] == labels)).softmax(dim=1)
    both = [(targets * (targets.log() - x.log_softmax(dim=1))).mean() for x in (logits, logits.T)]
    return size * float(sum(both)) / 2


@pytest.mark.parametrize("size", [1, 3, 4, 10])
@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("micro", [1, 2, 16])
def test_each_clip_counts_once_for_any_world_and_micro_batch(monkeypatch, size, world, micro):
    monkeypatch.setattr("clipzoo.train.dealing.world_size", lambda: world)
    seen, lengths = [], set()
    for rank in range(world):
        monkeypatch.setattr("clipzoo.train.dealing.rank", lambda r=rank: r)
        parts = micro_batches(size, micro)
        lengths.add(len(parts))
        assert all(0 < len(part.places) <= micro for part in parts)
        seen += [place for part in parts if part.counted for place in part.places]
    assert sorted(seen) == list(range(size))
    assert len(lengths) == 1, "every process takes part in every exchange"


def test_a_process_without_clips_computes_a_filler(monkeypatch):
    monkeypatch.setattr("clipzoo.train.dealing.world_size", lambda: 2)
    monkeypatch.setattr("clipzoo.train.dealing.rank", lambda: 1)
    assert micro_batches(5, 2) == [MicroBatch([1, 3], True), MicroBatch([0], False)]


@pytest.mark.parametrize("size", [1, 3, 4, 10])
@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("micro", [1, 2, 5, 16])
def test_mixed_groups_stay_whole_for_any_world_and_micro_batch(monkeypatch, size, world, micro):
    monkeypatch.setattr("clipzoo.train.dealing.world_size", lambda: world)
    whole = {tuple(range(size)[i : i + 2]) for i in range(0, size, 2)}
    seen, lengths = [], set()
    for rank in range(world):
        monkeypatch.setattr("clipzoo.train.dealing.rank", lambda r=rank: r)
        parts = micro_batches(size, micro, 2)
        lengths.add(len(parts))
        for part in parts:
            assert len(part.places) <= max(2, micro)
            if part.counted:
                seen += [tuple(p for p in part.places if p // 2 == g) for g in range(5)]
    assert sorted(filter(None, seen)) == sorted(whole)
    assert len(lengths) == 1, "every process takes part in every exchange"


@pytest.mark.parametrize(("case", "passes"), [("mixed", 1), ("interpolated-mixed", 2)])
def test_a_trained_text_tower_encodes_the_classes_once_a_step(case, passes):
    method, encoded = make_method(case), []
    class_text = method.class_text

    def count(text):
        encoded.append(text.num_classes)
        return class_text(text)

    method.class_text = count
    step_gradients(case, 8, micro_batch=2, method=method)  # 4 micro-batches
    assert encoded == [len(gradient_sums.CLASS_NAMES)] * passes


def test_a_second_gradient_is_that_at_weights_between_the_raw_ones_and_those_trained():
    """It is added as it is, times the weight, without the chain rule's 1 - alpha."""
    loss, gradients = step_gradients("interpolated", 8, micro_batch=4)
    first_loss, expected = step_gradients("ce", 8, micro_batch=4)
    method = make_method("ce")
    between = gradient_sums.interpolation(method)
    alpha = between.alpha(gradient_sums.STEP)
    assert 0.1 < alpha < 0.5
    weights = {n: p.detach().clone() for n, p in method.named_parameters()}
    with torch.no_grad():
        for name, raw in between.raw.items():
            method.get_parameter(name).copy_(alpha * raw + (1 - alpha) * weights[name])
    second_loss, second = step_gradients("ce", 8, micro_batch=4, method=method)
    assert loss == pytest.approx(first_loss + 0.5 * second_loss, rel=1e-5)
    assert_close(gradients, {name: expected[name] + 0.5 * second[name] for name in expected})
    assert abs(second_loss - first_loss) > 1e-3


def test_a_second_gradient_leaves_the_weights_as_they_were():
    method = make_method("interpolated")
    before = {n: p.detach().clone() for n, p in method.named_parameters()}
    between = gradient_sums.interpolation(method)
    with between.weights(0):
        assert not torch.equal(method.get_parameter("logit_scale"), before["logit_scale"])
    assert all(torch.equal(p, before[n]) for n, p in method.named_parameters())


def test_the_share_of_the_raw_clip_is_drawn_for_each_step():
    between = gradient_sums.interpolation(make_method("interpolated"))
    alphas = [between.alpha(step) for step in range(400)]
    assert alphas == [between.alpha(step) for step in range(400)]
    assert 0 <= min(alphas) < 0.01
    assert 0.59 < max(alphas) <= 0.6
    assert sum(alphas) / 400 == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize(("case", "size"), [("ce", 7), ("infonce", 7), ("mixed", 7)])
def test_a_method_is_told_which_clips_it_encodes_in_training(case, size):
    method, told = make_method(case), {}

    def encode(inputs, clips):
        assert len(inputs) == len(clips.places)
        assert (clips.seed, clips.step) == (gradient_sums.SEED, gradient_sums.STEP)
        told.update(zip(clips.places, inputs.float().mean(dim=(1, 2, 3, 4)).tolist(), strict=True))
        return method.encode(inputs)

    method.encode_training = encode
    step_gradients(case, size, 2, method=method)
    means = gradient_sums.clips(size).float().mean(dim=(1, 2, 3, 4)).tolist()
    assert sorted(told) == list(range(size))
    same = [told[place] == pytest.approx(means[place]) for place in range(size)]
    assert all(same) is (case != "mixed")


class _WithBatchNorm(FrameMean):
    """A comparing method with batch normalization and dropout in its tower."""

    compares_videos = True

    def __init__(self) -> None:
        super().__init__(build_clip("ViT-demo-16", gradient_sums.PX))
        self.visual = nn.Sequential(
            nn.Conv2d(3, 8, 32), nn.BatchNorm2d(8), nn.Flatten(), nn.Dropout(), nn.Linear(8, 128)
        )

    def loss(self, features, batch, text):
        texts = text.ensemble()[batch.texts]
        return ((features @ features.T - features @ texts.T) ** 2).mean()


def test_only_batch_normalization_records_the_split_of_a_step(monkeypatch):
    monkeypatch.setattr("clipzoo.train.dealing.world_size", lambda: 3)
    expected = {"runtime.micro_batch": 4, "runtime.processes": 3}
    assert split_settings(_WithBatchNorm(), 4) == expected
    assert split_settings(make_method("ce"), 4) == {}


def test_a_first_pass_leaves_no_trace():
    """Running means are updated once a micro-batch, and both passes drop the same units."""
    torch.manual_seed(0)
    method = _WithBatchNorm().train()
    expected = _WithBatchNorm().train()
    expected.load_state_dict(method.state_dict())
    torch.manual_seed(5)
    _, gradients = step_gradients("", 8, 4, method=method)
    torch.manual_seed(5)
    parts = gradient_sums.clips(8).split(4)
    features = torch.cat([expected.encode(part) for part in parts])
    labels = torch.tensor(LABELS)
    texts = gradient_sums.class_text().ensemble()[labels]
    ((features @ features.T - features @ texts.T) ** 2).mean().backward()
    for name, value in expected.named_buffers():
        if "running" in name:
            torch.testing.assert_close(method.get_buffer(name), value)
    assert method.get_submodule("visual.1").momentum == 0.1
    assert_close(gradients, {n: p.grad for n, p in expected.named_parameters()})

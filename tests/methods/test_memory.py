"""Estimates of memory, and what is chosen by them for `runtime`."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from clipzoo.config import load_params, replace
from clipzoo.methods import build
from clipzoo.methods.memory import estimates, start
from clipzoo.methods.memory.estimates import activation_bytes, meta_model, num_parameters
from clipzoo.methods.parts.method import Method
from clipzoo.models.activation import may_have_quick_gelu
from clipzoo.models.clip import build_clip
from clipzoo.report.recipes import load_recipe
from clipzoo.runtime import machine

ROOT = Path(__file__).parents[2]
TRAINED = ("train.precision", "train.val_precision")


def test_memory_is_estimated_from_the_model():
    def estimate(name: str) -> tuple[int, float]:
        _, params = load_recipe(name, ROOT)
        model = meta_model(params)
        return num_parameters(model), activation_bytes(model, params)

    parameters, clip8 = estimate("text4vis/k400-vitb32-f8")
    # OpenAI's ViT-B/32 vision tower, the head (6 blocks of width 512, 77 positions), logit_scale
    assert parameters == 87_849_216 + 6 * (12 * 512**2 + 13 * 512) + 77 * 512 + 1
    _, clip16 = estimate("text4vis/k400-vitb32-f16")
    assert clip16 == pytest.approx(2 * clip8, rel=0.01)
    # Text tower of InfoNCE: more parameters
    assert estimate("text4vis/ablation-infonce-trained")[0] > estimate("text4vis/k400-vitb16-f8")[0]


def saved_bytes(model: Method, clip: torch.Tensor) -> int:
    """What autograd really saves of a clip on the CPU, besides the parameters."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved: dict[int, torch.Tensor] = {}

    def save(tensor: torch.Tensor) -> torch.Tensor:
        if (place := tensor.untyped_storage().data_ptr()) not in weights:
            saved[place] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        model.encode(clip)
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


def test_the_estimate_has_the_activation_of_the_weights():
    estimated, real = {}, {}
    for activation in ("quickgelu", "gelu"):
        values = {"model.arch": "ViT-B/32", "model.weights": "mine.pt"}
        values |= {"model.activation": activation}
        params = replace(load_params(ROOT / "params.yaml"), values)
        estimated[activation] = activation_bytes(meta_model(params), params)
        about = params.model
        clip = build_clip(about.arch, about.input_px, quick_gelu=activation == "quickgelu")
        size = (3, about.input_px, about.input_px)
        frames = torch.zeros(1, about.num_segments, *size, dtype=torch.uint8)
        real[activation] = saved_bytes(build(params, clip).train(), frames)
        # Two copies of each block's input are those of attention on the meta device alone.
        assert real[activation] <= estimated[activation] <= 1.2 * real[activation]
    assert estimated["quickgelu"] - estimated["gelu"] == real["quickgelu"] - real["gelu"] > 0


@pytest.mark.parametrize(
    ("arch", "weights", "activation", "expected"),
    [
        ("ViT-B/32", "openai", "auto", True),
        ("ViT-B/32", "laion2b_s34b_b79k", "auto", False),
        ("ViT-B/32", "mine.pt", "auto", True),  # only its content tells
        ("ViT-B/32", "mine.pt", "gelu", False),
        ("ViT-B-32-quickgelu", "random", "auto", True),
        ("ViT-B/32", "random", "auto", False),
        ("ViT-demo-16", "demo", "auto", True),
    ],
)
def test_activation_by_the_parameters(arch, weights, activation, expected):
    assert may_have_quick_gelu(arch, weights, activation) == expected


def test_inference_holds_the_hidden_layer_of_one_block():
    _, params = load_recipe("text4vis/k400-vitb32-f8", ROOT)
    model = meta_model(params, training=False)
    assert not model.training
    # 4 copies of 8 frames x (49 patches + 1) x 4 x 768 float32 values
    assert estimates.inference_bytes(model, params) == 4 * (8 * 50 * 3072 * 4)


def test_clips_fit_beside_the_parameters():
    _, params = load_recipe("text4vis/k400-vitb32-f8", ROOT)
    model = meta_model(params)
    kept = 20 * num_parameters(model)  # float32: parameter, gradient, two moments, bucket
    free = (kept + 10.5 * activation_bytes(model, params)) / estimates.MARGIN
    assert estimates.fitting_clips(params, free, training=True) == 10
    assert estimates.fitting_clips(params, kept, training=True) == 0


def test_texts_that_a_sum_over_clips_trains_are_kept_beside_the_parameters():
    """One graph of all classes, whatever the number of clips."""
    _, params = load_recipe("text4vis/ablation-infonce-trained", ROOT)
    model = meta_model(params)
    parameters = estimates.PARAMETER_BYTES * num_parameters(model)
    assert estimates.kept_bytes(model, params) == parameters
    clip_and_text = activation_bytes(model, params)
    model.compares_videos = False
    text = clip_and_text - activation_bytes(model, params)
    assert text > 1e6
    assert estimates.kept_bytes(model, params) == parameters + estimates.NUM_CLASSES * text


def test_a_second_gradient_keeps_two_more_copies_of_the_weights():
    _, params = load_recipe("text4vis/k400-vitb32-f8", ROOT)
    model = meta_model(params)
    kept = estimates.kept_bytes(model, params)
    params = replace(params, {"train.interpolated_loss_weight": 0.5})
    assert estimates.kept_bytes(model, params) - kept == 8 * num_parameters(model)


@pytest.mark.parametrize(
    ("batch_size", "fitting", "processes", "expected"),
    [
        (256, 1000, 8, 32),  # all of the share
        (256, 100, 2, 64),  # 128 in two equal parts
        (256, 31, 8, 16),
        (100, 9, 8, 7),  # 13 in two parts of 7 and 6
        (256, 0, 8, 1),  # one may fit after all: the estimate has a margin
        (1, 50, 8, 1),
    ],
)
def test_a_step_is_cut_into_few_equal_parts(batch_size, fitting, processes, expected):
    params = replace(load_params(ROOT / "params.yaml"), {"train.batch_size": batch_size})
    chosen = estimates.choose_micro_batch(params, fitting, processes, training=True)
    assert chosen == expected
    of_inference = estimates.choose_micro_batch(params, fitting, processes, training=False)
    assert of_inference == min(max(fitting, 1), 32)


def numbers(changes: Mapping[str, object], *, training: bool) -> tuple[int, int, int]:
    params = replace(load_params(ROOT / "params.yaml"), changes)
    runtime = start.start_run(params, training=training)[0].runtime
    return runtime.processes, runtime.workers, runtime.micro_batch


@pytest.mark.parametrize("training", [True, False])
def test_a_cpu_has_fixed_numbers(capsys, training):
    cpu = {"runtime.device": "cpu"}
    assert numbers(cpu, training=training) == (1, 1, 4)
    line = "runtime: processes 1 (1 in all, cpu), workers 1, micro_batch 4\n"
    assert capsys.readouterr().out == line
    given = cpu | {"runtime.workers": 3, "runtime.micro_batch": 7, "runtime.processes": 5}
    assert numbers(given, training=training) == (1, 3, 7)


def test_a_gpu_is_filled(monkeypatch):
    monkeypatch.setattr(start, "start", lambda _: torch.device("cuda", 0))
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(12)))
    monkeypatch.setattr(estimates, "free_gpu_bytes", lambda _: 22e9)
    monkeypatch.setattr(estimates, "fitting_clips", lambda _, free, *, training: int(free / 1e9))
    monkeypatch.setattr(start, "gather_objects", lambda own: [own, 10])
    monkeypatch.setattr(start, "world_size", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert numbers({"train.batch_size": 38}, training=True) == (2, 6, 10)
    assert numbers({}, training=False) == (2, 6, 10), "of the smallest GPU"
    assert numbers({"runtime.micro_batch": 3}, training=True) == (2, 6, 3)


def test_a_method_of_sentences_needs_little_memory():
    """No gradient passes through the text tower: only the heads save what they need."""
    values = {
        "model.method": "bike_attributes",
        "model.inputs": "attributes",
        "attributes.datasets": ["demo_shapes"],
    }
    params = replace(load_params(ROOT / "params.yaml"), values)
    model = estimates.meta_model(params)
    each = estimates.activation_bytes(model, params)
    # Two MLPs: of each, its input, the hidden layer and the output of ReLU, at most.
    assert 0 < each <= 2 * 3 * 4 * 128 + 1000
    assert estimates.inference_bytes(model, params) > 0
    frozen = model.get_submodule("text").parameters()
    assert not any(parameter.requires_grad for parameter in frozen)


@pytest.mark.parametrize(
    ("changes", "training", "slow"),
    [
        ({"train.precision": "fp16"}, True, ["train.precision"]),
        ({"train.precision": "fp16"}, False, []),
        ({"train.precision": "fp16", "train.val_precision": "fp16"}, None, list(TRAINED)),
        ({"train.precision": "fp16", "train.epochs": 0}, None, []),
        ({"test.precision": "fp16", "train.precision": "fp16"}, False, ["test.precision"]),
        ({"test.precision": "bf16"}, False, []),
        ({}, None, []),
    ],
)
def test_fp16_on_a_cpu_is_slow(
    changes: dict[str, object],
    training: bool | None,
    slow: list[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    params = replace(load_params(ROOT / "params.yaml"), changes)
    text = start.slow_precisions(params, training=training)
    assert [key for key in (*TRAINED, "test.precision") if f"-S {key}=fp32" in text] == slow
    assert ("4 to 10 times slower" in text) == bool(slow)


def test_bf16_needs_more_than_avx2(monkeypatch: pytest.MonkeyPatch):
    params = replace(load_params(ROOT / "params.yaml"), {"test.precision": "bf16"})
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert "test.precision bf16" in start.slow_precisions(params, training=False)


@pytest.mark.parametrize("training", [True, False])
def test_a_stage_says_that_fp16_is_slow(training: bool, capsys: pytest.CaptureFixture[str]):
    values = {"train.precision": "fp16", "test.precision": "fp16", "runtime.device": "cpu"}
    start.start_run(replace(load_params(ROOT / "params.yaml"), values), training=training)
    out = capsys.readouterr().out
    assert ("train.precision fp16" in out, "test.precision fp16" in out) == (training, not training)

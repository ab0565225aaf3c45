"""Training steps on noise for benchmarks/gpu.py: as the authors take them, and ours."""

import gc
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from clipzoo.commands.trial_steps import new_trial
from clipzoo.config import Params, load_params, replace
from clipzoo.methods.memory.estimates import (
    CUDA_BYTES,
    PARAMETER_BYTES,
    activation_bytes,
    meta_clip,
    meta_model,
)
from clipzoo.models.clip import num_parameters

ROOT = Path(__file__).parents[1]
MEMORY_SHARE = 0.8
"""Of the free memory, for two models and one step's activations."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The device, and how large and how long the measurements are."""

    device: torch.device
    archs: tuple[str, ...] = ("ViT-L/14", "ViT-B/32", "ViT-B/16")
    input_px: int = 224
    num_segments: int = 8
    batch: int = 32
    """Clips in a step, or fewer where the memory is too small; a GPU's share in the papers."""
    rounds: int = 5
    round_seconds: float = 0.4
    matrix: int = 8192
    """Side of the matrices whose product is the measured ceiling."""
    search_limit: int = 512
    videos: int = 2
    """Rendered for the loader."""
    frames: int = 280
    """Of each of them."""
    load_seconds: float = 1.0
    """Of one measurement of the loader."""
    loaders: int = 0
    """Most threads and processes of the loader; 0 = one for each core."""
    stored_sizes: int = 2


def smoke(device: torch.device) -> Setting:
    """Every measurement at a size that takes a moment on a CPU: its numbers mean nothing."""
    return Setting(
        device=device,
        archs=("ViT-demo-16",),
        input_px=32,
        num_segments=2,
        batch=4,
        rounds=2,
        round_seconds=0.01,
        matrix=128,
        search_limit=4,
        videos=1,
        frames=16,
        load_seconds=0.05,
        loaders=1,
        stored_sizes=1,
    )


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to take a training step."""

    name: str
    changes: dict[str, Any] = field(default_factory=dict)
    """Of params.yaml, by key."""
    floats: bool = False
    """Normalized float32 frames from pageable memory; otherwise uint8 from pinned memory."""
    channels_last: bool = False


AUTHORS = Variant(
    name="as the authors: fp16, checkpointed, float32 frames",
    changes={"train.precision": "fp16", "train.activation_checkpointing": True},
    floats=True,
)
OURS = Variant(name="ours: bf16, uint8 frames", changes={"train.precision": "bf16"})
FUSED = Variant(name="+ fused AdamW", changes={**OURS.changes, "train.fused": True})
CHANNELS_LAST = Variant(name="+ channels-last", changes=FUSED.changes, channels_last=True)
COMPILED = Variant(name="+ torch.compile", changes={**FUSED.changes, "train.compile": True})


def params_for(setting: Setting, arch: str, variant: Variant) -> Params:
    """Text4Vis with its temporal Transformer, as in the recipes for Kinetics."""
    values: dict[str, Any] = {
        "model.arch": arch,
        "model.input_px": setting.input_px,
        "model.num_segments": setting.num_segments,
        "train.batch_size": setting.batch,
        "train.lr": 5e-5,
        "runtime.micro_batch": setting.batch,
        **variant.changes,
    }
    return replace(load_params(ROOT / "params.yaml"), values)


def forward_flops(params: Params) -> int:
    """Floating-point operations of one clip's forward pass, counted on the meta device."""
    model = meta_model(params)
    clip = meta_clip(model, params)
    with FlopCounterMode(display=False) as counter:
        model.encode(clip)
    return counter.get_total_flops()


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What `check` says of a GPU's memory."""

    fixed_bytes: float
    """Parameters, gradients and moments."""
    clip_bytes: float
    cuda_bytes: float = CUDA_BYTES

    def clips(self, memory: float) -> int:
        """How many fit."""
        return math.floor((memory - self.cuda_bytes - self.fixed_bytes) / self.clip_bytes)


def estimate(params: Params) -> Estimate:
    """The estimate of `clipzoo check`."""
    model = meta_model(params)
    return Estimate(
        fixed_bytes=PARAMETER_BYTES * num_parameters(model),
        clip_bytes=activation_bytes(model, params),
    )


def batch_that_fits(setting: Setting, arch: str, variant: Variant = OURS) -> int:
    """The setting's batch, or the largest power of two that fits with a second model."""
    if setting.device.type != "cuda":
        return setting.batch
    free, _ = torch.cuda.mem_get_info(setting.device)
    guess = estimate(params_for(setting, arch, variant))
    clips = max(guess.clips(MEMORY_SHARE * free - guess.fixed_bytes), 1)
    return min(setting.batch, 2 ** int(math.log2(clips)))


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free_memory(device: torch.device) -> None:
    """Give back what no tensor uses any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


class Stepper:
    """Takes steps of one variant, each on the same clips in the host's memory."""

    def __init__(self, setting: Setting, arch: str, variant: Variant, batch: int) -> None:
        self.device = setting.device
        self.batch = batch
        self.params = params_for(setting, arch, variant)
        self.trial = new_trial(self.params, self.device)
        clips = self.trial.inputs.example(batch, torch.device("cpu"))  # uint8 [b, T, 3, S, S]
        if variant.floats:
            # The authors' loaders normalize: the model takes the frames as they are.
            method = cast(Any, self.trial.method)
            method.encode = method.video_embeddings
            self.clips: Tensor = clips.float().sub_(127.5).div_(64)
        else:
            self.clips = clips.pin_memory() if self.device.type == "cuda" else clips
        if variant.channels_last:
            cast(Any, self.trial.method).to(memory_format=torch.channels_last)

    def seconds(self, steps: int) -> float:
        """Time of a step, the mean of `steps`."""
        synchronize(self.device)
        began = time.perf_counter()
        for _ in range(steps):
            self.trial.step_of(self.clips)
        synchronize(self.device)
        return (time.perf_counter() - began) / steps

    def warm_up(self) -> float:
        """The first steps, which compile, choose kernels and find the scale; their seconds."""
        taken = 3 * self.seconds(3)
        for _ in range(20):  # a step whose gradients overflow is cheaper: its update is skipped
            scale = self.trial.scaler.get_scale()
            self.seconds(1)
            if self.trial.scaler.get_scale() >= scale:
                break
        return taken

"""Training steps on noise for benchmarks/gpu.py: as the authors take them, and ours."""

import math
import time
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from gpu_authors import as_the_authors
from gpu_setting import ROOT, Setting, synchronize
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from clipzoo.commands.trial_steps import new_trial
from clipzoo.config import Params, replace
from clipzoo.methods.memory.estimates import (
    CUDA_BYTES,
    PARAMETER_BYTES,
    activation_bytes,
    meta_clip,
    meta_model,
)
from clipzoo.models.clip import num_parameters
from clipzoo.report.recipes import load_recipe

RECIPES = {
    "ViT-L/14": "text4vis/k400-vitl14-f8",
    "ViT-B/32": "text4vis/k400-vitb32-f8",
    "ViT-B/16": "text4vis/k400-vitb16-f8",
}
"""Architecture -> recipe; tiny architectures take the first one."""
MEMORY_SHARE = 0.8
"""Of the free memory, for two models and one step's activations."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to take a training step."""

    name: str
    changes: dict[str, Any] = field(default_factory=dict)
    """Of the recipe, by key."""
    authors: bool = False
    """What the authors' code does besides: see gpu_authors.py."""
    channels_last: bool = False


AUTHORS = Variant(
    name="the authors': fp16, AdamW not fused, nested checkpoints, float32 frames",
    changes={"train.fused": False},
    authors=True,
)
UNFUSED = Variant(
    name="the recipe without fused AdamW: fp16, uint8 frames", changes={"train.fused": False}
)
RECIPE = Variant(name="the recipe: fp16, fused AdamW")
BF16 = Variant(name="the recipe in bf16", changes={"train.precision": "bf16"})
CHANNELS_LAST = Variant(
    name="the recipe in bf16, channels-last", changes=BF16.changes, channels_last=True
)
COMPILED = Variant(
    name="the recipe in bf16, torch.compile", changes={**BF16.changes, "train.compile": True}
)


def params_for(setting: Setting, arch: str, variant: Variant) -> Params:
    """The recipe of Text4Vis for an architecture on Kinetics-400, at the sizes of `setting`."""
    values: dict[str, Any] = {
        "model.arch": arch,
        "model.input_px": setting.input_px,
        "model.num_segments": setting.num_segments,
        "train.batch_size": setting.batch,
        "runtime.micro_batch": setting.batch,
        **variant.changes,
    }
    name = RECIPES.get(arch, RECIPES["ViT-L/14"])
    return replace(load_recipe(name, ROOT)[1], values)


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


def batch_that_fits(setting: Setting, arch: str, variant: Variant = RECIPE) -> int:
    """The setting's batch, or the largest power of two that fits with a second model."""
    if setting.device.type != "cuda":
        return setting.batch
    free, _ = torch.cuda.mem_get_info(setting.device)
    guess = estimate(params_for(setting, arch, variant))
    clips = max(guess.clips(MEMORY_SHARE * free - guess.fixed_bytes), 1)
    return min(setting.batch, 2 ** int(math.log2(clips)))


class Stepper:
    """Takes steps of one variant, each on the same clips in the host's memory."""

    def __init__(self, setting: Setting, arch: str, variant: Variant, batch: int) -> None:
        self.device = setting.device
        self.batch = batch
        self.params = params_for(setting, arch, variant)
        self.trial = new_trial(self.params, self.device)
        clips = self.trial.inputs.example(batch, torch.device("cpu"))  # uint8 [b, T, 3, S, S]
        self._reads_losses = variant.authors
        if variant.authors:
            self.clips: Tensor = as_the_authors(self.trial, clips)
        else:
            self.clips = clips.pin_memory() if self.device.type == "cuda" else clips
        if variant.channels_last:
            cast(Any, self.trial.method).to(memory_format=torch.channels_last)

    def seconds(self, steps: int) -> float:
        """Time of a step, the mean of `steps`."""
        synchronize(self.device)
        began = time.perf_counter()
        for _ in range(steps):
            loss = self.trial.step_of(self.clips)
            if self._reads_losses:
                loss.item()
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

"""Training steps on noise, and the largest micro-batch that a GPU can take in one.

Such a step costs what a real one costs, and needs neither videos nor weights.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from clipzoo import methods
from clipzoo.clips.inputs import Inputs
from clipzoo.config import Params
from clipzoo.methods.memory.estimates import NUM_CLASSES
from clipzoo.methods.parts.method import Method
from clipzoo.models.activation import random_towers
from clipzoo.models.architectures import context_length, embed_dim
from clipzoo.models.text import ClassText
from clipzoo.train.attention import unbind_projections
from clipzoo.train.compilation import compile_tower
from clipzoo.train.dealing import MicroBatch, micro_batches
from clipzoo.train.gradients import StepGradients
from clipzoo.train.optim import make_optimizer
from clipzoo.train.setup import step_gradients

MEMORY_SHARE = 0.95
"""What the search may fill of a GPU's memory: nccl's buffers and fragments need the rest."""


@dataclass(kw_only=True)
class Trial:
    """A model with random weights, and all that an optimizer step of train/loop.py needs."""

    method: Method
    inputs: Inputs
    gradients: StepGradients
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    grad_clip: float

    def step(self, labels: Tensor, parts: Sequence[MicroBatch], inputs: Iterable[Tensor]) -> Tensor:
        """One optimizer step, whose loss it returns; arguments as for `StepGradients.add`."""
        self.optimizer.zero_grad(set_to_none=True)
        templates = torch.zeros_like(labels) if self.method.draws_templates else None  # of one
        loss = self.gradients.add(labels, parts, inputs, templates)
        if self.grad_clip:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.method.parameters(), self.grad_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss

    def step_of(self, clips: Tensor) -> Tensor:
        """One optimizer step of uint8 frames [b, T, 3, S, S], all in one micro-batch; its loss."""
        labels = torch.arange(len(clips)) % NUM_CLASSES  # [b]
        return self.step(labels, micro_batches(len(clips), len(clips)), [clips])


def new_trial(params: Params, device: torch.device) -> Trial:
    """Build the model of a run on `device`, as training does, with random weights and texts.

    Its activation is that of the run's weights.

    Raises:
        ConfigError: an unknown architecture, or an option that its tower does not support.
        torch.OutOfMemoryError: the model alone is too large.
    """
    settings, arch = params.train, params.model.arch
    with device:
        method = methods.build(params, random_towers(params, device)).to(device).train()
    if settings.activation_checkpointing:
        method.set_grad_checkpointing()
    unbind_projections(method)
    if settings.compile:
        compile_tower(method.visual)
    optimizer = make_optimizer(method, settings)
    scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16")
    embeddings = torch.randn(1, NUM_CLASSES, embed_dim(arch), device=device)  # [1, K, D]
    text = ClassText(
        token_ids=torch.ones(
            1, NUM_CLASSES, context_length(arch), dtype=torch.int64, device=device
        ),  # [P, K, L]
        class_embeddings=functional.normalize(embeddings, dim=-1),
        class_names=[str(label) for label in range(NUM_CLASSES)],
    )
    # Any weights of the same sizes do for a second gradient.
    second = settings.interpolated_loss_weight > 0
    raw = {n: p.detach().clone() for n, p in method.named_parameters() if second}
    gradients = step_gradients(params, method, text, device, scaler, raw)
    inputs = method.open_inputs(params, params.data.dataset, text)
    return Trial(
        method=method,
        inputs=inputs,
        gradients=gradients,
        optimizer=optimizer,
        scaler=scaler,
        grad_clip=settings.grad_clip,
    )


def largest_micro_batch(fits: Callable[[int], bool], limit: int) -> int:
    """The largest size up to `limit` that fits, found by doubling and then by bisection.

    Example: 11 of at most 32 fit: tries 1, 2, 4, 8, 16 (too large), 12 (too large), 10, 11.

    Args:
        fits: whether a size fits; if one does, so do all smaller ones.
        limit: 1 or more.

    Returns:
        0 if not even 1 fits.
    """
    largest, size = 0, 1
    while size > largest and fits(size):
        largest, size = size, min(2 * size, limit)
    while size - largest > 1:
        middle = (largest + size) // 2
        if fits(middle):
            largest = middle
        else:
            size = middle
    return largest


def step_fits(trial: Trial) -> Callable[[int], bool]:
    """Whether a step of `count` clips, taken for real, runs out of the GPU's memory."""

    def fits(count: int) -> bool:
        try:
            trial.step_of(trial.inputs.example(count, trial.gradients.device))
            enough = True
        except torch.OutOfMemoryError:
            enough = False
        # Not inside `except`: the error holds the frames of the step, and these its tensors.
        trial.optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        return enough

    return fits


def largest_on_gpu(params: Params, limit: int, device: torch.device) -> int:
    """The largest micro-batch of a run, up to `limit`, that fits a GPU; 0 if not even one clip.

    Takes real steps, a few seconds each, and leaves 5 % of the memory free.
    """
    torch.cuda.set_per_process_memory_fraction(MEMORY_SHARE, device)
    try:
        return largest_micro_batch(step_fits(new_trial(params, device)), limit)
    except torch.OutOfMemoryError:  # of the model alone
        return 0
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
        torch.cuda.empty_cache()

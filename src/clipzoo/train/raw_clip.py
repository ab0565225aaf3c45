"""The raw CLIP in training: weights between its own and the trained ones.

    patching       theta <- share * raw + (1 - share) * theta, once, in the model that is saved
                   (Ilharco et al., arXiv 2208.05592; MoTE and Open-VCLIP test such models)
    interpolation  each step adds the gradient of weight * loss at
                   theta_i = alpha * raw + (1 - alpha) * theta,  alpha ~ U(0, share)
                   (Open-VCLIP, Weng et al., arXiv 2302.00624)

Both are about the vision tower and logit_scale. Parameters that the raw CLIP does not have stay as
they are trained (temporal modules).

As in Open-VCLIP's code (tools/train_net.py, LINEAR_CONNECT_CLIMB), the gradient at theta_i is added
to that at theta as it is, without the factor 1 - alpha of the chain rule. Deviation: there every
process draws an alpha of its own; here the step does, so that nothing depends on processes.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from clipzoo.models.clip import load_clip

PREFIXES = ("visual.", "logit_scale")
_INTERPOLATION = 2
"""Fourth number of the seed of a step's alpha, so that no other draw has the same seed."""


def raw_tensors(device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """The vision tower and logit_scale of models/clip.safetensors, float32 by name.

    Raises:
        WeightsError: the file is missing or damaged.
    """
    state = load_clip()[0].state_dict()
    return {name: value.to(device) for name, value in state.items() if name.startswith(PREFIXES)}


@torch.no_grad()
def patch(model: nn.Module, raw: Mapping[str, Tensor], share: float) -> None:
    """Replace weights of a model by share * raw + (1 - share) * its own, in place.

    Args:
        model: on any device.
        raw: from `raw_tensors`, on the same device.
        share: of the raw CLIP, 0 to 1.
    """
    for name, value in model.state_dict().items():
        if name in raw and value.is_floating_point():
            value.lerp_(raw[name], share)


@dataclass(frozen=True, kw_only=True)
class Interpolation:
    """The second gradient of each step, at weights between the raw CLIP's and the trained ones."""

    model: nn.Module
    raw: Mapping[str, Tensor]
    """The raw CLIP (`raw_tensors`), on the device of the model."""
    loss_weight: float
    """Factor of the loss at these weights (0.5 in Open-VCLIP)."""
    share: float
    """Largest share of the raw CLIP (0.6 in Open-VCLIP)."""
    seed: int
    """The seed of the run."""

    def alpha(self, step: int) -> float:
        """The share of the raw CLIP in a step, from 0: a function of the seed and the step."""
        rng = np.random.default_rng([self.seed, step, 0, _INTERPOLATION])
        return float(rng.uniform(0, self.share))

    @contextmanager
    def weights(self, step: int) -> Iterator[None]:
        """The context in which the model has the weights theta_i; they are restored after it."""
        named = dict(self.model.named_parameters())
        mixed = [(named[name], raw) for name, raw in self.raw.items() if name in named]
        alpha = self.alpha(step)
        with torch.no_grad():
            trained = [parameter.clone() for parameter, _ in mixed]
            for parameter, raw in mixed:
                parameter.lerp_(raw, alpha)
        try:
            yield
        finally:
            with torch.no_grad():
                for (parameter, _), value in zip(mixed, trained, strict=True):
                    parameter.copy_(value)

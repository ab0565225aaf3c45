"""Golden inputs: parameters are functions of their name, inputs are functions of a seed."""

import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clipzoo.models.text import ClassText

Case = dict[str, Any]
"""A golden case, or the outputs computed for one."""


def noise(seed: int, *shape: int) -> Tensor:
    """Standard normal values [shape], float32, of numpy's legacy generator."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype("float32"))


def parameter(name: str, shape: Sequence[int]) -> Tensor:
    """The golden value of a parameter or buffer, a function of its name and shape."""
    if name.endswith("num_batches_tracked"):
        return torch.zeros(tuple(shape), dtype=torch.int64)
    if name.endswith("logit_scale"):
        return torch.full(tuple(shape), math.log(100))
    values = noise(zlib.crc32(name.encode()), *shape)
    if name.endswith("running_var"):
        return values.abs() + 0.5
    if len(shape) >= 2:
        return values / math.sqrt(math.prod(shape[1:]))
    return 1 + 0.1 * values if name.endswith("weight") else 0.1 * values


def fill(module: nn.Module, prefix: str = "") -> None:
    """Give every parameter and buffer of `module` its golden value."""
    state = module.state_dict()
    module.load_state_dict({k: parameter(prefix + k, v.shape) for k, v in state.items()})


def draw_labels(seed: int, num_videos: int, num_classes: int) -> Tensor:
    """Class ids [N] int64, uniform."""
    return torch.from_numpy(np.random.RandomState(seed).randint(0, num_classes, num_videos))


def class_text(embeddings: Tensor) -> ClassText:
    """The class text of embeddings [P, K, D]; its names and token ids are placeholders."""
    templates, classes, _ = embeddings.shape
    return ClassText(
        token_ids=torch.zeros(templates, classes, 1, dtype=torch.int64),  # [P, K, 1]
        class_embeddings=embeddings,
        class_names=[str(label) for label in range(classes)],
    )

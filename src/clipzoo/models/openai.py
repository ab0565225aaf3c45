"""Recognize OpenAI's weights, whose towers have QuickGELU, by what is in a file.

OpenAI's code keeps the weights of convolutions, linear layers, attention and projections in float16
and the rest (layer and batch norms, embeddings, logit_scale) in float32. The trace survives in
every copy that keeps float32 tensors as they are, since float16 values are exact in float32: there
the weights can be written as float16 without a change, and the rest cannot. Weights that were
trained in float32, as LAION's were, cannot be written so. In an all-float16 copy both parts can, so
it shows nothing. Digests of single tensors would, but none are published.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from clipzoo.models import archives

FLOAT32_PARTS = re.compile(r"(^|\.)(ln_\w+|bn\d+|downsample\.1)\.|embedding|logit_scale")
"""Names of tensors that OpenAI's code keeps in float32; downsample.1 is a batch norm."""


def is_archive(content: Mapping[str, Any]) -> bool:
    """Whether a file's content holds the sizes that only OpenAI's archives store as parameters."""
    return archives.NOT_WEIGHTS[0] in content


def has_mixed_storage(tensors: Mapping[str, Tensor]) -> bool:
    """Whether tensors, as `archives.stored_tensors` returns them, were once stored as OpenAI's code
    stores them: weights in float16, the rest not."""
    floats = {name: value for name, value in tensors.items() if value.is_floating_point()}
    rest = [value for name, value in floats.items() if FLOAT32_PARTS.search(name)]
    weights = [value for name, value in floats.items() if not FLOAT32_PARTS.search(name)]
    if not weights or not rest or not all(map(_is_exact_in_float16, weights)):
        return False
    if {value.dtype for value in weights} == {torch.float16}:
        return any(value.dtype != torch.float16 for value in rest)
    return not all(map(_is_exact_in_float16, rest))


def _is_exact_in_float16(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float16 or torch.equal(tensor.half().to(tensor.dtype), tensor)

"""The size of a model and of its activations, by the meta device: nothing is computed."""

import torch
from torch import Tensor

from clipzoo.config import Params
from clipzoo.methods import build
from clipzoo.methods.parts.method import Method
from clipzoo.models.clip import build_clip, input_size, num_parameters

__all__ = ["activation_bytes", "meta_model", "num_parameters"]

HALF = 0.5
"""Under autocast nearly all tensors that autograd saves have 16 bits instead of 32."""


def meta_model(params: Params) -> Method:
    """The model of a run without weights, on the meta device.

    Raises:
        ConfigError: an unknown architecture, or an option that its tower does not support.
    """
    with torch.device("meta"):
        clip = build_clip(params.model.arch, params.model.input_px, device="meta")
        model = build(params, clip)
    if params.train.activation_checkpointing:
        model.set_grad_checkpointing()
    return model.train()


def activation_bytes(model: Method, params: Params) -> float:
    """Bytes that autograd saves for the backward pass of one clip.

    A ViT's attention weights are excluded: the fused kernels of a GPU do not store them.
    """
    side = input_size(params.model.arch, params.model.input_px)
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    positions = getattr(model.visual, "positional_embedding", None)
    tokens = -1 if positions is None else len(positions)
    saved_bytes: dict[int, int] = {}

    def save(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        scores = tensor.dim() >= 3 and tensor.shape[-2:] == (tokens, tokens)
        if storage._cdata not in weights and not scores:
            saved_bytes[storage._cdata] = storage.nbytes()
            alive.append(tensor)  # the address of a freed storage could be used again
        return tensor

    alive: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        shape = (1, params.model.num_segments, 3, side, side)
        frames = torch.empty(shape, dtype=torch.uint8, device="meta")  # [1, T, 3, S, S]
        model.encode(frames)
    return sum(saved_bytes.values()) * (1.0 if params.train.precision == "fp32" else HALF)

"""How much memory a run needs on a GPU, and the micro-batch that fits.

The model is built on the meta device, where nothing is computed, and the sizes of its tensors are
added up. Training keeps parameters, gradients, Adam's moments and what autograd saves of each clip;
inference keeps the parameters and the few largest tensors of one layer.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from clipzoo.config import Params
from clipzoo.data.records import read_labels
from clipzoo.methods import build
from clipzoo.methods.parts.method import Method, StepClips
from clipzoo.models.activation import random_towers
from clipzoo.models.architectures import context_length, embed_dim
from clipzoo.models.clip import num_parameters
from clipzoo.models.text import ClassText
from clipzoo.paths import LISTS_DIR

CUDA_BYTES = 1.5e9
"""CUDA itself, its libraries and nccl's buffers."""
PARAMETER_BYTES = 4 * (1 + 1 + 2 + 1)
"""float32 parameter, gradient (in DDP's bucket) and two moments of Adam; and as much as one of them
for autocast's 16-bit copies in the passes, and for AdamW's temporary tensors after them."""
INTERPOLATION_BYTES = 4 * 2
"""The raw CLIP's weight and a copy of the trained one, for `train.interpolated_loss_weight`."""
HALF = 0.5
"""Under autocast nearly all tensors that autograd saves have 16 bits instead of 32."""
COPIES = 4
"""Tensors like the largest, the hidden layer of an MLP, that a forward pass holds at once: input,
output and what the activation function makes in between."""
MARGIN = 0.9
"""Share of the memory that the choice uses: estimates are not exact, and memory gets fragmented."""
NUM_CLASSES = 400
"""Classes of a dataset whose list has not been made yet."""
CPU_MICRO_BATCH = 4
"""On a CPU more at once is no faster, and takes memory."""
MAX_INFERENCE = 32
"""Clips at once in inference: more are no faster on a GPU, and fewer batches are shared out less
evenly."""


def meta_model(params: Params, *, training: bool = True) -> Method:
    """The model of a run without weights, on the meta device, in training or evaluation mode.

    Its activation is that of the run's weights: OpenAI's QuickGELU saves a fifth more than GELU.

    Raises:
        ConfigError: an unknown architecture, or an option that its tower does not support.
    """
    device = torch.device("meta")
    with device:
        model = build(params, random_towers(params, device))
    if training and params.train.activation_checkpointing:
        model.set_grad_checkpointing()
    return model.train(training)


def meta_clip(model: Method, params: Params) -> Tensor:
    """One clip without numbers, [1, ...]."""
    inputs = model.open_inputs(params, params.data.dataset, _meta_text(params))
    return inputs.example(1, torch.device("meta"))


def activation_bytes(model: Method, params: Params) -> float:
    """Bytes that autograd saves for the backward pass of one clip, and of its text if a loss that
    compares videos trains it."""

    def encode() -> None:
        clips = StepClips(seed=params.seed, step=0, places=[0])
        model.encode_training(meta_clip(model, params), clips)
        if model.compares_videos:
            model.class_text(_meta_text(params))

    return _saved_bytes(model, params, encode)


def kept_bytes(model: Method, params: Params) -> float:
    """Bytes of a training step that do not depend on the number of clips encoded at once.

    They are those of the parameters, and of the texts of all classes where a sum over single clips
    trains them: one graph of them all is kept until the last clips are encoded.
    """
    copies = INTERPOLATION_BYTES if params.train.interpolated_loss_weight else 0
    kept = (PARAMETER_BYTES + copies) * num_parameters(model)
    if model.compares_videos:
        return kept
    path = LISTS_DIR / params.data.dataset / "labels.csv"
    classes = len(read_labels(path)) if path.is_file() else NUM_CLASSES
    text = _meta_text(params)
    return kept + classes * _saved_bytes(model, params, lambda: model.class_text(text))


def _saved_bytes(model: Method, params: Params, compute: Callable[[], object]) -> float:
    """Bytes that autograd saves in a forward pass.

    A ViT's attention weights are excluded: the fused kernels of a GPU do not store them.
    """
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
        compute()
    return sum(saved_bytes.values()) * (1.0 if params.train.precision == "fp32" else HALF)


def _meta_text(params: Params) -> ClassText:
    """One class of one template, on the meta device."""
    arch = params.model.arch
    ids = torch.zeros(1, 1, context_length(arch), dtype=torch.int64, device="meta")  # [P, K, L]
    embeddings = torch.empty(1, 1, embed_dim(arch), device="meta")  # [P, K, D]
    return ClassText(token_ids=ids, class_embeddings=embeddings, class_names=["one"])


@torch.no_grad()
def inference_bytes(model: Method, params: Params) -> float:
    """Bytes that the forward pass of one clip needs at most at one time, in float32."""
    largest = 0

    def note(module: nn.Module, inputs: object, output: object) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.numel() * 4)

    for module in model.modules():
        module.register_forward_hook(note)
    model.encode(meta_clip(model, params))
    return COPIES * largest


def fitting_clips(params: Params, free_bytes: float, *, training: bool) -> int:
    """The most clips that a process can encode at once in `free_bytes` of a GPU; 0 = not even one.

    Args:
        free_bytes: the memory that CUDA itself leaves.
        training: with gradients, or inference alone.
    """
    model = meta_model(params, training=training)
    if training:
        each, kept = activation_bytes(model, params), kept_bytes(model, params)
    else:
        each, kept = inference_bytes(model, params), 4 * num_parameters(model)
    return max(0, int((MARGIN * free_bytes - kept) / each))


def choose_micro_batch(params: Params, most: int, processes: int, *, training: bool) -> int:
    """The micro-batch for `runtime.micro_batch: 0` on a GPU.

    A step is cut into as few parts as possible, of about equal size. Example: of a step of 256 on 2
    processes each has 128 clips; if 100 fit, they are encoded in two parts of 64.

    Args:
        most: clips that fit.
        processes: the processes that share a step of training.
        training: whether for `train`, of whose step each process gets a share.
    """
    most = max(1, most)
    if not training:
        return min(most, MAX_INFERENCE)
    share = math.ceil(params.train.batch_size / processes)
    return math.ceil(share / math.ceil(share / most))


def free_gpu_bytes(device: torch.device | int) -> float:
    """Memory of a GPU for a model.

    On a GPU that does nothing else this is always the same number, so that two runs choose alike.
    """
    free, total = torch.cuda.mem_get_info(device)
    return min(free, total - CUDA_BYTES)

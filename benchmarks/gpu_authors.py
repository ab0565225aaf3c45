"""A training step as the code of Text4Vis takes it: clip/model.py at commit f04cdb2, train.py at
9f91ab7.

It differs from ours in

- checkpoints in checkpoints: each block of the vision tower is one, and so are its attention and
  its MLP inside it, so that the backward pass computes these two twice more;
- frames that the loader has normalized, float32 in pageable memory, on the stream of the kernels;
- `loss.item()` after every step, which waits for the GPU;
- nn.MultiheadAttention's own backward pass;
- AdamW, which is not fused (`train.fused`), under fp16 with the same scaler.

The layers are open_clip's for both, as are the operators that this version of PyTorch chooses for
them: the authors' layers compute the same, and the attention of their time did so slowly.
"""

import warnings
from functools import partial
from typing import Any, cast

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clipzoo.commands.trial_steps import Trial
from clipzoo.train.attention import Attention


def as_the_authors(trial: Trial, clips: Tensor) -> Tensor:
    """Make a trial take the authors' steps.

    Args:
        clips: frames, uint8 [b, T, 3, S, S].

    Returns:
        the clips as their loader gives them, float32 of the same shape.
    """
    method = cast(Any, trial.method)
    method.encode = method.video_embeddings  # without `normalize`
    checkpoint_twice(method.visual)
    trial.gradients.copies = None
    for module in method.modules():
        if isinstance(module, Attention):
            cast(Any, module).__class__ = nn.MultiheadAttention
    return clips.float().sub_(127.5).div_(64)


def checkpoint_twice(visual: nn.Module) -> None:
    """Nest the checkpoints of a ViT as the authors do; by autograd functions, as PyTorch did then.

    Each attention and each MLP is computed three times in a step: in the forward pass, when the
    checkpoint of its block is computed again, and when its own is.
    """
    # Inside a checkpoint no tensor requires gradients, of which the checkpoints in it warn.
    warnings.filterwarnings("ignore", "None of the inputs have requires_grad=True")
    for block in cast(Any, visual).transformer.resblocks:
        block.forward = partial(_checkpointed_block, block)


def _checkpointed_block(block: Any, x: Tensor, attn_mask: None = None) -> Tensor:
    assert attn_mask is None, "a vision tower has no mask"
    return cast(Tensor, checkpoint(partial(_block, block), x, use_reentrant=True))


def _block(block: Any, x: Tensor) -> Tensor:
    """Tokens [N, L, D] -> [N, L, D]."""
    x = x + checkpoint(block.attention, block.ln_1(x), use_reentrant=True)
    return x + checkpoint(block.mlp, block.ln_2(x), use_reentrant=True)

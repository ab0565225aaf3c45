"""Heads: frame embeddings -> video embedding.

Follows the authors' code of Text4Vis (arXiv 2207.01297), with its parameter names, so that released
checkpoints load unchanged. Deviations: a number of heads that does not divide the embedding size is
rounded down to one that does, and there are never fewer frame positions than frames.
"""

from collections import OrderedDict
from functools import partial
from typing import Any

from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn

HEAD_WIDTH = 64
"""Width of one attention head in every OpenAI tower and in the temporal Transformer."""
POSITIONS = 77
"""Frame positions, as in the released heads, if the text tower has no context length."""


class TemporalHead(nn.Module):
    """Frame embeddings [B, T, D] -> video embeddings [B, D], in the same dtype.

    `Transf`: a Transformer over the frames with learned frame positions, added to the frame
    embeddings, then the mean over frames. `None`: the mean, without parameters.

    Args:
        head: `Transf` or `None`.
        width: D.
        heads: attention heads; rounded down to a divisor of D.
        layers: Transformer blocks.
        positions: largest number of frames.
    """

    def __init__(self, head: str, *, width: int, heads: int, layers: int, positions: int) -> None:
        super().__init__()
        self.head = head
        if head == "Transf":
            heads = rounded_heads(width, heads)
            self.frame_position_embeddings = nn.Embedding(positions, width)
            blocks = [head_block(width, heads) for _ in range(layers)]
            self.transformer = nn.Sequential(OrderedDict(resblocks=nn.Sequential(*blocks)))
            self.apply(initialize)

    def forward(self, frames: Tensor) -> Tensor:
        return self.frames(frames).mean(dim=1)  # [B, T, D] -> [B, D]

    def frames(self, frames: Tensor) -> Tensor:
        """The frame embeddings [B, T, D] whose mean is the video embedding."""
        if self.head == "None":
            return frames
        x = frames + self.frame_position_embeddings.weight[: frames.shape[1]]  # + [T, D]
        return self.transformer(x).type(frames.dtype) + frames  # [B, T, D]


def rounded_heads(width: int, heads: int) -> int:
    """The largest number of attention heads, at most `heads`, that divides the width."""
    return next(h for h in range(max(heads, 1), 0, -1) if width % h == 0)


def head_block(width: int, heads: int) -> ResidualAttentionBlock:
    """Pre-norm Transformer block on [B, T, D]; eps is 1e-12 as in the reference."""
    norm = partial(nn.LayerNorm, eps=1e-12)
    return ResidualAttentionBlock(width, heads, act_layer=QuickGELU, norm_layer=norm)


def initialize(module: nn.Module) -> None:
    """N(0, 0.02) and zero biases; the packed attention projection keeps PyTorch's Xavier init."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def head_sizes(towers: Any, num_segments: int) -> dict[str, int]:
    """The `width`, `heads` and `positions` of the authors' heads for any open_clip model."""
    text: Any = getattr(towers, "text", towers)  # CustomTextCLIP and CoCa have a module
    projection = getattr(text, "text_projection", None)
    if isinstance(projection, nn.Linear):
        width = projection.out_features
    elif projection is not None:
        width = projection.shape[1]
    else:
        width = getattr(text, "output_dim", None) or towers.visual.output_dim
    norm = getattr(text, "ln_final", None)
    text_width = norm.normalized_shape[0] if norm is not None else width
    positions = max(getattr(towers, "context_length", None) or POSITIONS, num_segments)
    return {"width": width, "heads": text_width // HEAD_WIDTH, "positions": positions}

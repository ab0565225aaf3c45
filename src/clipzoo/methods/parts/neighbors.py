"""Attention of a vision tower that sees the frames before and after, without new parameters.

Source: Open-VCLIP (arXiv 2302.00624), section 3.1; in the authors' code (wengzejia1/Open-VCLIP,
slowfast/models/torch_utils/functional.py) it is `expand_temporal_view`.
"""

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from clipzoo.config import ConfigError


def with_neighbors(visual: nn.Module, num_segments: int) -> nn.Module:
    """Let every block of a ViT attend to the frames before and after, in place.

    Args:
        visual: a vision tower of open_clip.
        num_segments: T, frames of a clip; the tower then takes frames [BT, 3, H, W] of whole clips.

    Returns:
        `visual`, with the same parameters under the same names.

    Raises:
        ConfigError: the tower is not a ViT of plain blocks.
    """
    if not isinstance(visual, VisionTransformer):
        raise ConfigError(
            f"attention: found neighbors, with a vision tower that is a {type(visual).__name__}; "
            "allowed: open_clip's ViT (model.arch), or attention: frame"
        )
    blocks = visual.transformer.resblocks
    for i, block in enumerate(blocks):
        if not isinstance(block, ResidualAttentionBlock):
            raise ConfigError(
                "attention: found neighbors, with a vision tower whose blocks are of type "
                f"{type(block).__name__}; allowed: open_clip's plain blocks (model.arch), or "
                "attention: frame"
            )
        blocks[i] = NeighborBlock(block, num_segments)
    return visual


def neighboring(x: Tensor) -> Tensor:
    """Tokens [B, T, N, C] of each frame with those of the next and of the previous frame before
    them, [B, T, 3 N, C]; zeros where there is no such frame."""
    # T = 3, each letter the N tokens of a frame:
    #
    #   frame       0        1        2
    #            [b 0 a]  [c a b]  [0 b c]
    edge = torch.zeros_like(x[:, :1])  # [B, 1, N, C]
    after = torch.cat([x[:, 1:], edge], dim=1)
    before = torch.cat([edge, x[:, :-1]], dim=1)
    return torch.cat([after, before, x], dim=2)


class NeighborBlock(nn.Module):
    """A ViT block in which the tokens of a frame attend to those of three frames.

    At the ends of a clip the missing frame has zeros as keys and values. Nothing masks them: their
    logits are 0, so that they take a share of the attention and give nothing.
    """

    def __init__(self, block: ResidualAttentionBlock, num_segments: int) -> None:
        super().__init__()
        self.attn, self.mlp = block.attn, block.mlp
        self.ln_1, self.ln_2 = block.ln_1, block.ln_2
        self.ls_1, self.ls_2 = block.ls_1, block.ls_2
        self.num_segments = num_segments

    def forward(self, x: Tensor, *_: object, **__: object) -> Tensor:
        """Tokens [BT, N, C] in and out."""
        x = x + self.ls_1(self._attend(self.ln_1(x)))
        return x + self.ls_2(self.mlp(self.ln_2(x)))

    def _attend(self, x: Tensor) -> Tensor:
        attn = self.attn
        projected = functional.linear(x, attn.in_proj_weight, attn.in_proj_bias)  # [BT, N, 3 C]
        query, *both = projected.chunk(3, dim=-1)  # [BT, N, C] each
        # [BT, N, C] -> [B, T, N, C] -> [B, T, 3 N, C] -> [BT, 3 N, C]
        wide = [neighboring(y.unflatten(0, (-1, self.num_segments))).flatten(0, 1) for y in both]
        # [BT, M, C] -> [BT, M, heads, C / heads] -> [BT, heads, M, C / heads]
        q, k, v = (y.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for y in (query, *wide))
        out = functional.scaled_dot_product_attention(q, k, v)  # [BT, heads, N, C / heads]
        return attn.out_proj(out.transpose(1, 2).flatten(2))  # -> [BT, N, C]

"""A temporal Transformer whose MLPs have several experts, of which one is chosen or all are merged.

Follows the authors' code of MoTE (arXiv 2410.10589, section 3.2), with its parameter names, so that
released checkpoints load unchanged. The deviations are those of `heads.py`.
"""

from collections.abc import Sequence

import torch
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional

from clipzoo.methods.parts.heads import head_block, initialize, rounded_heads

Choice = int | tuple[float, ...]
"""What the MLP of a block computes with: one of E experts, or the shares of all of them in the mean
of their weights, which sum to 1."""


class Experts(nn.Module):
    """An MLP [..., D] -> [..., D] with E experts, of which each is an MLP.

    Merged experts are one MLP: the mean is one of weights and biases, not of outputs.

    Args:
        width: D.
        num_experts: E.
    """

    mote_fusion_weight: Tensor

    def __init__(self, width: int, num_experts: int) -> None:
        super().__init__()
        self.fc_up = nn.ModuleList(nn.Linear(width, 4 * width) for _ in range(num_experts))
        self.fc_dn = nn.ModuleList(nn.Linear(4 * width, width) for _ in range(num_experts))
        self.activation = QuickGELU()
        # The authors never train it, so that the experts' shares are equal in tests.
        self.register_buffer("mote_fusion_weight", torch.zeros(num_experts))

    def forward(self, x: Tensor, choice: Choice | None = None) -> Tensor:
        """The MLP of `choice`; None = merged with the shares softmax(mote_fusion_weight)."""
        if isinstance(choice, int):
            x = self.activation(self.fc_up[choice](x))  # [..., D] -> [..., 4 D]
            return self.fc_dn[choice](x)  # [..., 4 D] -> [..., D]
        shares = self.mote_fusion_weight.softmax(dim=0) if choice is None else choice
        x = self.activation(functional.linear(x, *_merged(self.fc_up, shares)))  # -> [..., 4 D]
        return functional.linear(x, *_merged(self.fc_dn, shares))  # [..., 4 D] -> [..., D]


def _merged(experts: nn.ModuleList, shares: Sequence[float] | Tensor) -> tuple[Tensor, Tensor]:
    """The weight [out, in] and the bias [out] of one linear layer of merged experts."""
    # One product at a time: autograd then keeps no copy of the experts.
    weight, bias = torch.zeros(()), torch.zeros(())
    for share, expert in zip(shares, experts, strict=True):
        assert isinstance(expert, nn.Linear)
        weight, bias = weight + share * expert.weight, bias + share * expert.bias
    return weight, bias


class ExpertBlock(nn.Module):
    """A Transformer block on [B, T, D] with `Experts` in the place of its MLP."""

    def __init__(self, block: ResidualAttentionBlock, experts: Experts) -> None:
        super().__init__()
        self.attn, self.ln_1, self.mlp, self.ln_2 = block.attn, block.ln_1, experts, block.ln_2

    def forward(self, x: Tensor, choice: Choice | None = None) -> Tensor:
        h = self.ln_1(x)
        x = x + self.attn(h, h, h, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x), choice)


class ExpertHead(nn.Module):
    """Frame embeddings [B, T, D] -> what the temporal Transformer adds to them, [B, T, D].

    `spe_cls_feature` [K, D] are the embeddings of the K classes that it was trained on; K is 0
    until they are known.

    Args:
        width: D.
        heads: attention heads; rounded down to a divisor of D.
        layers: Transformer blocks.
        positions: largest number of frames.
        num_experts: E, in each block.
    """

    spe_cls_feature: Tensor

    def __init__(
        self, *, width: int, heads: int, layers: int, positions: int, num_experts: int
    ) -> None:
        super().__init__()
        heads = rounded_heads(width, heads)
        self.frame_position_embeddings = nn.Embedding(positions, width)
        blocks = nn.ModuleList(
            ExpertBlock(head_block(width, heads), Experts(width, num_experts))
            for _ in range(layers)
        )
        self.transformer = nn.ModuleDict({"resblocks": blocks})
        self.apply(initialize)  # each expert is drawn by itself, as in the authors' code
        self.register_buffer("spe_cls_feature", torch.zeros(0, width))

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The Transformer blocks, from the first to the last."""
        return [*self.transformer["resblocks"].children()]

    def forward(self, frames: Tensor, choices: Sequence[Choice] | None = None) -> Tensor:
        """The output of the Transformer, in the dtype of `frames`.

        Args:
            frames: [B, T, D].
            choices: of each block; None = the merge of the test in all of them.
        """
        x = frames + self.frame_position_embeddings.weight[: frames.shape[1]]  # + [T, D]
        for i, block in enumerate(self.blocks):
            x = block(x, None if choices is None else choices[i])
        return x.type(frames.dtype)

"""Self-attention with fewer launches in the backward pass, and the same numbers.

nn.MultiheadAttention takes query, key and value out of its packed projection by index. The backward
pass of an index fills a tensor of the projection's size with zeros and one third of it with the
gradient, and the three tensors are added up: 3 x (fill, copy) and 2 sums for each layer. The
backward pass of `unbind` writes the same gradient at once.
"""

from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional


def unbind_projections(model: nn.Module) -> None:
    """Make the plain nn.MultiheadAttention modules of a model `Attention`, in place.

    Plain are those of tokens [N, L, D] with one packed projection with a bias, without dropout and
    added keys.
    """
    for module in model.modules():
        if type(module) is nn.MultiheadAttention:
            packed = module.batch_first and module.in_proj_bias is not None
            added = module.bias_k is not None or module.add_zero_attn
            if packed and module.in_proj_weight is not None and not (module.dropout or added):
                module.__class__ = Attention


class Attention(nn.MultiheadAttention):
    """Self-attention without a mask is computed by `_attend` in training; all else as by the parent
    class."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Any:
        """The output for tokens [N, L, D], and None or the weights, as of the parent class."""
        given = {name: option for name, option in options.items() if option is not None}
        if self.training and query is key is value and given == {"need_weights": False}:
            return self._attend(query), None
        return super().forward(query, key, value, **options)

    def _attend(self, x: Tensor) -> Tensor:
        """The operations of `functional.multi_head_attention_forward`, in its order and layout."""
        count, length, width = x.shape  # N, L, D
        x = x.transpose(1, 0)  # [N, L, D] -> [L, N, D]
        packed = functional.linear(x, cast(Tensor, self.in_proj_weight), self.in_proj_bias)
        packed = packed.unflatten(-1, (3, width)).unsqueeze(0)  # [L, N, 3D] -> [1, L, N, 3, D]
        packed = packed.transpose(0, -2).squeeze(-2).contiguous()  # -> [3, L, N, D]
        query, key, value = (
            part.view(length, count * self.num_heads, self.head_dim)
            .transpose(0, 1)  # [L, N h, d] -> [N h, L, d]
            .view(count, self.num_heads, length, self.head_dim)
            for part in packed.unbind(0)
        )  # [N, h, L, d] each
        x = functional.scaled_dot_product_attention(query, key, value)
        x = x.permute(2, 0, 1, 3).contiguous().view(length * count, width)  # -> [L N, D]
        x = functional.linear(x, self.out_proj.weight, self.out_proj.bias)
        return x.view(length, count, width).transpose(1, 0)  # [L N, D] -> [N, L, D]

"""ActionCLIP's heads: frame embeddings -> video embedding.

Follows the authors' code (arXiv 2109.08472), with its parameter names and initializations, so that
released checkpoints load unchanged:

    meanP        mean_t(x_t)
    Transf       mean_t(x_t + transformer(x + positions)_t)     TemporalHead, as in Text4Vis
    Conv_1D      mean_t(x_t + shift(x)_t)                       a depthwise convolution over time
    LSTM         mean_t(x_t + lstm(x)_t)
    Transf_cls   encoder([cls; x] + positions)_0                neither residual nor mean

Every head but meanP has frame positions, which Transf alone uses. The others keep them, untrained,
because the released files have them. Deviations: a number of attention heads that does not divide
the embedding size is rounded down to one that does, and there are never fewer frame positions than
frames. The authors compute heads in float32; here that holds for Conv_1D and LSTM, which cast
explicitly, whereas autocast chooses for the Transformers. The dropout of Transf_cls draws its masks
from the clips (parts/dropout.py).
"""

import contextlib
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from clipzoo.methods.parts.dropout import drop
from clipzoo.methods.parts.heads import TemporalHead

ENCODER_HEADS = 8
"""Attention heads of Transf_cls."""
ENCODER_HIDDEN = 2048
"""Hidden units of its MLPs, whatever D is."""
ENCODER_DROPOUT = 0.1
"""The share dropped in training: of attention weights, hidden units, outputs of both branches."""


def video_head(
    head: str, *, width: int, heads: int, layers: int, positions: int, num_segments: int
) -> nn.Module:
    """A head: frame embeddings [B, T, D] -> video embeddings [B, D], in the same dtype.

    Args:
        head: `meanP` (`None` in Text4Vis), `Conv_1D`, `LSTM`, `Transf` or `Transf_cls`.
        width: D.
        heads: attention heads of Transf; rounded down to a divisor of D.
        layers: blocks of Transf and Transf_cls.
        positions: rows of the frame positions; at least T.
        num_segments: T.
    """
    if head in ("None", "meanP", "Transf"):
        kind = "None" if head == "meanP" else head
        return TemporalHead(kind, width=width, heads=heads, layers=layers, positions=positions)
    if head == "Transf_cls":
        return ClassTokenHead(width, layers, positions, num_segments)
    return {"Conv_1D": ConvolutionHead, "LSTM": RecurrentHead}[head](width, positions)


def _unused_positions(positions: int, width: int) -> nn.Embedding:
    """N(0, 0.02), as those that are used. Not trained: DistributedDataParallel would wait for
    their gradients."""
    embeddings = nn.Embedding(positions, width)
    nn.init.normal_(embeddings.weight, std=0.02)
    return embeddings.requires_grad_(False)


def _no_autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """No autocast; on the meta device, where memory is estimated, there is none to turn off."""
    if not torch.amp.is_autocast_available(device.type):
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


class ConvolutionHead(nn.Module):
    """Conv_1D: a residual depthwise convolution over three frames, then the mean; in float32.

    It starts as a shift: one quarter of the channels comes from the previous place, one from the
    next. The authors re-read the memory of [T, D] as [D, T] where a transpose was meant, so a
    "channel" of the convolution is T neighboring numbers of one frame (D is a multiple of T in
    their models). Published weights were trained like that, so it is kept.
    """

    def __init__(self, width: int, positions: int) -> None:
        super().__init__()
        self.frame_position_embeddings = _unused_positions(positions, width)
        self.shift = nn.Conv1d(width, width, 3, padding=1, groups=width, bias=False)
        quarter = width // 4
        weight = torch.zeros(width, 1, 3)
        weight[:quarter, 0, 0] = 1  # from the previous place
        weight[quarter : quarter + width // 2, 0, 1] = 1
        weight[-width // 4 :, 0, 2] = 1  # from the next place
        self.shift.weight = nn.Parameter(weight)

    def forward(self, frames: Tensor) -> Tensor:
        batch, num_frames, width = frames.shape
        # D = 4, T = 2, frames a and b: memory  a0 a1 a2 a3 b0 b1 b2 b3
        #   re-read as [D, T]:  a0 a1 | a2 a3 | b0 b1 | b2 b3        transpose: a0 b0 | a1 b1 | ...
        x = frames.contiguous().view(batch, width, num_frames)  # re-read, not a transpose
        with _no_autocast(frames.device):
            x = self.shift(x.float()).transpose(1, 2)  # [B, D, T] -> [B, T, D]
        return (x.type(frames.dtype) + frames).mean(dim=1)  # [B, T, D] -> [B, D]


class RecurrentHead(nn.Module):
    """LSTM: a residual LSTM over the frames, then the mean; in float32. Its hidden state has D
    numbers too, and starts at zero."""

    def __init__(self, width: int, positions: int) -> None:
        super().__init__()
        self.frame_position_embeddings = _unused_positions(positions, width)
        self.lstm_visual = nn.LSTM(width, width, batch_first=True)

    def forward(self, frames: Tensor) -> Tensor:
        with _no_autocast(frames.device):
            x, _ = self.lstm_visual(frames.float())  # [B, T, D]
        return (x.type(frames.dtype) + frames).mean(dim=1)  # [B, T, D] -> [B, D]


class ClassTokenHead(nn.Module):
    """Transf_cls: a Transformer over a class token and the frames; the token's output.

    Its layers are post-norm, with 8 attention heads, or the next lower divisor of D. It fits no
    number of frames but `num_segments`.
    """

    def __init__(self, width: int, layers: int, positions: int, num_segments: int) -> None:
        super().__init__()
        self.frame_position_embeddings = _unused_positions(positions, width)
        self.transformer = _ClassTokenEncoder(width, layers, num_segments)

    def forward(self, frames: Tensor, keys: Tensor | None = None) -> Tensor:
        return self.transformer(frames, keys).type(frames.dtype)  # [B, T, D] -> [B, D]


class _ClassTokenEncoder(nn.Module):
    def __init__(self, width: int, layers: int, num_segments: int) -> None:
        super().__init__()
        self.transformer_enc = _Encoder(width, layers)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, num_segments + 1, width))
        with torch.no_grad():
            _wrapped_normal(self.pos_embed)
            _wrapped_normal(self.cls_token)
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    _wrapped_normal(module.weight)
                    module.bias.zero_()

    def forward(self, frames: Tensor, keys: Tensor | None) -> Tensor:
        token = self.cls_token.expand(frames.shape[0], -1, -1)  # [1, 1, D] -> [B, 1, D]
        x = torch.cat([token, frames], dim=1) + self.pos_embed  # [B, T + 1, D]
        return self.transformer_enc(x, keys)[:, 0]  # [B, T + 1, D] -> [B, D]


class _Encoder(nn.Module):
    """torch's TransformerEncoder, in its names; only the dropout differs (parts/dropout.py)."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_PostNormLayer(width, 4 * i) for i in range(layers))
        self.norm = nn.LayerNorm(width)
        first, *others = self.layers
        for layer in others:  # torch draws one layer and copies it
            layer.load_state_dict(first.state_dict())

    def forward(self, x: Tensor, keys: Tensor | None) -> Tensor:
        for layer in self.layers:
            x = layer(x, keys)
        return self.norm(x)


class _PostNormLayer(nn.Module):
    def __init__(self, width: int, place: int) -> None:
        super().__init__()
        heads = next(h for h in range(ENCODER_HEADS, 0, -1) if width % h == 0)
        self.self_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.linear1 = nn.Linear(width, ENCODER_HIDDEN)
        self.linear2 = nn.Linear(ENCODER_HIDDEN, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.place = place

    def forward(self, x: Tensor, keys: Tensor | None) -> Tensor:
        x = self.norm1(x + self._drop(self._attend(x, keys), keys, 1))  # [B, N, D]
        hidden = self._drop(self.linear1(x).relu(), keys, 2)  # [B, N, D] -> [B, N, 2048]
        return self.norm2(x + self._drop(self.linear2(hidden), keys, 3))  # [B, N, D]

    def _attend(self, x: Tensor, keys: Tensor | None) -> Tensor:
        attention = self.self_attn
        packed = functional.linear(x, attention.in_proj_weight, attention.in_proj_bias)
        packed = packed.unflatten(-1, (3, attention.num_heads, -1))  # [B, N, 3D] -> [B, N, 3, H, C]
        query, key, value = packed.transpose(1, 3).unbind(dim=2)  # [B, H, N, C] each
        weights = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])  # [B, H, N, N]
        weights = self._drop(weights.softmax(dim=-1), keys, 0)
        mixed = (weights.type(value.dtype) @ value).transpose(1, 2)  # [B, H, N, C] -> [B, N, H, C]
        return attention.out_proj(mixed.flatten(2))  # [B, N, H, C] -> [B, N, D]

    def _drop(self, x: Tensor, keys: Tensor | None, place: int) -> Tensor:
        if keys is None or not self.training:
            return x
        return drop(x, keys, self.place + place, ENCODER_DROPOUT)


def _wrapped_normal(tensor: Tensor) -> None:
    """0.02 times the remainder of normal numbers by 2: what lies beyond wraps around to 0, and is
    not drawn again as in a truncated normal distribution."""
    tensor.normal_().fmod_(2).mul_(0.02)

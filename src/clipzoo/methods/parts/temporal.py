"""Modules that exchange information between frames inside the vision tower.

Follows the authors' code of Text4Vis (arXiv 2207.01297), with its parameter names, so that released
checkpoints load unchanged.
"""

from typing import Any

import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from clipzoo.config import ConfigError


def with_temporal_module(
    visual: nn.Module, temporal_module: str, joint: bool, num_segments: int
) -> nn.Module:
    """Add an in-network temporal option to a vision tower, in place.

    Args:
        visual: a vision tower of open_clip.
        temporal_module: `none`, `tsm`, `tokenshift` or `tokent1d`.
        joint: joint space-time attention.
        num_segments: T.

    TSM shifts before every block of a ViT, and before the first convolution of every block of a
    ResNet (of every second block if stage 3 has 23 blocks or more).

    Returns:
        `visual`, or a new tower with its parts for joint attention.

    Raises:
        ConfigError: the tower does not support the option.
    """
    if joint and temporal_module != "none":
        raise ConfigError(
            f"joint: found true with temporal_module {temporal_module}; allowed: none"
        )
    if temporal_module == "none" and not joint:
        return visual
    if isinstance(visual, ModifiedResNet) and not joint:
        # For ResNets the reference has only TSM, and uses it whatever the option is called.
        _shift_resnet(visual, num_segments)
        return visual
    if not isinstance(visual, VisionTransformer):
        raise ConfigError(
            f"{'joint' if joint else temporal_module}: the vision tower is a "
            f"{type(visual).__name__}; allowed: open_clip's ViT (and, for tsm, its ResNet)"
        )
    if joint:
        return JointTower(visual, num_segments)
    blocks = visual.transformer.resblocks
    for i, block in enumerate(blocks):
        blocks[i] = _timed_block(block, temporal_module, num_segments)
    return visual


def _timed_block(block: nn.Module, temporal_module: str, num_segments: int) -> nn.Module:
    if temporal_module == "tsm":
        return ShiftedBlock(block, num_segments)
    if not isinstance(block, ResidualAttentionBlock):
        raise ConfigError(
            f"{temporal_module}: the tower has blocks of type {type(block).__name__}; "
            "allowed: open_clip's plain blocks"
        )
    if temporal_module == "tokenshift":
        return ControlledBlock(block, TokenShift(num_segments))
    width = block.ln_1.normalized_shape[0]
    return ControlledBlock(block, TokenT1D(width, num_segments))


def _shift_resnet(visual: ModifiedResNet, num_segments: int) -> None:
    step = 2 if len(visual.layer3) >= 23 else 1
    for stage in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        blocks: list[Any] = list(stage)
        for block in blocks[::step]:
            block.conv1 = ShiftedConv(block.conv1, num_segments)


def shift_channels(x: Tensor, share: int) -> Tensor:
    """Move the first 1/`share` of the channels of [B, T, C, ...] one frame back, the next 1/`share`
    one forward, with zeros where no frame follows or precedes; `share` is at least 2.
    """
    # share = 4, channels a b c d of frames 0 1 2:
    #
    #            before      after
    #   frame 0  a0 b0 c0 d0    a1  0 c0 d0
    #   frame 1  a1 b1 c1 d1    a2 b0 c1 d1
    #   frame 2  a2 b2 c2 d2     0 b1 c2 d2
    fold = x.shape[2] // share
    out = torch.zeros_like(x)
    out[:, :-1, :fold] = x[:, 1:, :fold]
    out[:, 1:, fold : 2 * fold] = x[:, :-1, fold : 2 * fold]
    out[:, :, 2 * fold :] = x[:, :, 2 * fold :]
    return out


class _Shifted(nn.Module):
    """A module `net` of a tower, before which channels are shifted between T frames."""

    def __init__(self, net: nn.Module, num_segments: int) -> None:
        super().__init__()
        self.net = net
        self.num_segments = num_segments


class ShiftedBlock(_Shifted):
    """TSM in a ViT: shift 1/8 of the patch tokens' channels each way, then run the block."""

    def forward(self, x: Tensor, *args: Tensor | None, **kwargs: Tensor | None) -> Tensor:
        patches = x[:, 1:].unflatten(0, (-1, self.num_segments))  # [BT, N, C] -> [B, T, N - 1, C]
        patches = patches.transpose(2, 3)  # [B, T, C, N - 1], the layout of shift_channels
        patches = shift_channels(patches, 8).transpose(2, 3)  # back to [B, T, N - 1, C]
        patches = patches.flatten(0, 1)  # [B, T, N - 1, C] -> [BT, N - 1, C]
        x = torch.cat([x[:, :1], patches], dim=1)  # class token [BT, 1, C] + patches -> [BT, N, C]
        return self.net(x, *args, **kwargs)


class ShiftedConv(_Shifted):
    """TSM in a ResNet: shift 1/8 of the channels each way before a block's first convolution."""

    def forward(self, x: Tensor) -> Tensor:
        clips = x.unflatten(0, (-1, self.num_segments))  # [BT, C, H, W] -> [B, T, C, H, W]
        return self.net(shift_channels(clips, 8).flatten(0, 1))  # [B, T, C, H, W] -> [BT, C, H, W]


class TokenShift(nn.Module):
    """Shift 1/4 of the class token's channels each way; patch tokens stay."""

    def __init__(self, num_segments: int) -> None:
        super().__init__()
        self.num_segments = num_segments

    def forward(self, x: Tensor) -> Tensor:
        tokens = x[:, 0].unflatten(0, (-1, self.num_segments))  # [BT, N, C] -> [B, T, C]
        tokens = shift_channels(tokens, 4).flatten(0, 1)[:, None]  # [B, T, C] -> [BT, 1, C]
        return torch.cat([tokens, x[:, 1:]], dim=1)  # [BT, N, C]


class TokenT1D(nn.Module):
    """A depthwise convolution over time on the class token, initialized to TokenShift."""

    def __init__(self, width: int, num_segments: int) -> None:
        super().__init__()
        self.num_segments = num_segments
        fold = width // 4
        self.conv = nn.Conv1d(width, width, kernel_size=3, padding=1, groups=width, bias=False)
        weight = torch.zeros(width, 1, 3)
        weight[:fold, 0, 2] = 1  # from the next frame
        weight[fold : 2 * fold, 0, 0] = 1  # from the previous frame
        weight[2 * fold :, 0, 1] = 1
        self.conv.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x[:, 0].unflatten(0, (-1, self.num_segments))  # [BT, N, C] -> [B, T, C]
        tokens = self.conv(tokens.transpose(1, 2))  # [B, T, C] -> [B, C, T]
        tokens = tokens.transpose(1, 2).flatten(0, 1)[:, None]  # -> [B, T, C] -> [BT, 1, C]
        return torch.cat([tokens, x[:, 1:]], dim=1)  # [BT, N, C]


class ControlledBlock(nn.Module):
    """A ViT block that applies `control_point` before its attention and before its MLP."""

    def __init__(self, block: ResidualAttentionBlock, control_point: nn.Module) -> None:
        super().__init__()
        self.attn, self.mlp = block.attn, block.mlp
        self.ln_1, self.ln_2 = block.ln_1, block.ln_2
        self.ls_1, self.ls_2 = block.ls_1, block.ls_2
        self.control_point = control_point

    def forward(self, x: Tensor, *_: object, **__: object) -> Tensor:
        x = self.control_point(x)
        h = self.ln_1(x)
        x = x + self.ls_1(self.attn(h, h, h, need_weights=False)[0])
        x = self.control_point(x)
        return x + self.ls_2(self.mlp(self.ln_2(x)))


class JointTower(nn.Module):
    """Joint space-time attention: one sequence of the patches of all frames and one class token.

    Takes over the parts of a plain ViT, with their names, and adds `time_embedding` [T, width].
    Frames [BT, 3, H, W] in, video embeddings [B, D] out, so that no head is needed.
    """

    def __init__(self, visual: VisionTransformer, num_segments: int) -> None:
        super().__init__()
        if visual.attn_pool is not None or visual.pool_type != "tok":
            raise ConfigError("joint: the vision tower pools by attention; allowed: a class token")
        self.conv1, self.ln_pre = visual.conv1, visual.ln_pre
        self.class_embedding = visual.class_embedding
        self.positional_embedding = visual.positional_embedding
        self.transformer, self.ln_post, self.proj = visual.transformer, visual.ln_post, visual.proj
        width = self.class_embedding.shape[0]
        self.time_embedding = nn.Parameter(width**-0.5 * torch.randn(num_segments, width))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.transformer.grad_checkpointing = enable

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).flatten(2).transpose(1, 2)  # [BT, 3, H, W] -> [BT, N, C]
        x = x + self.positional_embedding[1:].to(x.dtype)  # + [N, C]
        x = x.unflatten(0, (-1, self.time_embedding.shape[0]))  # [BT, N, C] -> [B, T, N, C]
        x = x + self.time_embedding[:, None].to(x.dtype)  # + [T, 1, C]
        # [B, T, N, C] -> [B, N T, C]: the frames of a patch follow each other
        x = x.transpose(1, 2).flatten(1, 2)
        token = (self.class_embedding + self.positional_embedding[0]).to(x.dtype)  # [C]
        x = torch.cat([token.expand(x.shape[0], 1, -1), x], dim=1)  # [B, 1 + N T, C]
        x = self.transformer(self.ln_pre(x))
        return self.ln_post(x[:, 0]) @ self.proj  # [B, 1 + N T, C] -> [B, C] -> [B, D]

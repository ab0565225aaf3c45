"""The temporal modules against loops over single frames."""

import pytest
import torch
from open_clip.model import CLIP
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from clipzoo.config import ConfigError
from clipzoo.methods.parts import temporal
from clipzoo.methods.parts.heads import TemporalHead
from clipzoo.methods.parts.temporal import with_temporal_module
from parity.inputs import fill

B, T, WIDTH = 2, 3, 64
TEXT = {"context_length": 8, "vocab_size": 32, "width": 64, "heads": 1, "layers": 1}


def vit() -> VisionTransformer:
    """A filled tower of 2 layers on 16 px: 4 patches of 8 px."""
    vision = {"image_size": 16, "layers": 2, "width": WIDTH, "patch_size": 8}
    tower = CLIP(32, vision, TEXT, quick_gelu=True).visual  # pyright: ignore[reportArgumentType]
    assert isinstance(tower, VisionTransformer)
    fill(tower, "visual.")
    return tower.eval()


def frames() -> Tensor:
    return torch.randn(B * T, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def shifted(tokens: Tensor, share: int) -> Tensor:
    """[BT, N, C]: channels from the next, the previous and the same frame, one by one."""
    out = torch.zeros_like(tokens)
    fold = tokens.shape[-1] // share
    for video in range(B):
        for t in range(T):
            here = video * T + t
            if t + 1 < T:
                out[here, :, :fold] = tokens[here + 1, :, :fold]
            if t > 0:
                out[here, :, fold : 2 * fold] = tokens[here - 1, :, fold : 2 * fold]
            out[here, :, 2 * fold :] = tokens[here, :, 2 * fold :]
    return out


def pool(tower: VisionTransformer, x: Tensor) -> Tensor:
    return tower.ln_post(x[:, 0]) @ tower.proj


@torch.no_grad()
def test_tsm_shifts_patches_before_each_block():
    plain, tower = vit(), with_temporal_module(vit(), "tsm", False, T)
    x = plain._embeds(frames())
    for block in plain.transformer.resblocks:
        x = block(torch.cat([x[:, :1], shifted(x[:, 1:], 8)], dim=1))
    torch.testing.assert_close(tower(frames()), pool(plain, x))
    assert "transformer.resblocks.1.net.attn.in_proj_weight" in tower.state_dict()


@torch.no_grad()
def test_tokenshift_shifts_the_class_token_before_attention_and_mlp():
    plain, tower = vit(), with_temporal_module(vit(), "tokenshift", False, T)
    x = plain._embeds(frames())
    for block in plain.transformer.resblocks:
        x = torch.cat([shifted(x[:, :1], 4), x[:, 1:]], dim=1)
        x = x + block.attention(block.ln_1(x))  # pyright: ignore[reportCallIssue]
        x = torch.cat([shifted(x[:, :1], 4), x[:, 1:]], dim=1)
        x = x + block.mlp(block.ln_2(x))  # pyright: ignore[reportCallIssue]
    torch.testing.assert_close(tower(frames()), pool(plain, x))
    assert tower.state_dict().keys() == plain.state_dict().keys()


@torch.no_grad()
def test_tokent1d_starts_as_tokenshift_and_then_is_a_convolution():
    shift = with_temporal_module(vit(), "tokenshift", False, T)
    conv = with_temporal_module(vit(), "tokent1d", False, T)
    torch.testing.assert_close(conv(frames()), shift(frames()))
    name = "transformer.resblocks.0.control_point.conv.weight"
    assert conv.state_dict()[name].shape == (WIDTH, 1, 3)
    point = temporal.TokenT1D(WIDTH, T)
    nn.init.normal_(point.conv.weight)
    tokens = torch.randn(B * T, 5, WIDTH)
    shifted_tokens = point(tokens)
    torch.testing.assert_close(shifted_tokens[:, 1:], tokens[:, 1:])
    weight = point.conv.weight[:, 0]  # [C, 3]
    for here in range(B * T):
        expected = weight[:, 1] * tokens[here, 0]
        if here % T > 0:
            expected = expected + weight[:, 0] * tokens[here - 1, 0]
        if here % T < T - 1:
            expected = expected + weight[:, 2] * tokens[here + 1, 0]
        torch.testing.assert_close(shifted_tokens[here, 0], expected)


@torch.no_grad()
def test_joint_attends_to_the_patches_of_all_frames():
    plain, tower = vit(), with_temporal_module(vit(), "none", True, T)
    time = tower.get_parameter("time_embedding")
    assert time.shape == (T, WIDTH)
    features = tower(frames())
    assert features.shape == (B, 32)
    patches = plain.conv1(frames()).flatten(2).transpose(1, 2) + plain.positional_embedding[1:]
    token = plain.class_embedding + plain.positional_embedding[0]
    for video in range(B):
        rows = [token] + [
            patches[video * T + t, n] + time[t] for t in range(T) for n in range(patches.shape[1])
        ]
        x = plain.transformer(plain.ln_pre(torch.stack(rows)[None]))
        torch.testing.assert_close(features[video : video + 1], pool(plain, x))


@torch.no_grad()
def test_tsm_in_a_resnet_shifts_before_the_first_convolution():
    vision = {"image_size": 32, "layers": [1, 1, 23, 1], "width": 8, "patch_size": None}
    with torch.device("meta"):
        tower = CLIP(16, vision, TEXT).visual  # pyright: ignore[reportArgumentType]
        tower = with_temporal_module(tower, "tsm", False, T)
    names = tower.state_dict().keys()
    assert {"layer1.0.conv1.net.weight", "layer3.22.conv1.net.weight"} <= names
    # With 23 blocks in stage 3, every other block is shifted.
    assert {"layer3.1.conv1.weight", "layer3.21.conv1.weight"} <= names
    shift = temporal.ShiftedConv(nn.Identity(), T)
    x = torch.randn(B * T, 16, 2, 2)
    expected = shifted(x.flatten(2).transpose(1, 2), 8).transpose(1, 2).unflatten(2, (2, 2))
    torch.testing.assert_close(shift(x), expected)


def test_two_options_at_once_are_refused():
    with pytest.raises(ConfigError, match="joint: found true with temporal_module tsm"):
        with_temporal_module(vit(), "tsm", True, T)


def test_a_tower_without_frames_to_shift_is_refused():
    with pytest.raises(ConfigError, match="the vision tower is a Identity"):
        with_temporal_module(nn.Identity(), "tokenshift", False, T)


def head(kind: str, heads: int = 2) -> TemporalHead:
    return TemporalHead(kind, width=WIDTH, heads=heads, layers=2, positions=8)


def test_the_head_starts_as_published():
    torch.manual_seed(0)
    state = head("Transf").state_dict()
    for name in ("frame_position_embeddings.weight", "transformer.resblocks.1.mlp.c_fc.weight"):
        assert state[name].std().item() == pytest.approx(0.02, rel=0.1)
    assert state["transformer.resblocks.0.mlp.c_proj.bias"].abs().max() == 0
    assert head("None").state_dict() == {}


@torch.no_grad()
def test_the_transformer_head_sees_the_order_of_frames_and_the_mean_does_not():
    torch.manual_seed(0)
    x = torch.randn(B, T, WIDTH)
    mean, transformer = head("None"), head("Transf").eval()
    torch.testing.assert_close(mean(x.flip(1)), mean(x))
    assert (transformer(x.flip(1)) - transformer(x)).abs().max() > 1e-4
    # Blocks that add nothing leave frames and positions, to which the frames are added again.
    for name, value in transformer.named_parameters():
        if name.endswith(("out_proj.weight", "c_proj.weight")):
            value.zero_()
    positions = transformer.frame_position_embeddings.weight[:T].mean(dim=0)
    torch.testing.assert_close(transformer(x), 2 * x.mean(dim=1) + positions)


@pytest.mark.parametrize(("asked", "heads"), [(7, 4), (0, 1)])
def test_heads_that_do_not_divide_the_width_are_rounded_down(asked: int, heads: int):
    attentions = [m for m in head("Transf", heads=asked).modules() if hasattr(m, "num_heads")]
    assert {attention.num_heads for attention in attentions} == {heads}

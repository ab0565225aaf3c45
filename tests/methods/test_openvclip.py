"""Open-VCLIP against loops over single frames, and what its features must carry."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional

import tiny
from clipzoo.config import ConfigError, replace
from clipzoo.methods.memory.estimates import activation_bytes, meta_model
from clipzoo.methods.openvclip import OpenVclip, video_logits
from clipzoo.methods.parts.method import Batch
from clipzoo.methods.parts.neighbors import neighboring, with_neighbors
from clipzoo.methods.parts.raw import frame_embeddings
from clipzoo.models.text import ClassText
from clipzoo.report.recipes import load_recipe
from parity.inputs import class_text, fill, noise

B, T = 2, 3
ROOT = Path(__file__).parents[2]


def tower() -> VisionTransformer:
    visual = tiny.clip().visual
    assert isinstance(visual, VisionTransformer)
    fill(visual, "visual.")
    return visual.eval()


def model(**changes: Any) -> OpenVclip:
    found = tiny.method("openvclip", T, **changes)
    assert isinstance(found, OpenVclip)
    fill(found)
    return found


def frames(count: int = B, seed: int = 0) -> Tensor:
    shape = (count, T, 3, tiny.INPUT_PX, tiny.INPUT_PX)
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def text(classes: int = 4) -> ClassText:
    return class_text(functional.normalize(noise(5, 2, classes, tiny.DIM), dim=-1))


def attended(block: Any, tokens: list[Tensor]) -> list[Tensor]:
    """What the tokens [N, C] of each frame of a clip get, one frame and head at a time."""
    attn = block.attn
    weight, bias = attn.in_proj_weight, attn.in_proj_bias
    queries, keys, values = zip(
        *((x @ weight.T + bias).chunk(3, dim=-1) for x in tokens), strict=True
    )
    nothing, width = torch.zeros_like(keys[0]), tokens[0].shape[-1] // attn.num_heads
    found = []
    for t, query in enumerate(queries):
        seen = [t - 1, t, t + 1]
        rows = {
            name: torch.cat([all_rows[i] if 0 <= i < len(tokens) else nothing for i in seen])
            for name, all_rows in (("k", keys), ("v", values))
        }
        heads = []
        for h in range(attn.num_heads):
            part = slice(h * width, (h + 1) * width)
            logits = query[:, part] @ rows["k"][:, part].T / math.sqrt(width)  # [N, 3 N]
            heads.append(logits.softmax(dim=-1) @ rows["v"][:, part])
        found.append(attn.out_proj(torch.cat(heads, dim=-1)))
    return found


@torch.no_grad()
def test_tokens_attend_to_three_frames_with_zeros_beyond_the_ends():
    plain, visual = tower(), with_neighbors(tower(), T)
    pixels = noise(1, B * T, 3, tiny.INPUT_PX, tiny.INPUT_PX)
    x = plain._embeds(pixels)
    for block in plain.transformer.resblocks:
        for clip in x.unflatten(0, (B, T)):  # views of x [BT, N, C]
            normalized = [block.ln_1(frame) for frame in clip]  # pyright: ignore[reportCallIssue]
            clip += torch.stack(attended(block, normalized))
        x = x + block.mlp(block.ln_2(x))  # pyright: ignore[reportCallIssue]
    expected = plain.ln_post(x[:, 0]) @ plain.proj
    torch.testing.assert_close(visual(pixels), expected)
    assert visual.state_dict().keys() == plain.state_dict().keys()


def test_frames_stand_in_the_authors_order():
    found = neighboring(torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1))
    assert found[0, :, :, 0].tolist() == [[2, 0, 1], [3, 1, 2], [0, 2, 3]]


@torch.no_grad()
def test_a_frame_sees_its_neighbors_and_with_attention_frame_none():
    """The tiny tower has one block, so that a frame is seen one place away, and no further."""
    first = frames(1)
    other = first.clone()
    other[0, 2] = frames(1, seed=1)[0, 2]
    for attention, changed in (("neighbors", [False, True, True]), ("frame", [False, False, True])):
        visual = model(attention=attention).visual
        both = [frame_embeddings(visual, clip.float() / 255) for clip in (first, other)]
        found = [not torch.equal(a, b) for a, b in zip(both[0][0], both[1][0], strict=True)]
        assert found == changed


@torch.no_grad()
def test_features_carry_the_trained_scale_and_frames_count_alike():
    method, classes = model(), text()
    method.logit_scale.fill_(2.5)
    features = method.encode(frames())
    by_frame = frame_embeddings(method.visual, method.normalize(frames()))  # [B, T, D]
    cosines = functional.normalize(by_frame, dim=-1) @ classes.ensemble().T  # [B, T, K]
    logits = math.exp(2.5) * cosines.mean(dim=1)
    torch.testing.assert_close(video_logits(features, classes), logits)
    batch = Batch(labels=torch.tensor([1, 3]), texts=torch.tensor([1, 3]))
    expected = functional.cross_entropy(logits, batch.labels)
    torch.testing.assert_close(method.loss(features, batch, classes), expected)
    torch.testing.assert_close(method.score(features[:, None], classes), logits.softmax(dim=-1))


@torch.no_grad()
def test_the_score_is_of_the_mean_logits_over_views():
    method, classes = model(), text()
    method.logit_scale.fill_(2.0)
    features = method.encode(frames(4)).unflatten(0, (2, 2))  # [N, V, D]
    summed = video_logits(features, classes).sum(dim=1)
    score = method.score(features, classes)
    torch.testing.assert_close(score, (summed / 2).softmax(dim=-1))
    assert (score.argsort() == summed.argsort()).all()
    assert not torch.allclose(score, video_logits(features, classes).softmax(-1).mean(1), atol=1e-3)
    cosines = method.similarity(features, classes)
    assert cosines.shape == (2, 2, 4)
    assert cosines.abs().max() <= 1


@torch.no_grad()
def test_scores_are_float32_under_autocast():
    method, classes = model(), text()
    with torch.autocast("cpu", torch.bfloat16):
        features = method.encode(frames())
        loss = method.loss(
            features, Batch(labels=torch.zeros(2).long(), texts=torch.zeros(2).long()), classes
        )
        logits = video_logits(features, classes)
    assert features.dtype == loss.dtype == logits.dtype == torch.float32
    torch.testing.assert_close(logits, features @ classes.ensemble().T, rtol=0, atol=0)


def test_checkpointed_activations_give_the_same_gradients():
    found = []
    for enable in (False, True):
        method = model().train()
        method.set_grad_checkpointing(enable)
        method.encode(frames()).square().sum().backward()
        found.append({name: p.grad for name, p in method.named_parameters()})
    assert found[0].keys() == found[1].keys()
    for name, grad in found[0].items():
        assert grad is not None
        torch.testing.assert_close(found[1][name], grad)


def test_what_cannot_work_is_refused():
    tiny.method("openvclip", T, "resnet", attention="frame")
    with pytest.raises(ConfigError, match=r"attention: found neighbors.*ResNet.*model\.arch"):
        tiny.method("openvclip", T, "resnet")
    with pytest.raises(ValueError, match="frames: found 3 per clip; allowed: num_segments = 4"):
        tiny.method("openvclip", 4).encode(frames())
    for changes, message in (
        ({"attention": "both"}, "attention"),
        ({"windows": "decord"}, "windows"),
        ({"window_stride": 0}, "window_stride"),
        ({"window_fps": 0.0}, "window_fps"),
    ):
        with pytest.raises(ValueError, match=message):
            tiny.options("openvclip", **changes)


def test_its_windows_are_those_of_its_options():
    method = tiny.method("openvclip", T, windows="torchvision", window_stride=4, window_fps=24.0)
    assert method.windows is not None
    assert (method.windows.reader, method.windows.stride, method.windows.fps) == (
        "torchvision",
        4,
        24.0,
    )


def test_neighbors_need_memory_for_their_keys_and_values_alone():
    """The attention weights are excluded, as a GPU's fused kernels do not store them."""
    _, params = load_recipe("openvclip/k400-vitb16-f8", ROOT)
    alone = replace(params, {"openvclip.attention": "frame"})
    found = [activation_bytes(meta_model(run), run) for run in (params, alone)]
    blocks, frames, tokens, width, half = 12, 8, 197, 768, 2
    keys_and_values = blocks * 2 * 2 * frames * tokens * width * half  # those of two neighbors
    assert 0 < found[0] - found[1] <= keys_and_values

from dataclasses import replace
from typing import Any

import pytest
import torch
from open_clip.model import CLIP
from torch import Tensor
from torch.nn import functional

from clipzoo.config import ConfigError
from clipzoo.methods.actionclip import ActionClip
from clipzoo.methods.parts import text_tower
from clipzoo.methods.parts.method import Batch
from clipzoo.models.clip import build_clip
from clipzoo.models.text import ClassText
from parity.inputs import class_text, noise
from parity.model import actionclip_options
from tiny import normalize

T, D = 3, 32


def model(**options: Any) -> ActionClip:
    """Of small towers, with 16 patches and 100 words."""
    torch.manual_seed(0)
    vision = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8}
    text = {"context_length": 8, "vocab_size": 100, "width": 64, "heads": 1, "layers": 2}
    clip = CLIP(D, vision, text, quick_gelu=True)  # pyright: ignore[reportArgumentType]
    return ActionClip(clip, actionclip_options(head_layers=1, **options), T)


def frames(batch: int = 2) -> Tensor:
    """uint8 [batch, T, 3, 32, 32]."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (batch, T, 3, 32, 32), generator=generator, dtype=torch.uint8)


def prompts(num_templates: int = 2) -> ClassText:
    """[P, 3] prompts with embeddings that a trained text tower replaces."""
    generator = torch.Generator().manual_seed(2)
    token_ids = torch.randint(1, 98, (num_templates, 3, 8), generator=generator)
    token_ids[..., 0], token_ids[..., -1] = 98, 99  # start and end
    text = class_text(noise(3, num_templates, 3, D))
    return replace(text, token_ids=token_ids)


@torch.no_grad()
@pytest.mark.parametrize("name", ["meanP", "Conv_1D", "LSTM", "Transf", "Transf_cls"])
def test_videos_are_the_head_of_the_towers_frames(name: str):
    video = model(head=name).eval()
    by_frame = torch.stack([video.visual(clip) for clip in normalize(frames())])  # [2, T, D]
    together = video.encode(frames())
    assert together.shape == (2, D)
    torch.testing.assert_close(together, video.fusion_model(by_frame))
    torch.testing.assert_close(torch.cat([video.encode(c[None]) for c in frames()]), together)


def test_a_clip_of_another_length_is_refused():
    with pytest.raises(ValueError, match="found 2 per clip; allowed: num_segments = 3"):
        model().encode(frames()[:, :2])


def shifted(tokens: Tensor) -> Tensor:
    """Of a clip's tokens [T, N, C]: 1/8 of the patches' channels from the next frame, 1/8 from the
    previous one."""
    out, fold = tokens.clone(), tokens.shape[-1] // 8
    for t in range(T):
        out[t, 1:, :fold] = tokens[t + 1, 1:, :fold] if t + 1 < T else 0
        out[t, 1:, fold : 2 * fold] = tokens[t - 1, 1:, fold : 2 * fold] if t > 0 else 0
    return out


@torch.no_grad()
def test_tsm_shifts_before_every_block():
    plain: Any = model(head="meanP").visual.eval()
    video = model(head="meanP", temporal_module="tsm").eval()
    for found, clip in zip(video.encode(frames()), normalize(frames()), strict=True):
        x = plain._embeds(clip)
        for block in plain.transformer.resblocks:
            x = block(shifted(x))
        expected = (plain.ln_post(x[:, 0]) @ plain.proj).mean(dim=0)
        torch.testing.assert_close(found, expected)
    assert "visual.transformer.resblocks.1.net.attn.in_proj_weight" in video.state_dict()
    assert (video.encode(frames()) - model(head="meanP").eval().encode(frames())).abs().max() > 0.01


@torch.no_grad()
def test_joint_attends_to_all_frames_at_once():
    plain: Any = model(head="meanP").visual.eval()
    video = model(head="meanP", joint=True).eval()
    time = video.get_parameter("visual.time_embedding")
    token = plain.class_embedding + plain.positional_embedding[0]
    for found, clip in zip(video.encode(frames()), normalize(frames()), strict=True):
        patches = plain.conv1(clip).flatten(2).transpose(1, 2)  # [T, N, C]
        patches = patches + plain.positional_embedding[1:] + time[:, None]
        rows = torch.stack(
            [token] + [patches[t, n] for n in range(patches.shape[1]) for t in range(T)]
        )
        x = plain.transformer(plain.ln_pre(rows[None]))
        torch.testing.assert_close(found, (plain.ln_post(x[:, 0]) @ plain.proj)[0])


def test_options_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"head: found 'Transf'; allowed: meanP with joint"):
        actionclip_options(joint=True)
    with pytest.raises(ConfigError, match="joint: found true with temporal_module tsm"):
        model(head="meanP", joint=True, temporal_module="tsm")
    with torch.device("meta"):
        resnet = build_clip("RN50", 32, device="meta")
        with pytest.raises(ConfigError, match="joint: the vision tower is a ModifiedResNet"):
            ActionClip(resnet, actionclip_options(head="meanP", joint=True), T)
        other = build_clip("convnext_base", 32, device="meta")
        with pytest.raises(ConfigError, match="tsm: the vision tower is a TimmModel"):
            ActionClip(other, actionclip_options(temporal_module="tsm"), T)


def kl(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the rows of KL(softmax(10 * same class) || softmax(logits))."""
    targets = (10.0 * (labels[:, None] == labels)).softmax(dim=1)
    return (targets * (targets.log() - logits.log_softmax(dim=1))).sum(dim=1).mean()


def test_the_loss_is_of_the_drawn_prompts():
    video = model()
    video.logit_scale.data.fill_(2.0)
    features, rows = noise(5, 4, D), noise(6, 3, D)
    labels, texts = torch.tensor([1, 0, 1, 1]), torch.tensor([2, 0, 1, 2])  # two of class 1
    cosines = functional.cosine_similarity(features[:, None], rows[texts], dim=-1)
    logits = torch.tensor(2.0).exp() * cosines
    expected = (kl(logits, labels) + kl(logits.T, labels)) / 2
    loss = video.loss(features, Batch(labels=labels, texts=texts), class_text(rows[None]))
    torch.testing.assert_close(loss, expected)
    with torch.autocast("cpu", torch.bfloat16):
        again = video.loss(features, Batch(labels=labels, texts=texts), class_text(rows[None]))
    torch.testing.assert_close(again, expected)


def test_gradients_reach_the_head_both_towers_and_the_scale():
    video, text = model(head="LSTM").train(), prompts(1)
    labels = torch.tensor([2, 0])
    video.loss(
        video.encode(frames()), Batch(labels=labels, texts=labels), video.class_text(text)
    ).backward()
    named = dict(video.named_parameters())
    unused = {"fusion_model.frame_position_embeddings.weight"}
    assert {n for n, p in named.items() if p.grad is None} == unused
    assert all(p.grad.abs().sum() > 0 for p in named.values() if p.grad is not None)
    roots = {name.split(".")[0] for name in named}
    assert roots == {"visual", "fusion_model", "text", "logit_scale"}


def test_probabilities_are_averaged_over_templates_and_then_views():
    video, features, text = model(), noise(7, 5, 3, D), noise(8, 4, 6, D)
    expected = torch.zeros(5, 6)
    for view in range(3):
        for template in text:
            cosines = functional.cosine_similarity(features[:, view, None], template, dim=-1)
            expected += (100 * cosines).softmax(dim=-1) / (3 * 4)
    torch.testing.assert_close(video.score(features, class_text(text)), expected)


@torch.no_grad()
def test_prompts_are_encoded_in_blocks_without_gradients(monkeypatch: pytest.MonkeyPatch):
    video, text = model(), prompts(3)
    assert video.text is not None
    tower: Any = video.text.tower
    encode, sizes = tower.encode_text, []
    monkeypatch.setattr(tower, "encode_text", lambda x: sizes.append(len(x)) or encode(x))
    whole = video.class_text(text).class_embeddings
    assert sizes == [9]
    assert whole.shape == (3, 3, D)
    expected = torch.stack([functional.normalize(encode(ids), dim=-1) for ids in text.token_ids])
    torch.testing.assert_close(whole, expected)
    monkeypatch.setattr(text_tower, "BLOCK", 4)
    torch.testing.assert_close(video.class_text(text).class_embeddings, whole)
    assert sizes == [9, 4, 4, 1]
    with torch.enable_grad():  # a step's prompts are few, and need one graph
        video.class_text(text)
    assert sizes == [9, 4, 4, 1, 9]


def test_a_frozen_text_tower_is_no_part_of_the_model():
    video, text = model(text_tower="frozen"), prompts()
    assert {name.split(".")[0] for name in video.state_dict()} == {
        "visual",
        "fusion_model",
        "logit_scale",
    }
    assert video.class_text(text) is text


def test_the_loop_is_told_what_the_options_say():
    video = model(train_sampler="centers", test_sampler="first", authors_test_batch=64)
    found = (video.train_sampler, video.test_sampler, video.authors_batch)
    assert found == ("centers", "first", 64)
    assert video.draws_templates
    assert video.compares_videos


@pytest.mark.parametrize("tower", ["trained", "frozen"])
def test_activation_checkpointing_changes_no_gradient(tower: str):
    gradients = []
    for enable in (False, True):
        video, text = model(text_tower=tower).train(), prompts(1)
        video.set_grad_checkpointing(enable)
        labels = torch.tensor([2, 0])
        features, rows = video.encode(frames()), video.class_text(text)
        video.loss(features, Batch(labels=labels, texts=labels), rows).backward()
        gradients.append({n: p.grad for n, p in video.named_parameters()})
        towers = ["visual.transformer"] + ["text.tower.transformer"] * (tower == "trained")
        states = [video.get_submodule(name).grad_checkpointing for name in towers]
        assert states == [enable] * len(towers)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_a_text_tower_in_a_module_of_its_own_can_be_checkpointed():
    with torch.device("meta"):
        clip: Any = build_clip("coca_ViT-B-32", 32, device="meta")
        ActionClip(clip, actionclip_options(head="meanP"), T).set_grad_checkpointing()
    assert clip.text.transformer.grad_checkpointing

from typing import Any

import open_clip
import pytest
import torch
from open_clip.coca_model import CoCa
from open_clip.model import CLIP, CustomTextCLIP
from torch import Tensor, nn
from torch.nn import functional

from clipzoo.methods.parts.method import Batch
from clipzoo.methods.parts.raw import frame_embeddings
from clipzoo.methods.text4vis import Text4Vis
from clipzoo.models.clip import build_clip
from parity.inputs import class_text
from tiny import normalize, text4vis_options

T = 3


def model(num_segments: int = T, **options: Any) -> Text4Vis:
    torch.manual_seed(0)
    return Text4Vis(build_clip("ViT-demo-16", 32), text4vis_options(**options), num_segments)


def frames(batch: int = 2, size: int = 32) -> Tensor:
    """uint8 [batch, T, 3, size, size]."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (batch, T, 3, size, size), generator=generator, dtype=torch.uint8)


def meta_clip(arch: str) -> nn.Module:
    """Any open_clip model without memory for its parameters."""
    config = open_clip.get_model_config(arch)
    assert config is not None
    kind = CustomTextCLIP if config.pop("custom_text", False) else CLIP
    with torch.device("meta"):
        return (CoCa if "multimodal_cfg" in config else kind)(**config)


@pytest.mark.parametrize(
    ("arch", "size", "dim", "heads"),
    [
        ("ViT-L-14-336", 336, 768, 12),
        ("RN50", 224, 1024, 8),  # text width 512
        ("coca_ViT-B-32", 224, 512, 8),  # a tower that gives a tuple
        ("ViT-B-16-SigLIP", 224, 768, 12),  # timm tower, separate text module
        ("convnext_base", 224, 512, 8),  # timm tower that is not a ViT
    ],
)
def test_any_tower_of_open_clip_gives_video_embeddings(arch: str, size: int, dim: int, heads: int):
    with torch.device("meta"):
        video = Text4Vis(meta_clip(arch), text4vis_options(), T).eval()
        features = video.encode(torch.zeros(2, T, 3, size, size, dtype=torch.uint8))
    assert features.shape == (2, dim)
    attention = video.get_submodule("fusion_model.transformer.resblocks.0.attn")
    assert attention.num_heads == heads


def test_the_text_tower_is_no_part_of_the_model():
    roots = {name.split(".")[0] for name in model().state_dict()}
    assert roots == {"visual", "fusion_model", "logit_scale"}


@torch.no_grad()
def test_videos_are_encoded_independently_of_their_batch():
    video = model().eval()
    together = video.encode(frames())
    alone = torch.cat([video.encode(clip[None]) for clip in frames()])
    torch.testing.assert_close(together, alone)


def test_a_clip_of_another_length_is_refused():
    with pytest.raises(ValueError, match="found 2 per clip; allowed: num_segments = 3"):
        model().encode(frames()[:, :2])


@torch.no_grad()
@pytest.mark.parametrize("options", [{"num_segments": 1}, {"joint": True}])
def test_one_embedding_a_clip_passes_no_head(options: dict[str, Any]):
    video = model(**options).eval()
    clip = frames()[:, : video.num_segments]
    torch.testing.assert_close(
        video.encode(clip), frame_embeddings(video.visual, normalize(clip))[:, 0]
    )
    assert not any(p.requires_grad for p in video.fusion_model.parameters())


def test_loss_is_the_cross_entropy_of_learned_scale_times_cosine():
    video = model()
    video.logit_scale.data.fill_(2.0)
    features, text = torch.randn(2, 128), torch.randn(1, 4, 128)
    cosine = functional.cosine_similarity(features[:, None], text, dim=-1)
    expected = functional.cross_entropy(cosine * torch.tensor(2.0).exp(), torch.tensor([3, 1]))
    labels = torch.tensor([3, 1])
    loss = video.loss(features, Batch(labels=labels, texts=labels), class_text(text))
    torch.testing.assert_close(loss, expected)


def test_logits_keep_float32_under_autocast():
    video = model()
    features, text = torch.randn(2, 128), torch.randn(1, 4, 128)
    exact = video.logits(features, text)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(video.logits(features, text), exact)


def test_scores_average_views_before_normalization_and_normalized_templates():
    video = model()
    features = torch.tensor([[[10.0, 0.0], [0.0, 1.0]]])  # the long first view decides
    text = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[5.0, 0.0], [0.0, 0.2]]])
    expected = (100 * functional.normalize(torch.tensor([[5.0, 0.5]]))).softmax(dim=-1)
    torch.testing.assert_close(video.score(features, class_text(text)), expected)


@pytest.mark.parametrize("options", [{}, {"temporal_module": "tsm"}, {"joint": True}])
def test_activation_checkpointing_changes_no_gradient(options: dict[str, Any]):
    gradients = []
    for enable in (False, True):
        video = model(**options)
        video.set_grad_checkpointing(enable)
        video.train().encode(frames()).square().sum().backward()
        gradients.append(video.visual.get_parameter("conv1.weight").grad)
        assert video.visual.get_submodule("transformer").grad_checkpointing == enable
    torch.testing.assert_close(gradients[0], gradients[1])

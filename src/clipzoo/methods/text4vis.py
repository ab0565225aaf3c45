"""Text4Vis: CLIP's vision tower per frame, a temporal head, a frozen text classifier.

Paper: Wu, Sun, Ouyang, "Revisiting Classifier: Transferring Vision-Language Models for Video
Recognition", AAAI 2023, arXiv 2207.01297.

With frame embeddings x_t = visual(frame_t) and class embeddings w_k (frozen):

    v = mean_t(x_t)                                     head None
    v = mean_t(x_t + transformer(x + positions)_t)      head Transf
    training: cross entropy of exp(logit_scale) * cos(v, w_k)
    testing:  softmax over k of 100 * cos(mean of v over views, w_k)

Parameters have the names of the released checkpoints: visual.*, fusion_model.*, logit_scale. The
in-network options (`tsm`, `tokenshift`, `tokent1d`, joint space-time) have the authors' names too.

Deviations from the authors' code: cosines are float32 under autocast; an option is refused where
it could not work (joint space-time together with another option, or in a tower that is not a ViT),
where the authors' code ignores it or fails later.
"""

from typing import Annotated, Any, Literal

from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from clipzoo.config import ConfigError, NoneWord, Section, require
from clipzoo.methods.parts import temporal
from clipzoo.methods.parts.similarity import scaled_cosines, text4vis_probabilities
from clipzoo.methods.parts.text_tower import TextTower

POSITIONS = 77
"""Frame positions where the text tower has no context length: those of the released heads."""


class Options(Section):
    """`text4vis:` of params.yaml."""

    head: Annotated[Literal["Transf", "None"], NoneWord]
    """Frames to video: temporal Transformer, or mean."""
    head_layers: int = Field(ge=1)
    """Layers of the temporal Transformer (6 in the paper)."""
    temporal_module: Literal["none", "tsm", "tokenshift", "tokent1d"]
    """Exchange between frames inside the vision tower."""
    joint: bool
    """Joint space-time attention inside the vision tower."""
    loss: Literal["ce", "infonce"]
    """ce: against all classes; infonce: videos against the texts of their batch."""
    text_tower: Literal["frozen", "trained"]
    """Whether infonce trains the text tower too, at lr * clip_ratio."""

    @model_validator(mode="after")
    def _infonce_trains_text(self) -> "Options":
        ok = self.text_tower == "frozen" or self.loss == "infonce"
        allowed = "frozen, where text4vis.loss is not infonce"
        require((ok, "text_tower", self.text_tower, allowed))
        return self


class Text4Vis(nn.Module):
    """The model that is trained, tested and saved; the frozen text tower stays outside.

    Args:
        clip_model: any open_clip model. Its vision tower and logit_scale become part of this module
            (and are changed in place by `temporal_module` and `joint`); the rest is only asked for
            its sizes.
        head: `Transf` or `None`.
        num_segments: T, frames a clip.
        head_layers: blocks of the temporal Transformer, 6 in the paper.
        temporal_module: `none`, `tsm`, `tokenshift` or `tokent1d`: exchange between frames inside
            the vision tower.
        joint: joint space-time attention inside the vision tower.
        text_tower: `frozen` (outside of this module) or `trained` (part of it, as `text`).

    Raises:
        ConfigError: an unknown option, or one that this tower cannot have.
    """

    def __init__(
        self,
        clip_model: nn.Module,
        *,
        head: str,
        num_segments: int,
        head_layers: int = 6,
        temporal_module: str = "none",
        joint: bool = False,
        text_tower: str = "frozen",
    ) -> None:
        super().__init__()
        sizes = _text_sizes(clip_model)
        tower = clip_model.get_submodule("visual")
        self.visual = with_temporal_module(tower, temporal_module, joint, num_segments)
        self.fusion_model = temporal.TemporalHead(
            head,
            width=sizes["embed_dim"],
            heads=sizes["width"] // temporal.HEAD_WIDTH,
            layers=head_layers,
            positions=max(sizes["context_length"], num_segments),
        )
        self.logit_scale = nn.Parameter(clip_model.get_parameter("logit_scale").detach().clone())
        self.text = TextTower(clip_model) if text_tower == "trained" else None
        self.num_segments = num_segments
        # As in the reference, one embedding a clip needs no head. Without gradients its parameters
        # stay out of DDP's exchange, which would otherwise wait for them.
        self.uses_head = not joint and num_segments > 1
        self.fusion_model.requires_grad_(self.uses_head)

    def encode(self, frames: Tensor) -> Tensor:
        """Video embeddings [B, D], before normalisation, of normalised frames [B, T, 3, H, W]."""
        batch, num_frames = frames.shape[:2]
        if num_frames != self.num_segments:
            raise ValueError(
                f"frames: found {num_frames} a clip; allowed: num_segments = {self.num_segments}"
            )
        features = self.encode_frames(frames)
        if not self.uses_head:
            return features.reshape(batch, -1)
        return self.fusion_model(features)

    def encode_text(self, token_ids: Tensor) -> Tensor:
        """Class embeddings [P, K, D] of token ids [P, K, L], by the trained text tower."""
        assert self.text is not None, "only a model with text_tower 'trained' encodes text"
        return self.text(token_ids)

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Frame embeddings [B, T, D] of frames [B, T, 3, H, W]; [B, 1, D] under joint attention."""
        features = self.visual(frames.flatten(0, 1))  # [BT, 3, H, W] -> [BT, D]
        if isinstance(features, tuple):
            features = features[0]  # CoCa's tower gives (pooled, tokens)
        return features.reshape(len(frames), -1, features.shape[-1])

    def score(self, features: Tensor, class_embeddings: Tensor) -> Tensor:
        """Probabilities [N, K] of features [N, V, D] of `encode`, class embeddings [P, K, D]."""
        return text4vis_probabilities(features, class_embeddings)

    def logits(self, features: Tensor, class_embeddings: Tensor) -> Tensor:
        """exp(logit_scale) * cos, [B, K] float32; class embeddings [P, K, D] or [K, D]."""
        return scaled_cosines(features, class_embeddings, self.logit_scale.float().exp())

    def loss(self, features: Tensor, labels: Tensor, class_embeddings: Tensor) -> Tensor:
        """Mean cross entropy (a scalar) of features [B, D] and labels [B] int64."""
        return functional.cross_entropy(self.logits(features, class_embeddings), labels)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the vision tower's activations in the backward pass (ResNets keep theirs)."""
        visual: Any = self.visual
        visual.set_grad_checkpointing(enable)


def with_temporal_module(
    visual: nn.Module, temporal_module: str, joint: bool, num_segments: int
) -> nn.Module:
    """The vision tower with an in-network temporal option; changed in place.

    TSM shifts before every block of a ViT, and before the first convolution of every block of a
    ResNet (of every other block where stage 3 has 23 blocks or more).

    Raises:
        ConfigError: an unknown option, or one that this tower cannot have.
    """
    if temporal_module not in temporal.TEMPORAL_MODULES:
        raise ConfigError(
            f"temporal_module: found {temporal_module!r}; "
            f"allowed: {', '.join(temporal.TEMPORAL_MODULES)}"
        )
    if joint and temporal_module != "none":
        raise ConfigError(
            f"joint: found true with temporal_module {temporal_module}; allowed: none"
        )
    if temporal_module == "none" and not joint:
        return visual
    if isinstance(visual, ModifiedResNet) and not joint:
        # The reference has one option for ResNets, whatever its name.
        _shift_resnet(visual, num_segments)
        return visual
    if not isinstance(visual, VisionTransformer):
        raise ConfigError(
            f"{'joint' if joint else temporal_module}: the vision tower is a "
            f"{type(visual).__name__}; allowed: open_clip's ViT (and, for tsm, its ResNet)"
        )
    if joint:
        return temporal.JointTower(visual, num_segments)
    blocks = visual.transformer.resblocks
    for i, block in enumerate(blocks):
        blocks[i] = _timed_block(block, temporal_module, num_segments)
    return visual


def _timed_block(block: nn.Module, temporal_module: str, num_segments: int) -> nn.Module:
    if temporal_module == "tsm":
        return temporal.ShiftedBlock(block, num_segments)
    if not isinstance(block, ResidualAttentionBlock):
        raise ConfigError(
            f"{temporal_module}: the tower has blocks of type {type(block).__name__}; "
            "allowed: open_clip's plain blocks"
        )
    if temporal_module == "tokenshift":
        return temporal.ControlledBlock(block, temporal.TokenShift(num_segments))
    width = block.ln_1.normalized_shape[0]
    return temporal.ControlledBlock(block, temporal.TokenT1D(width, num_segments))


def _shift_resnet(visual: ModifiedResNet, num_segments: int) -> None:
    every = 2 if len(visual.layer3) >= 23 else 1
    for stage in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        blocks: list[Any] = list(stage)
        for block in blocks[::every]:
            block.conv1 = temporal.ShiftedConv(block.conv1, num_segments)


def _text_sizes(clip_model: Any) -> dict[str, int]:
    """Embedding size, text width and context length of any open_clip model."""
    text: Any = getattr(clip_model, "text", clip_model)  # CustomTextCLIP, CoCa: a tower of its own
    projection = getattr(text, "text_projection", None)
    if isinstance(projection, nn.Linear):
        embed_dim = projection.out_features
    elif projection is not None:
        embed_dim = projection.shape[1]
    else:
        embed_dim = getattr(text, "output_dim", None) or clip_model.visual.output_dim
    norm = getattr(text, "ln_final", None)
    width = norm.normalized_shape[0] if norm is not None else embed_dim
    context_length = getattr(clip_model, "context_length", None) or POSITIONS
    return {"embed_dim": int(embed_dim), "width": int(width), "context_length": int(context_length)}

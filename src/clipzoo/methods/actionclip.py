"""ActionCLIP: both towers of CLIP trained on videos and prompted class names.

Paper: Wang, Xing, Liu, "ActionCLIP: A New Paradigm for Video Action Recognition", arXiv 2109.08472.

With frame embeddings x_t = visual(frame_t) and the text embedding w_pk of class k in template p:

    v = head(x_1 .. x_T)                    parts/actionclip_heads.py: meanP, Transf, LSTM, ...
    training: the symmetric KL loss of exp(logit_scale) * cos(v_i, w_j), i and j the clips of a
              step; w_j is of clip j's class in a template drawn for it
    testing:  mean over p of softmax over k of 100 * cos(v, w_pk); mean over views

Parameters have the names of the released checkpoints, after `fusion_model.` for the head and
`text.tower.` for the text tower.

Deviations from the authors' code: cosines are float32 under autocast, and the towers train by
autocast with float32 weights, whereas theirs are rounded to float16 after every step. They have no
test of several views, so the mean over views is ours. Their joint space-time attention cannot run;
ours is that of Text4Vis, and so is `tsm` in a ResNet, where theirs takes ViTs only. A text tower
that is not trained (`fix_text` in their configs) is not a part of the model.
"""

from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from clipzoo.methods.parts.dropout import clip_keys
from clipzoo.methods.parts.losses import nce_loss
from clipzoo.methods.parts.method import Batch
from clipzoo.methods.parts.released import clip_and_head
from clipzoo.methods.parts.similarity import (
    actionclip_probabilities,
    scaled_cosines,
    template_cosines,
)
from clipzoo.methods.parts.video import VideoMethod
from clipzoo.models.text import ClassText
from clipzoo.sections import Section, require


class Options(Section):
    """The section `actionclip` of params.yaml."""

    head: Literal["meanP", "Conv_1D", "LSTM", "Transf", "Transf_cls"]
    """Frame embeddings -> video embedding."""
    head_layers: int = Field(ge=1, le=100)
    """Layers of the heads Transf and Transf_cls."""
    temporal_module: Literal["none", "tsm"]
    """Shifts channels between frames before each block of the vision tower."""
    joint: bool
    """One attention over the patches of all frames, in the vision tower; the head is then meanP,
    since there is one embedding for a clip."""
    text_tower: Literal["trained", "frozen"]
    """Whether the text tower is trained too, at lr * tower_lr_ratio."""
    train_sampler: Literal["ticks", "centers"]
    """Frames in training: one random frame of each part of the video, or the centers."""
    test_sampler: Literal["centers", "first"]
    """Frames in validations and tests: the centers of the parts, in one clip; or the first ones,
    and later ones in later clips."""
    authors_test_batch: int = Field(ge=0)
    """Videos in a batch of the authors' tests, which drop the last, partial one; 0 = no such
    protocol."""

    @model_validator(mode="after")
    def _check_joint(self) -> "Options":
        fits = not self.joint or self.head == "meanP"
        require((fits, "head", self.head, "meanP with joint, which gives one embedding a clip"))
        return self


def read_released(content: dict[str, Any], where: str) -> dict[str, Tensor]:
    """As `MethodSpec.read_released`, of a file as `clip_and_head` reads it (meanP has no head).

    Raises:
        WeightsError: there is no whole CLIP, or no head of this method.
    """
    clip, heads = clip_and_head(content, where, "actionclip")
    tensors = {f"fusion_model.{name}": tensor for name, tensor in heads.items()}
    for name, tensor in clip.items():
        of_video = name.startswith("visual.") or name == "logit_scale"
        tensors[name if of_video else f"text.tower.{name}"] = tensor
    return tensors


class ActionClip(VideoMethod):
    """The model that is trained, tested and saved; a frozen text tower is not part of it.

    `towers` and `num_segments` are those of `VideoMethod`.
    """

    compares_videos = True
    draws_templates = True

    def __init__(self, towers: nn.Module, options: Options, num_segments: int) -> None:
        super().__init__(towers, options, num_segments)
        self.drops_units = options.head == "Transf_cls"
        self.train_sampler = options.train_sampler
        self.test_sampler = options.test_sampler
        self.authors_batch = options.authors_test_batch

    def encode(self, inputs: Tensor) -> Tensor:
        """Video embeddings [b, D], before L2 normalization, of uint8 frames [b, T, 3, S, S]."""
        # Dropout draws by the content of a clip, so that a step draws alike however it is split.
        keys = [clip_keys(inputs)] if self.training and self.drops_units else []  # [b] int64
        return self.video_embeddings(self.normalize(inputs), *keys)

    def loss(self, features: Tensor, batch: Batch, text: ClassText) -> Tensor:
        """The symmetric KL loss of the clips of a whole step and their prompts.

        Args:
            features: video embeddings [b, D].
            batch: the clips; `texts` are the columns of their drawn prompts.
            text: class embeddings [1, U, D] of the step's prompts.
        """
        prompts = text.class_embeddings[0][batch.texts]  # [1, U, D] -> [U, D] -> [b, D]
        logits = scaled_cosines(features, prompts, self.logit_scale.float().exp())  # [b, b]
        return nce_loss(logits, batch.labels)

    def similarity(self, features: Tensor, text: ClassText) -> Tensor:
        """The mean over templates of cosines, [N, V, K] float32, of video embeddings [N, V, D]."""
        # [N, V, D] -> [N, V, P, K] -> [N, V, K]
        return template_cosines(features, text.class_embeddings, 1.0).mean(dim=-2)

    def score(self, features: Tensor, text: ClassText) -> Tensor:
        """Probabilities [N, K] float32 of video embeddings [N, V, D], with all P templates."""
        by_view = [
            actionclip_probabilities(view, text.class_embeddings)  # [N, D] -> [N, K]
            for view in features.unbind(dim=1)
        ]
        return torch.stack(by_view).mean(dim=0)  # [V, N, K] -> [N, K]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the activations of the trained towers in the backward pass."""
        super().set_grad_checkpointing(enable)
        if self.text is not None:
            self.text.set_grad_checkpointing(enable)

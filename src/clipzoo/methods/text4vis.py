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

Deviations from the authors' code: cosines are float32 under autocast; an option that cannot work
(joint space-time together with another option, or in a tower that is not a ViT) is refused, whereas
the authors' code ignores it or fails later.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from clipzoo.methods.parts.losses import nce_loss
from clipzoo.methods.parts.method import Batch
from clipzoo.methods.parts.released import refuse_others
from clipzoo.methods.parts.similarity import scaled_cosines, text4vis_probabilities
from clipzoo.methods.parts.video import VideoMethod
from clipzoo.models import archives
from clipzoo.models.text import ClassText
from clipzoo.sections import NoneWord, Section, require
from clipzoo.tensors import WeightsError


class Options(Section):
    """The section `text4vis` of params.yaml."""

    head: Annotated[Literal["Transf", "None"], NoneWord]
    """Frames to video: temporal Transformer, or mean."""
    head_layers: int = Field(ge=1, le=1000)
    """Layers of the temporal Transformer (6 in the paper)."""
    temporal_module: Literal["none", "tsm", "tokenshift", "tokent1d"]
    """Exchange between frames inside the vision tower."""
    joint: bool
    """Joint space-time attention inside the vision tower."""
    loss: Literal["ce", "infonce"]
    """ce: against all classes; infonce: videos against the texts of the same step."""
    text_tower: Literal["frozen", "trained"]
    """Whether infonce trains the text tower too, at lr * tower_lr_ratio."""

    @model_validator(mode="after")
    def _check_text_tower(self) -> "Options":
        fits = self.text_tower == "frozen" or self.loss == "infonce"
        require((fits, "text_tower", self.text_tower, "frozen, or loss infonce"))
        return self


def read_released(content: dict[str, Any], where: str) -> dict[str, Tensor]:
    """As `MethodSpec.read_released`, of {epoch, model_state_dict: visual.*, fusion_model.*,
    logit_scale} or the bare tensors.

    Raises:
        WeightsError: the file holds a whole CLIP, or it is of another method.
    """
    refuse_others(content, where, "text4vis")
    tensors = archives.named_tensors(content, where)
    if "text_projection" in tensors:
        raise WeightsError(
            f"{where}: holds a whole CLIP (unexpected text_projection, token_embedding.weight, "
            "...); give it as model.weights, not as model.checkpoint"
        )
    return tensors


class Text4Vis(VideoMethod):
    """The model that is trained, tested and saved; a frozen text tower is not part of it.

    `towers` and `num_segments` are those of `VideoMethod`.
    """

    def __init__(self, towers: nn.Module, options: Options, num_segments: int) -> None:
        super().__init__(towers, options, num_segments)
        self.compares_videos = options.loss == "infonce"
        # As in the reference, one embedding per clip needs no head. Its parameters then require no
        # gradients, for which DDP would wait.
        self.uses_head = not options.joint and num_segments > 1
        self.fusion_model.requires_grad_(self.uses_head)

    def encode(self, inputs: Tensor) -> Tensor:
        """Video embeddings [b, D], before L2 normalization, of uint8 frames [b, T, 3, S, S]."""
        return self.video_embeddings(self.normalize(inputs))

    def similarity(self, features: Tensor, text: ClassText) -> Tensor:
        """Cosines [N, V, K] float32 of video embeddings [N, V, D]; templates are averaged."""
        return scaled_cosines(features, text.class_embeddings, 1.0)

    def score(self, features: Tensor, text: ClassText) -> Tensor:
        """Probabilities [N, K] float32 of video embeddings [N, V, D]."""
        return text4vis_probabilities(features, text.class_embeddings)

    def logits(self, features: Tensor, class_embeddings: Tensor) -> Tensor:
        """exp(logit_scale) * cos [b, K] float32 of features [b, D] and [P, K, D] or [K, D]."""
        return scaled_cosines(features, class_embeddings, self.logit_scale.float().exp())

    def loss(self, features: Tensor, batch: Batch, text: ClassText) -> Tensor:
        """Mean cross entropy over the classes of `text`, or InfoNCE over the clips of the batch.

        Args:
            features: video embeddings [b, D].
            batch: the clips.
            text: class embeddings [P, K, D].
        """
        if not self.compares_videos:
            return functional.cross_entropy(
                self.logits(features, text.class_embeddings), batch.texts
            )
        texts = text.ensemble()[batch.texts]  # [P, U, D] -> [U, D] -> [b, D]
        return nce_loss(self.logits(features, texts), batch.labels)  # logits [b, b]

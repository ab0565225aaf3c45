"""BIKE, video branch: CLIP's towers, a temporal head, frames weighted by the words of a class.

Paper: Wu, Wang, Luo, Wang, Yang, Ouyang, "Bidirectional Cross-Modal Knowledge Exploration for Video
Recognition with Pre-trained Vision-Language Models", CVPR 2023, arXiv 2301.00182.

With frame embeddings x_t = visual(frame_t), the embedding c_k of a class's prompt and w_kl of its
tokens (both of the frozen text tower), all of unit length where a cosine is taken:

    h_t = x_t, or x_t + transformer(x + positions)_t         head None, head Transf
    s_k = cos(mean_t(h_t), c_k)                              interaction DP
    s_k = sum_t weights_kt cos(h_t, c_k)                     interaction VCS
          weights_kt = mean_l softmax_t(cos(w_kl, h_t) / temperature)
    training: InfoNCE of exp(logit_scale) * s between the videos and texts of a step
    testing:  softmax over k of s, without a scale; mean over views
    zero-shot, frames: softmax over k of 100 x_t . c_k, mean over frames and views; no head

Parameters have the names of the released checkpoints: visual.*, fusion_model.*, logit_scale.

Deviations from the authors' code: scores are float32 under autocast; gradients are those of the
whole step on any number of processes (theirs give the vision tower 1 / processes of it); every
number of views is allowed on the zero-shot path of frames, where theirs allows one. Their test
takes a second softmax: it changes no order of classes, so `score` has one, as their fusion with
attributes has, and `authors_map_softmaxes` has the mAP that they publish.
"""

from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor, nn

from clipzoo.methods.parts.heads import TemporalHead, head_sizes
from clipzoo.methods.parts.losses import ds_loss, nce_loss
from clipzoo.methods.parts.method import AuthorsMap, Batch, Method
from clipzoo.methods.parts.raw import FrameSoftmax, frame_embeddings
from clipzoo.methods.parts.released import clip_and_head, vision_tensors
from clipzoo.methods.parts.similarity import frame_weights, scaled_cosines, spotted_cosines
from clipzoo.models.text import ClassText
from clipzoo.sections import NoneWord, Section

LOSSES = {"nce": nce_loss, "ds": ds_loss}


class Options(Section):
    """The section `bike` of params.yaml."""

    head: Annotated[Literal["Transf", "None"], NoneWord]
    """Temporal Transformer over the frames, or none."""
    head_layers: int = Field(ge=1, le=1000)
    """Layers of the temporal Transformer (6 in the authors' code)."""
    interaction: Literal["VCS", "DP"]
    """Video Concept Spotting, or the dot product with the mean of the frames."""
    temperature: float = Field(gt=0, le=100)
    """The temperature of VCS's softmax over frames (0.01 in the paper)."""
    loss: Literal["nce", "ds"]
    """InfoNCE, or the same of logits weighted by a dual softmax."""
    train_sampler: Literal["inclusive", "ticks"]
    """Frames in training: inclusive is the authors', but ticks, that of Text4Vis, on Charades."""
    val_min_frames: int = Field(ge=0)
    """Validations during training leave out shorter videos (8 in the authors' code)."""
    zero_shot_scoring: Literal["head", "frames"]
    """What scores the videos of zero_shot: the model, or frame by frame its vision tower alone."""
    authors_map_softmaxes: Literal[1, 2, 3]
    """Softmaxes before the authors' mAP: 2, and 3 on ActivityNet."""
    authors_running_map_batch: int = Field(ge=0, multiple_of=8)
    """Videos in a batch of the authors' running mAP on Charades (64), a multiple of their 8
    processes; 0 = not a running one."""
    saliency: bool
    """Whether test saves and draws how much each class looks at each frame (VCS)."""
    score_training: bool
    """Whether test scores the training videos too, to choose the weight of a fusion with
    attributes (`fusion.with`)."""


def needs_tokens(options: Options) -> bool:
    """VCS compares frames with the tokens of the class prompts."""
    return options.interaction == "VCS"


def read_released(content: dict[str, Any], where: str) -> dict[str, Tensor]:
    """As `MethodSpec.read_released`, of a file as `clip_and_head` reads it.

    The text tower in the file is left out: it is frozen, and embed_labels reads it from the CLIP
    weights (`check_text_tower` compares the two).

    Raises:
        WeightsError: there is no whole CLIP, or no head of the video branch.
    """
    clip, heads = clip_and_head(content, where, "bike")
    if not any(name.startswith("transformer.") for name in heads):
        heads.pop("frame_position_embeddings.weight", None)  # saved unused with head None
    return vision_tensors(clip) | {f"fusion_model.{name}": tensor for name, tensor in heads.items()}


class Bike(Method):
    """The model that is trained, tested and saved; the frozen text tower is not part of it.

    Args:
        towers: any open_clip model. Its vision tower and logit_scale become part of this module; of
            its text tower only the sizes are read.
        num_segments: T, frames per clip.
    """

    compares_videos = True

    def __init__(self, towers: nn.Module, options: Options, num_segments: int) -> None:
        super().__init__(towers)
        self.visual = towers.get_submodule("visual")
        sizes = head_sizes(towers, num_segments)
        self.fusion_model = TemporalHead(options.head, layers=options.head_layers, **sizes)
        self.logit_scale = nn.Parameter(towers.get_parameter("logit_scale").detach().clone())
        self.options = options
        self.train_sampler = options.train_sampler
        self.val_min_frames = options.val_min_frames
        self.stores_saliency = options.saliency
        if options.authors_map_softmaxes > 1 or options.authors_running_map_batch:
            self.authors_map = AuthorsMap(
                softmaxes=options.authors_map_softmaxes,
                running_batch=options.authors_running_map_batch,
            )

    def encode(self, inputs: Tensor) -> Tensor:
        """What is compared with the classes, of uint8 frames [b, T, 3, S, S]: see `video`."""
        return self.video(self.normalize(inputs))

    def video(self, pixels: Tensor) -> Tensor:
        """Embeddings of normalized frames [b, T, 3, S, S], before L2 normalization: of the frames
        [b, T, D] for VCS, of the video [b, D] for DP."""
        features = frame_embeddings(self.visual, pixels)  # [b, T, D]
        if self.options.interaction == "VCS":
            return self.fusion_model.frames(features)  # [b, T, D]
        return self.fusion_model(features)  # [b, T, D] -> [b, D]

    def cosines(self, features: Tensor, text: ClassText) -> Tensor:
        """s [b, K] float32 in [-1, 1] of features of `encode` and K classes."""
        classes = text.ensemble()  # [P, K, D] -> [K, D]
        if self.options.interaction == "DP":
            return scaled_cosines(features, classes, 1.0)
        assert text.token_embeddings is not None, "embed_labels writes them for VCS"
        return spotted_cosines(features, classes, text.token_embeddings, self.options.temperature)

    def loss(self, features: Tensor, batch: Batch, text: ClassText) -> Tensor:
        """InfoNCE of the clips of a whole step and the texts of their classes, [b, b]."""
        cosines = self.cosines(features, text)  # [b, U], a column for each distinct class
        logits = self.logit_scale.float().exp() * cosines[:, batch.texts]  # [b, U] -> [b, b]
        return LOSSES[self.options.loss](logits, batch.labels)

    def similarity(self, features: Tensor, text: ClassText) -> Tensor:
        """s [N, V, K] float32 of features [N, V, ...]; with VCS, that of the spotted frames."""
        cosines = self.cosines(features.flatten(0, 1), text)  # [N, V, ...] -> [N V, K]
        return cosines.unflatten(0, features.shape[:2])  # [N V, K] -> [N, V, K]

    def score(self, features: Tensor, text: ClassText) -> Tensor:
        """Mean over views of the softmax of s, [N, K] float32, of features [N, V, ...]."""
        # [N, V, ...] -> [N, V, K] -> [N, K]
        return self.similarity(features, text).softmax(dim=-1).mean(dim=1)

    def saliency(self, features: Tensor, text: ClassText) -> Tensor | None:
        """VCS's weights [N, V, K, T] float32 of features [N, V, T, D]."""
        if self.options.interaction == "DP":
            return None
        assert text.token_embeddings is not None, "embed_labels writes them for VCS"
        frames = features.flatten(0, 1)  # [N, V, T, D] -> [N V, T, D]
        weights = frame_weights(frames, text.token_embeddings, self.options.temperature)
        return weights.unflatten(0, features.shape[:2])  # [N V, K, T] -> [N, V, K, T]

    def for_zero_shot(self) -> Method:
        """This model, or its vision tower alone: the path of the authors' rows on UCF101, HMDB51
        and ActivityNet."""
        return self if self.options.zero_shot_scoring == "head" else FrameSoftmax(self)

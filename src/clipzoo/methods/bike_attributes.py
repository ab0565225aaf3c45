"""BIKE, attributes branch: sentences of attributes instead of frames.

Paper: Wu, Wang, Luo, Wang, Yang, Ouyang, "Bidirectional Cross-Modal Knowledge Exploration for Video
Recognition with Pre-trained Vision-Language Models", CVPR 2023, arXiv 2301.00182.

A video stands for the sentence `This is a video about a_1,...,a_5` of its best attributes (stage
`attributes`). With the frozen text tower's embeddings s of a sentence and c_k of a class prompt,
both L2-normalized, and two MLPs (Linear, ReLU, Linear):

    score_k = cos(sentence_fc(s), query_fc(c_k))
    training: InfoNCE of exp(logit_scale) * score between the videos and texts of a step
    testing:  softmax over k of score, without a scale

Its probabilities are fused with those of the video branch (`evaluate/fusion.py`). The heads have
the names of the released checkpoints, below `fusion_model.`; the frozen text tower is `text.tower.`

Deviations from the authors' code: the gradients are those of the whole step, on any number of
processes; the frozen text tower stays in evaluation mode.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from clipzoo.clips.inputs import SentenceInputs
from clipzoo.config import ConfigError, Params
from clipzoo.methods.parts.heads import head_sizes
from clipzoo.methods.parts.losses import nce_loss
from clipzoo.methods.parts.method import Batch, Method
from clipzoo.methods.parts.released import refuse_others
from clipzoo.methods.parts.similarity import scaled_cosines
from clipzoo.methods.parts.text_tower import TextTower
from clipzoo.models import archives
from clipzoo.models.text import ClassText
from clipzoo.sections import Section
from clipzoo.tensors import WeightsError


class Options(Section):
    """The section `bike_attributes` of params.yaml."""

    prefix: str
    """What a sentence begins with, the blank at its end included."""
    num_attributes: int = Field(ge=1, le=1000)
    """Attributes in a sentence."""
    val_min_frames: int = Field(ge=0)
    """Validations during training leave out shorter videos (8 in the authors' code)."""
    score_training: bool
    """Whether test scores the training videos too, to choose the weight of the fusion."""


def read_released(content: dict[str, Any], where: str) -> dict[str, Tensor]:
    """As `MethodSpec.read_released`, of {model_state_dict: a whole CLIP in OpenAI's names,
    fusion_model_state_dict: query_fc.*, sentence_fc.*}; the vision tower is left out.

    Raises:
        WeightsError: there is no such head, or no text tower, or it is of another method.
    """
    refuse_others(content, where, "bike_attributes")
    head = content.get("fusion_model_state_dict")
    clip = content.get("model_state_dict")
    if not isinstance(head, dict) or not isinstance(clip, dict):
        raise WeightsError(
            f"{where}: found the keys {list(content)[:10]}; allowed: model_state_dict (a whole "
            "CLIP) and fusion_model_state_dict (query_fc.*, sentence_fc.*)"
        )
    tensors = {}
    for name, tensor in archives.named_tensors(clip, where).items():
        if not name.startswith("visual."):
            tensors[name if name == "logit_scale" else f"text.tower.{name}"] = tensor
    heads = archives.named_tensors(head, f"{where}: fusion_model_state_dict")
    return tensors | {f"fusion_model.{name}": tensor for name, tensor in heads.items()}


class AttributeHead(nn.Module):
    """Two MLPs [..., D] -> [..., D]: `query_fc` for class prompts, `sentence_fc` for sentences."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query_fc = _mlp(width)
        self.sentence_fc = _mlp(width)


def _mlp(width: int) -> nn.Sequential:
    layers = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
    for layer in (layers[0], layers[2]):
        assert isinstance(layer, nn.Linear)
        nn.init.normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)
    return layers


class BikeAttributes(Method):
    """The model that is trained, tested and saved, with the frozen text tower; no vision tower.

    Args:
        towers: any open_clip model. Its text tower and logit_scale become part of this module.
        num_segments: has no effect, as there are no frames.
    """

    compares_videos = True

    def __init__(self, towers: nn.Module, options: Options, num_segments: int) -> None:
        super().__init__(towers)
        self.visual = nn.Identity()  # nothing here sees a frame
        self.fusion_model = AttributeHead(head_sizes(towers, num_segments)["width"])
        self.logit_scale = nn.Parameter(towers.get_parameter("logit_scale").detach().clone())
        self.text = TextTower(towers).requires_grad_(False)
        self.val_min_frames = options.val_min_frames
        self.prefix, self.num_attributes = options.prefix, options.num_attributes

    def train(self, mode: bool = True) -> "BikeAttributes":
        """Training mode, but of the frozen text tower."""
        super().train(mode)
        self.text.eval()
        return self

    def sentence(self, attributes: Sequence[str]) -> str:
        """The sentence of a video's attributes, the best first; the first few are in it.

        Example: `This is a video about abseiling,rock climbing,ice climbing,bungee jumping,...`
        """
        if len(attributes) < self.num_attributes:
            raise ValueError(
                f"found {len(attributes)} attributes; allowed: bike_attributes.num_attributes, "
                f"{self.num_attributes}, or more"
            )
        return self.prefix + ",".join(attributes[: self.num_attributes])

    def open_inputs(self, params: Params, dataset: str, text: ClassText) -> SentenceInputs:
        """Sentences of the attributes of a dataset's videos, as token ids."""
        if self.num_attributes > params.attributes.top_k:
            raise ConfigError(
                f"bike_attributes.num_attributes: found {self.num_attributes}; allowed: at most "
                f"attributes.top_k, {params.attributes.top_k}"
            )
        length = text.token_ids.shape[-1]
        return SentenceInputs(params=params, dataset=dataset, sentence=self.sentence, length=length)

    def encode(self, inputs: Tensor) -> Tensor:
        """sentence_fc(s) [b, D] of the tokens of sentences, int64 [b, L]."""
        with torch.no_grad():
            sentences = self.text(inputs)  # [b, L] -> [b, D], L2-normalized
        return self.fusion_model.sentence_fc(sentences)

    def class_text(self, text: ClassText) -> ClassText:
        """The class text with query_fc(c) instead of each class embedding c, [P, K, D]."""
        classes = functional.normalize(text.class_embeddings.float(), dim=-1)
        return replace(text, class_embeddings=self.fusion_model.query_fc(classes))

    def loss(self, features: Tensor, batch: Batch, text: ClassText) -> Tensor:
        """InfoNCE both ways over the sentences [b, D] and the class texts of the batch."""
        texts = text.class_embeddings[:, batch.texts]  # [P, K, D] -> [P, b, D]
        logits = scaled_cosines(features, texts, self.logit_scale.float().exp())  # [b, b]
        return nce_loss(logits, batch.labels)

    def similarity(self, features: Tensor, text: ClassText) -> Tensor:
        """Cosines [N, V, K] float32 of features [N, V, D]; templates are averaged."""
        return scaled_cosines(features, text.class_embeddings, 1.0)

    def score(self, features: Tensor, text: ClassText) -> Tensor:
        """Probabilities [N, K] float32 of features [N, V, D]: softmax(cos), mean over views."""
        # [N, V, D] -> [N, V, K] -> [N, K]
        return self.similarity(features, text).softmax(dim=-1).mean(dim=1)

    def for_zero_shot(self) -> Method:
        """Raises ConfigError: only data.dataset has attributes."""
        raise ConfigError(
            "data.zero_shot: found a dataset; allowed: [], because model.method bike_attributes "
            "classifies videos by their attributes, which only data.dataset has"
        )

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """No effect: no gradient passes through the text tower."""

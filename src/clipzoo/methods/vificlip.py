"""ViFi-CLIP: CLIP fine-tuned on videos as it is, its frame embeddings averaged.

Paper: Rasheed, Khattak, Maaz, Khan, Khan, "Fine-tuned CLIP Models are Efficient Video Learners",
CVPR 2023, arXiv 2212.03640 (section 3.2).

With frame embeddings x_t = visual(frame_t), the text embedding w_k of class k in one prompt, and s
the exponential of logit_scale, which is trained:

    z = s * unit(mean_t(x_t))                        the features, so that their length is s
    logits_k = z . unit(w_k)
    training: cross entropy of the logits of all K classes, whose texts are encoded in every step;
              with soft targets where `augment` mixes clips or smooths labels
    testing:  mean over views of softmax over k of the logits

The parameters are CLIP's alone. `trained` says which of them learn: both towers and logit_scale,
or one tower. The token embedding never does: in the authors' code it is not part of the model, nor
of the released files, and stays that of the CLIP weights.

Deviations from the authors' code: the sum over views is a mean here, which ranks classes alike.
Embeddings, cosines and the mean over frames are float32 under autocast, whereas theirs are float16,
in tests too. Several clips of a test are at fixed places with the sampler `midpoints`; theirs are
random, as with `random`. Frames that are shrunk in tests are antialiased; theirs (OpenCV) are not.
Their second stage, which learns prompts for both towers of such a model, is not part of this file.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from clipzoo.methods.parts.losses import soft_cross_entropy
from clipzoo.methods.parts.method import Batch, Method
from clipzoo.methods.parts.raw import frame_embeddings
from clipzoo.methods.parts.released import refuse_others
from clipzoo.methods.parts.similarity import scaled_cosines
from clipzoo.methods.parts.text_tower import TextTower, with_own_text
from clipzoo.models import archives
from clipzoo.models.text import ClassText
from clipzoo.sections import Section
from clipzoo.tensors import WeightsError

TOKEN_EMBEDDING = "token_embedding.weight"
"""End of the name of the text tower's tensor that is not trained."""
PLACES = {"image_encoder.": "visual.", "text_encoder.": "text.tower."}
"""Prefixes in the released files -> those of the method's parameters."""


class Options(Section):
    """The section `vificlip` of params.yaml."""

    trained: Literal["both", "image", "text"]
    """What is trained: both towers and logit_scale, or the vision tower or the text tower alone."""
    test_sampler: Literal["midpoints", "random"]
    """Frames in validations and tests: the midpoints of the parts of a video, in several clips
    places at equal distances; or random ones, as the authors test with several clips."""


def read_released(content: dict[str, Any], where: str) -> dict[str, Tensor]:
    """As `MethodSpec.read_released`, of {model: image_encoder.*, text_encoder.*, logit_scale and
    prompt_learner.*, config, optimizer, ...}.

    The buffers of prompt_learner are the authors' prompts, for which ours are embedded again.

    Raises:
        WeightsError: there are no two towers in the authors' names, or learned prompts.
    """
    refuse_others(content, where, "vificlip")
    tensors = archives.named_tensors(content, where)
    if needed := {"image_encoder.proj", "text_encoder.text_projection"} - tensors.keys():
        raise WeightsError(
            f"{where}: missing {', '.join(sorted(needed))}; found the tensors "
            f"{', '.join(list(tensors)[:3])}, ...; allowed: image_encoder.*, text_encoder.* and "
            "logit_scale, as ViFi-CLIP's authors save them"
        )
    if prompts := [name for name in tensors if name.endswith(".ctx") or "VPT" in name]:
        raise WeightsError(
            f"{where}: holds learned prompts ({prompts[0]}, {len(prompts)} in all), of the "
            "authors' second stage, which is not supported; allowed: a fine-tuned model without "
            "prompts"
        )
    return {
        _named(name): tensor
        for name, tensor in tensors.items()
        if not name.startswith("prompt_learner.")
    }


def _named(name: str) -> str:
    """The parameter's name for a name in a released file."""
    for theirs, ours in PLACES.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


class ViFiClip(Method):
    """The model that is trained, tested and saved.

    Args:
        towers: any open_clip model. Its vision tower and logit_scale become part of this module,
            and so does its text tower, unless the vision tower alone is trained.
        num_segments: has no effect.
    """

    train_sampler = "tsn"
    takes_soft_targets = True
    of_clip = (f"text.tower.{TOKEN_EMBEDDING}",)

    def __init__(self, towers: nn.Module, options: Options, num_segments: int) -> None:
        super().__init__(towers)
        self.test_sampler = options.test_sampler
        self.visual = towers.get_submodule("visual")
        self.logit_scale = nn.Parameter(towers.get_parameter("logit_scale").detach().clone())
        self.text = None if options.trained == "image" else TextTower(towers)
        self.visual.requires_grad_(options.trained != "text")
        self.logit_scale.requires_grad_(options.trained == "both")
        for name, parameter in self.named_parameters():
            if name.endswith(TOKEN_EMBEDDING):
                parameter.requires_grad_(False)

    def encode(self, inputs: Tensor) -> Tensor:
        """Video embeddings [b, D] float32 of uint8 frames [b, T, 3, S, S], each as long as
        exp(logit_scale); in float32 even under autocast."""
        frames = frame_embeddings(self.visual, self.normalize(inputs))  # [b, T, D]
        videos = functional.normalize(frames.float().mean(dim=1), dim=-1)  # [b, T, D] -> [b, D]
        return self.logit_scale.float().exp() * videos

    def class_text(self, text: ClassText) -> ClassText:
        """The text as given, or with class embeddings [P, K, D] of the own text tower."""
        return with_own_text(self.text, text)

    def logits(self, features: Tensor, text: ClassText) -> Tensor:
        """exp(logit_scale) * cos, [..., K] float32, of features [..., D] of `encode`."""
        with torch.autocast(features.device.type, enabled=False):
            return features.float() @ text.ensemble().T  # [..., D] and [K, D] -> [..., K]

    def loss(self, features: Tensor, batch: Batch, text: ClassText) -> Tensor:
        """Mean cross entropy over all classes, with the targets of `batch` where they are soft.

        Args:
            features: of `encode`, [b, D].
            batch: the clips.
            text: class embeddings [P, K, D].
        """
        logits = self.logits(features, text)  # [b, K]
        if batch.targets is None:
            return functional.cross_entropy(logits, batch.texts)
        return soft_cross_entropy(logits, batch.targets)

    def similarity(self, features: Tensor, text: ClassText) -> Tensor:
        """Cosines [N, V, K] float32 of features [N, V, D]; templates are averaged."""
        return scaled_cosines(features, text.class_embeddings, 1.0)

    def score(self, features: Tensor, text: ClassText) -> Tensor:
        """Probabilities [N, K] float32 of features [N, V, D]: a softmax of each view, averaged."""
        return self.logits(features, text).softmax(dim=-1).mean(dim=1)  # [N, V, K] -> [N, K]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the activations of the trained towers in the backward pass."""
        super().set_grad_checkpointing(enable)
        if self.text is not None:
            self.text.set_grad_checkpointing(enable)

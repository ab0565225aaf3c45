"""The interface of a method: all that train, evaluate and serve use of it.

    inputs -> encode_training -> loss (training)
              encode -> features -> score (testing)
              class text -> class_text -^ both

`encode` returns the features that are gathered over processes, cached and saved; `score` needs only
these and the class text, has no parameters and runs on a CPU. So any metric, subset of classes or
fusion can be recomputed without the model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from clipzoo.clips.inputs import FrameInputs, Inputs
from clipzoo.clips.windows import Windows
from clipzoo.config import Params
from clipzoo.models.pixels import normalization, pixels_of
from clipzoo.models.text import ClassText


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The clips that a loss is computed over."""

    labels: Tensor
    """[b] int64: class ids, in 0 .. K - 1."""
    texts: Tensor
    """[b] int64: column of each clip's text in the class text passed to the loss. The labels, if
    it has all classes; a method that compares videos gets only the step's classes, and one that
    draws templates the step's prompts, each drawn once or more."""
    targets: Tensor | None = None
    """[b, K] float32 whose rows sum to 1: how much of each class is in a clip, by mixup, CutMix and
    label smoothing; None where these are off."""


@dataclass(frozen=True, kw_only=True)
class StepClips:
    """Which clips of an optimizer step are encoded at once in training.

    What a method draws at random must depend on these alone, never on the process or on how many
    clips are encoded at once.
    """

    seed: int
    """The seed of the run."""
    step: int
    """Number of the step in the run, from 0."""
    places: list[int]
    """The places of the clips in the step, 0 .. batch_size - 1, ascending, as are the inputs."""


@dataclass(frozen=True, kw_only=True)
class AuthorsMap:
    """The authors' own protocol for mAP."""

    softmaxes: int
    """How many are taken in all before the average precision; 1 = that of `score` alone. More
    change the order of the videos within a class, though not of the classes of a video."""
    running_batch: int
    """0, or the videos in a global batch: the mean, weighted by batch sizes, of the mAP over all
    videos so far, in the authors' shuffled order."""


class Method(nn.Module):
    """A model of videos and class texts; parameters are those of the released checkpoints.

    Args:
        towers: an open_clip model, whose `pixels` become those of this one.
    """

    compares_videos: bool = False
    """Whether the loss compares the videos of a step with each other, so that it cannot be summed
    over parts of the step."""
    visual: nn.Module
    """The vision tower."""
    shift: Tensor
    scale: Tensor
    draws_templates: bool = False
    """Whether a clip's text in training has one template, drawn for each clip and epoch; only if
    it `compares_videos`. The class text passed to the loss is then that of P = 1 template."""
    train_sampler: Literal["ticks", "inclusive", "centers", "tsn"] = "ticks"
    """How frames are drawn in training: a key of `sampling.TRAIN_SAMPLERS`."""
    test_sampler: Literal["first", "centers", "linspace", "midpoints", "random"] = "first"
    """Which frames a video gives in validations and tests: the first ones of its parts, later ones
    in later clips; in a single clip, the centers of its parts, or frames at equal distances from
    its first to its last one; or, in any number of clips, the midpoints of its parts, or random
    frames of them, which depend on the seed."""
    windows: Windows | None = None
    """What makes clips of equal time, in place of both samplers; None = nothing does."""
    takes_soft_targets: bool = False
    """Whether the loss uses `Batch.targets`. Mixup, CutMix and label smoothing need that."""
    val_min_frames: int = 0
    """Validations during training leave out videos with fewer frames."""
    of_clip: tuple[str, ...] = ()
    """Tensors that the files of the authors do not have, because they are those of the CLIP
    weights."""
    stores_saliency: bool = False
    """Whether test stores and draws `saliency`, which takes K T numbers a video."""
    authors_map: "AuthorsMap | None" = None
    """How the authors compute the mAP that they publish; None = as it is defined."""
    authors_batch: int = 0
    """Videos in a batch of the authors' evaluation, which drops the last, partial one; 0 = it
    drops none."""

    def __init__(self, towers: nn.Module) -> None:
        super().__init__()
        self.pixels = pixels_of(towers)
        # Released files do not have them, so neither do the model files.
        for name, value in zip(("shift", "scale"), normalization(self.pixels), strict=True):
            self.register_buffer(name, value, persistent=False)

    @property
    def has_text_tower(self) -> bool:
        """Whether classes are embedded by a text tower of its own, which it trains."""
        return getattr(self, "text", None) is not None

    @property
    def test_sampling(self) -> str:
        """How validations and tests choose frames: `test_sampler`, or `windows`."""
        return "windows" if self.windows else self.test_sampler

    def normalize(self, frames: Tensor) -> Tensor:
        """[..., 3, H, W] in 0 .. 255, uint8 or float32 -> float32 with mean and std of `pixels`."""
        return torch.addcmul(self.shift, frames.float(), self.scale)

    def open_inputs(self, params: Params, dataset: str, text: ClassText) -> Inputs:
        """What `encode` takes of the videos of a dataset; frames, unless a method says otherwise.

        Nothing is read before clips are asked for. A method of sentences takes their length from
        `text`, the class text of the dataset.
        """
        return FrameInputs(
            params=params,
            dataset=dataset,
            pixels=self.pixels,
            train_sampler=self.train_sampler,
            test_sampler=self.test_sampler,
            windows=self.windows,
        )

    def encode(self, inputs: Tensor) -> Tensor:
        """Features [b, D] or [b, T, D] of b clips of `open_inputs`; pixels are normalized here."""
        raise NotImplementedError

    def encode_training(self, inputs: Tensor, clips: StepClips) -> Tensor:
        """What `loss` takes of b clips in training: their features, unless a method says otherwise.

        Args:
            inputs: as those of `encode`. Mixed frames are float32 in 0 .. 255, not uint8.
            clips: which ones of the step they are.
        """
        return self.encode(inputs)

    def class_text(self, text: ClassText) -> ClassText:
        """The class text to classify with: unchanged, or re-encoded by the trained text tower."""
        return text

    def make_room(self, tensors: Mapping[str, Tensor], where: str) -> None:
        """Take on the sizes that only a file knows, such as the number of classes trained on.

        Args:
            tensors: the file's, by name, before they are loaded and whatever they are.
            where: the file, for messages.

        Raises:
            WeightsError: the file has other sizes than the options say.
        """

    def start_training(self, text: ClassText) -> None:
        """Keep what the model needs of the classes that it is trained on; `text` is on the CPU.

        Not called where a checkpoint is evaluated, which has it.
        """

    def loss(self, features: Tensor, batch: Batch, text: ClassText) -> Tensor:
        """Mean loss (a float32 scalar) over the clips of `batch`.

        Args:
            features: from `encode_training`, [b, D] or [b, T, D] by default.
            batch: the clips.
            text: from `class_text`.
        """
        raise NotImplementedError

    def similarity(self, features: Tensor, text: ClassText) -> Tensor:
        """Cosines [N, V, K] float32, in [-1, 1] up to rounding, of the arguments of `score`.

        They are for people: BIKE's probabilities are softmaxes of cosines without a scale, and so
        nearly uniform. `score` is a function of them there alone. The other methods average views
        or templates elsewhere, or multiply the features by the scale before the classes, and to
        divide it out again would change the last digits of published numbers.
        """
        raise NotImplementedError

    def score(self, features: Tensor, text: ClassText) -> Tensor:
        """Probabilities [N, K] float32 of features [N, V, D] or [N, V, T, D] of V views."""
        raise NotImplementedError

    def embedding_parts(self, features: Tensor) -> Tensor:
        """The vectors [..., D] whose mean is the embedding of a video: the features themselves,
        unless some of them serve `score` alone."""
        return features

    def for_zero_shot(self) -> "Method":
        """The model that zero_shot evaluates."""
        return self

    def saliency(self, features: Tensor, text: ClassText) -> Tensor | None:
        """How much each class looks at each frame: [N, V, K, T] float32, summing to 1 over frames,
        of features [N, V, T, D]; None if the method does not provide it."""
        return None

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the vision tower's activations in the backward pass (ResNets keep theirs)."""
        visual: Any = self.visual
        visual.set_grad_checkpointing(enable)

"""What train, evaluate and serve know of a method.

    inputs -> encode -> features -> loss (training), score (testing)
                            class text -> class_text -^

`encode` gives what is gathered over processes, cached and saved; `score` works on that alone, on a
CPU, and has no parameters. So any metric, subset of classes or fusion is computed again without
the model.
"""

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from clipzoo.models.text import ClassText


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Clips that a loss is computed over."""

    labels: Tensor
    """[b] int64: class ids, in 0 .. K - 1."""
    texts: Tensor
    """[b] int64: each clip's own column of the class text that the loss is given. The labels, if
    that holds all classes; a method that compares videos is given the step's distinct ones only."""


class Method(nn.Module):
    """A model of videos and class texts; parameters are those of the released checkpoints."""

    inputs: Literal["frames", "attributes"] = "frames"
    """Which clips `encode` takes: uint8 frames [b, T, 3, S, S], or int64 tokens [b, L]."""
    compares_videos: bool = False
    """Whether the loss sets the videos of a step against each other, so that it cannot be summed
    over parts of the step."""
    visual: nn.Module
    """The vision tower."""

    def encode(self, inputs: Tensor) -> Tensor:
        """Features [b, D] or [b, T, D] of `inputs`; pixels are normalised here."""
        raise NotImplementedError

    def class_text(self, text: ClassText) -> ClassText:
        """The class text that the method classifies by: as given, or by its own text tower."""
        return text

    def loss(self, features: Tensor, batch: Batch, text: ClassText) -> Tensor:
        """Mean loss (a float32 scalar) over the clips of `batch`.

        Args:
            features: of `encode`, [b, D] or [b, T, D].
            batch: the clips.
            text: of `class_text`.
        """
        raise NotImplementedError

    def score(self, features: Tensor, text: ClassText) -> Tensor:
        """Probabilities [N, K] float32 of features [N, V, D] or [N, V, T, D] of V views."""
        raise NotImplementedError

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the vision tower's activations in the backward pass (ResNets keep theirs)."""
        visual: Any = self.visual
        visual.set_grad_checkpointing(enable)

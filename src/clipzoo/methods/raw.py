"""The untrained CLIP as a method: its accuracy before any training.

Paper: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML
2021, arXiv 2103.00020 (zero-shot classification, here of several frames).

With frame embeddings x_t = visual(frame_t), of all views, and class embeddings w_k:

    fusion mean:     softmax over k of 100 * cos(mean_t(x_t), w_k)
    fusion softmax:  mean over t of the softmax over k of 100 * x_t . w_k

The first is the `raw_` baseline of the zero_shot stage. The second is how BIKE's authors
measure their zero-shot rows (arXiv 2301.00182): there x_t is *not* normalized.
"""

from typing import Literal

from torch import nn

from clipzoo.config import Section
from clipzoo.methods.parts.raw import FrameMean, FrameSoftmax


class Options(Section):
    """The section `raw` of params.yaml."""

    fusion: Literal["mean", "softmax"]
    """mean: of the frame embeddings; softmax: mean of the frames' probabilities."""


def build(towers: nn.Module, options: Options, num_segments: int) -> FrameMean:
    """Build the method from any open_clip model; `num_segments` has no effect."""
    return FrameMean(towers) if options.fusion == "mean" else FrameSoftmax(towers)

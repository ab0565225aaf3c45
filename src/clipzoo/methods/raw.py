"""The untrained CLIP as a method: its accuracy before any training.

Paper: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML
2021, arXiv 2103.00020 (zero-shot classification, here of several frames).

With frame embeddings x_t = visual(frame_t), of all views, and class embeddings w_k:

    fusion mean:             softmax over k of 100 * cos(mean_t(x_t), w_k)
    fusion normalized_mean:  softmax over k of 100 * cos(mean_t(x_t / |x_t|), w_k)
    fusion softmax:          mean over t of the softmax over k of 100 * x_t . w_k

The first is the `raw_` baseline of the zero_shot stage, and the rule of PE-Core's authors (arXiv
2504.13181, `encode_video` in core/vision_encoder/pe.py of facebookresearch/perception_models). The
second orders the classes of a video as Open-VCLIP does, whose score is the mean over frames of the
cosines (arXiv 2302.00624, slowfast/models/temporalclip_video_model.py of wengzejia1/Open-VCLIP):
its mean is not normalized again, which changes the probabilities, but not their order. The third is
how BIKE's authors measure their zero-shot rows (arXiv 2301.00182): there x_t is *not* normalized.
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from clipzoo.config import Section
from clipzoo.methods.parts.raw import FrameMean, FrameSoftmax, frame_embeddings


class Options(Section):
    """The section `raw` of params.yaml."""

    fusion: Literal["mean", "normalized_mean", "softmax"]
    """mean: of the frame embeddings; normalized_mean: of the same at unit length; softmax: mean of
    the frames' probabilities."""
    test_sampler: Literal["first", "centers", "linspace"]
    """Which frames of a video a test reads, as in `Method.test_sampler`."""


class NormalizedFrameMean(FrameMean):
    """CLIP's vision tower and the mean over frames, of which each counts the same.

    Args:
        towers: any open_clip model; its vision tower becomes part of this module.
    """

    def encode(self, inputs: Tensor) -> Tensor:
        """Video embeddings [b, D] float32 of uint8 frames [b, T, 3, S, S]; their norm is at most 1.

        In float32 even under autocast.
        """
        frames = frame_embeddings(self.visual, self.normalize(inputs))  # [b, T, D]
        return functional.normalize(frames.float(), dim=-1).mean(dim=1)  # [b, T, D] -> [b, D]


FUSIONS = {"mean": FrameMean, "normalized_mean": NormalizedFrameMean, "softmax": FrameSoftmax}


def build(towers: nn.Module, options: Options, num_segments: int) -> FrameMean:
    """Build the method from any open_clip model; `num_segments` has no effect."""
    model = FUSIONS[options.fusion](towers)
    model.test_sampler = options.test_sampler
    return model

"""The untrained CLIP as a video model: the baseline of every zero-shot comparison."""

from typing import Any

from torch import Tensor, nn

from clipzoo.config import ConfigError
from clipzoo.methods.parts.method import Batch, Method
from clipzoo.methods.parts.similarity import (
    bike_frame_probabilities,
    scaled_cosines,
    text4vis_probabilities,
)
from clipzoo.models.text import ClassText


class FrameMean(Method):
    """CLIP's vision tower and the mean over frames; nothing to train.

    Args:
        towers: any open_clip model; its vision tower becomes part of this module.
    """

    def __init__(self, towers: nn.Module) -> None:
        super().__init__(towers)
        self.visual = towers.get_submodule("visual")

    def encode(self, inputs: Tensor) -> Tensor:
        """Video embeddings [b, D] of uint8 frames [b, T, 3, S, S]."""
        frames = frame_embeddings(self.visual, self.normalize(inputs))  # [b, T, D]
        return frames.mean(dim=1)  # [b, T, D] -> [b, D]

    def loss(self, features: Tensor, batch: Batch, text: ClassText) -> Tensor:
        """Raises ConfigError: there is nothing to train."""
        raise ConfigError("train.epochs: the method raw has nothing to train; allowed: 0")

    def similarity(self, features: Tensor, text: ClassText) -> Tensor:
        """Cosines [N, V, K] float32 of video embeddings [N, V, D]; templates are averaged."""
        return scaled_cosines(features, text.class_embeddings, 1.0)

    def score(self, features: Tensor, text: ClassText) -> Tensor:
        """softmax(100 cos) [N, K] float32 of video embeddings [N, V, D]."""
        return text4vis_probabilities(features, text.class_embeddings)


class FrameSoftmax(FrameMean):
    """CLIP's vision tower; the probabilities of the frames are averaged (BIKE's zero-shot path).

    Args:
        towers: any module with a vision tower, which becomes part of this one.
    """

    def encode(self, inputs: Tensor) -> Tensor:
        """Frame embeddings [b, T, D], not normalized, of uint8 frames [b, T, 3, S, S]."""
        return frame_embeddings(self.visual, self.normalize(inputs))

    def similarity(self, features: Tensor, text: ClassText) -> Tensor:
        """The mean over frames of their cosines, [N, V, K] float32, of [N, V, T, D]."""
        by_frame = scaled_cosines(features, text.ensemble(), 1.0)  # [N, V, T, K]
        return by_frame.mean(dim=2)  # [N, V, T, K] -> [N, V, K]

    def score(self, features: Tensor, text: ClassText) -> Tensor:
        """Probabilities [N, K] float32 of frame embeddings [N, V, T, D]; templates are averaged."""
        classes = text.ensemble()  # [P, K, D] -> [K, D]
        frames = features.flatten(1, 2)  # [N, V, T, D] -> [N, V T, D]
        return bike_frame_probabilities(frames, classes)


def check_segments(pixels: Tensor, num_segments: int) -> None:
    """Raise ValueError unless clips [b, T, 3, S, S] have T = `num_segments` frames, which a tower
    that looks at whole clips needs."""
    if pixels.shape[1] != num_segments:
        raise ValueError(
            f"frames: found {pixels.shape[1]} per clip; allowed: num_segments = {num_segments}"
        )


def frame_embeddings(visual: nn.Module, pixels: Tensor) -> Tensor:
    """Frame embeddings [b, T, D] of normalized frames [b, T, 3, S, S].

    [b, 1, D] if the tower takes all frames at once (joint space-time attention).
    """
    features: Any = visual(pixels.flatten(0, 1))  # [bT, 3, S, S] -> [bT, D]
    if isinstance(features, tuple):
        features = features[0]  # CoCa's tower returns (pooled, tokens)
    # [bT, D] -> [b, T, D], or [b, D] -> [b, 1, D]
    return features.reshape(pixels.shape[0], -1, features.shape[-1])

"""What a model says of a video or window, and how it is computed from features."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipzoo.clips.clips import SINGLE_VIEW, ViewClips
from clipzoo.methods.parts.method import Method
from clipzoo.models.text import ClassText


@dataclass(frozen=True, kw_only=True)
class FrameWeights:
    """How much each class looks at each frame, where the method compares frames with classes."""

    frames: list[int]
    """The T frames of the first clip, in its order; a short video has some of them repeatedly."""
    by_label: list[list[float]]
    """T weights for each label of the prediction, in its order; they sum to 1. They are those of
    the center crop."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model says of one video, the most likely class first."""

    labels: list[str]
    """Class names."""
    probabilities: list[float]
    """Their probabilities among all classes, 0 to 1."""
    cosines: list[float]
    """The mean over views of their cosines with the video, -1 to 1."""
    frames: list[int]
    """The frames that the model saw, of all its clips, from 0, ascending."""
    seconds: list[float]
    """When these are shown."""
    weights: FrameWeights | None = None
    """None if the method has no weights of frames."""


@dataclass(frozen=True, kw_only=True)
class Window(Prediction):
    """What a model says of one window of a long video."""

    start: float
    """When the window begins (seconds)."""
    end: float
    """When it ends."""


@dataclass(frozen=True)
class Scorer:
    """A model with the classes that compete, of which the `top` most likely are told."""

    model: Method
    text: ClassText
    top: int

    @torch.no_grad()
    def __call__(
        self, features: Tensor, clips: ViewClips, position: int, seconds: np.ndarray
    ) -> dict[str, Any]:
        """The fields of a `Prediction`.

        Args:
            features: [1, V, ...] float32, those of one video or window.
            clips: its views, at `position`.
            seconds: when each frame of the whole video is shown.
        """
        model, text = self.model, self.text
        probabilities = model.score(features, text)[0]  # [1, K] -> [K]
        cosines = model.similarity(features, text)[0].mean(dim=0)  # [1, V, K] -> [K]
        order = probabilities.argsort(descending=True, stable=True)[: self.top].tolist()
        frames = sampled(clips, position)
        return {
            "labels": [text.class_names[k] for k in order],
            "probabilities": [float(probabilities[k]) for k in order],
            "cosines": [float(cosines[k]) for k in order],
            "frames": frames.tolist(),
            "seconds": [round(float(seconds[i]), 6) for i in frames],
            "weights": self._weights(features, clips, position, order),
        }

    def _weights(
        self, features: Tensor, clips: ViewClips, position: int, classes: list[int]
    ) -> FrameWeights | None:
        if features.dim() < 4:  # [1, V, D]: the frames are combined before they meet the classes
            return None
        view = clips.view_names.index(SINGLE_VIEW)
        one, text = features[:, view : view + 1], self.text.of_classes(classes)
        weights = self.model.saliency(one, text)  # [1, 1, K, T]
        if weights is None:
            return None
        record = clips.records[position]
        frames = clips.sample(record)[0] + record.start_frame  # [T]
        return FrameWeights(frames=frames.tolist(), by_label=weights[0, 0].tolist())


def sampled(clips: ViewClips, position: int) -> np.ndarray:
    """The frames of all clips of a video or window, int64, ascending, without repeats."""
    record = clips.records[position]
    return np.unique(clips.sample(record)) + record.start_frame

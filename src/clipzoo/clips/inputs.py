"""What a method reads of videos: their frames, or sentences of their attributes.

`Method.open_inputs` is the one place where a method says which. Whoever needs clips asks what it
returns, and need not know the kind:

    inputs = method.open_inputs(params, "ucf101", text)
    inputs.training(records)                          clips of the training list, for the loss
    inputs.views(records, "val", clips=4, crops=3)    every view of each video, for scores
    inputs.example(32, device)                        random numbers in the place of 32 clips
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from clipzoo.clips.attributes import TrainSentences, ViewSentences, attributes_path, sentence_tokens
from clipzoo.clips.clips import TrainClips, ViewClips
from clipzoo.clips.transforms import TrainTransform, ViewTransform
from clipzoo.clips.windows import Windows
from clipzoo.config import ConfigError, Params
from clipzoo.data.records import Record
from clipzoo.data.store import Store, open_store
from clipzoo.models.architectures import input_size
from clipzoo.models.pixels import Pixels

FEWEST_TOKENS = 1000
"""Every vocabulary has more."""


class TrainingClips(Protocol):
    """The clips of a training list."""

    def record(self, position: int) -> Record:
        """The record at a position; positions from the number of records on start over."""
        ...

    def load(self, position: int, epoch: int) -> Tensor:
        """What `Method.encode` takes of one clip, without the batch dimension."""
        ...


class Views(Protocol):
    """All views of every video of a set, without randomness."""

    @property
    def records(self) -> Sequence[Record]:
        """The N videos."""
        ...

    @property
    def view_names(self) -> Sequence[str]:
        """The names of the V views that every video has."""
        ...

    def load(self, position: int) -> Tensor:
        """The V clips of one video, [V, ...]: each as `Method.encode` takes it."""
        ...

    def pictures(self, positions: Sequence[int]) -> list[Tensor]:
        """What people look at: the frames, uint8 [T, 3, S, S], of the first clip's center crop of
        each of these videos. Empty if the clips are not frames."""
        ...


class Inputs(Protocol):
    """What a method reads of the videos of one dataset; nothing is opened before it is needed."""

    @property
    def files(self) -> list[Path]:
        """The files that clips are made from, besides lists, frames and class text."""
        ...

    def training(self, records: Sequence[Record]) -> TrainingClips:
        """The clips of records of the training list.

        Raises:
            StoreError: the frames' index is missing.
            ListError: records do not fit the frame store, or videos have no attributes.
        """
        ...

    def views(
        self,
        records: Sequence[Record],
        list_name: str,
        *,
        clips: int = 1,
        crops: int = 1,
        dense: bool = False,
    ) -> Views:
        """`clips` temporal clips times `crops` spatial crops of each record, clip-major.

        Args:
            list_name: the list that the records are from: `train`, `val` or `whole`.
            clips, crops, dense: as in the section `test`; a sentence is always one view.

        Raises:
            StoreError, ListError: as `training`.
            ValueError: the short side is smaller than the input, or the method's sampler cannot
                produce such clips.
        """
        ...

    def example(self, count: int, device: torch.device) -> Tensor:
        """Random numbers of the shape and type of `count` clips, for estimates of memory."""
        ...


@dataclass(frozen=True, kw_only=True)
class FrameInputs:
    """Clips of T frames, uint8 [T, 3, S, S]; sizes are those of `model` and `test`."""

    params: Params
    dataset: str
    pixels: Pixels
    """What the weights of the method expect."""
    train_sampler: str = "ticks"
    """How frames are drawn in training: a key of `sampling.TRAIN_SAMPLERS`."""
    test_sampler: str = "first"
    """How frames are chosen in validations and tests: `first`, a key of
    `sampling.SINGLE_CLIP_SAMPLERS`, or one of `sampling.CLIP_SAMPLERS`."""
    windows: Windows | None = None
    """Clips of equal time, in place of both samplers."""

    def __post_init__(self) -> None:
        _check_inputs(self.params, "frames")

    @cached_property
    def _store(self) -> Store:
        return open_store(self.params, self.dataset)

    @property
    def _side(self) -> int:
        return input_size(self.params.model.arch, self.params.model.input_px)

    @property
    def files(self) -> list[Path]:
        return []

    def training(self, records: Sequence[Record]) -> TrainClips:
        params = self.params
        augment = TrainTransform(self._side, params.augment, self.pixels)
        num_segments = params.model.num_segments
        options = (num_segments, params.seed, self.train_sampler, self.windows)
        return TrainClips(self._store, records, augment, *options)

    def views(
        self,
        records: Sequence[Record],
        list_name: str,
        *,
        clips: int = 1,
        crops: int = 1,
        dense: bool = False,
    ) -> ViewClips:
        transform = ViewTransform(self._side, self.params.test.short_side_px, crops, self.pixels)
        return ViewClips(
            self._store,
            records,
            transform,
            self.params.model.num_segments,
            clips,
            dense,
            self.test_sampler,
            self.params.seed if self.test_sampler == "random" else 0,
            self.windows,
        )

    def example(self, count: int, device: torch.device) -> Tensor:
        """uint8 [count, T, 3, S, S]."""
        shape = (count, self.params.model.num_segments, 3, self._side, self._side)
        return torch.randint(0, 256, shape, dtype=torch.uint8, device=device)


@dataclass(frozen=True, kw_only=True)
class SentenceInputs:
    """Sentences of attributes as token ids, int64 [L]; no frame is read."""

    params: Params
    dataset: str
    sentence: Callable[[Sequence[str]], str]
    """A video's attributes, the best first -> its sentence; ValueError if there are too few."""
    length: int
    """L, of the text tower."""

    def __post_init__(self) -> None:
        _check_inputs(self.params, "attributes")

    @property
    def files(self) -> list[Path]:
        return sorted(attributes_path(self.dataset, "train").parent.glob("*.json"))

    def training(self, records: Sequence[Record]) -> TrainSentences:
        return TrainSentences(records, self._tokens(records, "train"))

    def views(self, records: Sequence[Record], list_name: str, **_: object) -> ViewSentences:
        return ViewSentences(records, self._tokens(records, list_name))

    def example(self, count: int, device: torch.device) -> Tensor:
        """int64 [count, L]."""
        return torch.randint(0, FEWEST_TOKENS, (count, self.length), device=device)

    def _tokens(self, records: Sequence[Record], list_name: str) -> Tensor:
        """Token ids int32 [N, L] of the records' sentences."""
        path = attributes_path(self.dataset, list_name)
        return sentence_tokens(records, path, self.sentence, self.params.model.arch, self.length)


def _check_inputs(params: Params, kind: str) -> None:
    """Raise ConfigError if `model.inputs`, on which DVC depends, is not what the method reads."""
    if params.model.inputs != kind:
        raise ConfigError(
            f"model.inputs: found {params.model.inputs}; allowed: {kind}, which model.method "
            f"{params.model.method} reads"
        )

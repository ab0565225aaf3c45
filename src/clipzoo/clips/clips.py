"""Records -> clips as tensors: which frames to read, reading and transforming them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clipzoo.clips.placing import new_clip
from clipzoo.clips.sampling import (
    SINGLE_CLIP_SAMPLERS,
    TRAIN_SAMPLERS,
    check_test_sampler,
    sample_midpoints,
    sample_random,
    sample_test,
    video_generator,
)
from clipzoo.clips.transforms import TrainTransform, ViewTransform, crop_names
from clipzoo.clips.windows import Windows, check_windows
from clipzoo.data.records import Record
from clipzoo.data.store import Store, StoreError
from clipzoo.files import raise_all

SINGLE_VIEW = "clip0-center"
"""Name of the center crop of the first clip, which every set of views has."""


def check_records(store: Store, records: Sequence[Record]) -> None:
    """Raise ListError naming every record missing from the store or longer than its video."""
    faults = []
    for record in records:
        video = store.videos.get(record.video_id)
        end = record.start_frame + record.num_frames
        if video is None:
            faults.append(f"{record.video_id}: not in the frame store")
        elif end > video.num_frames:
            faults.append(
                f"{record.video_id}: frames up to {end} requested, {video.num_frames} stored"
            )
    raise_all(f"{len(faults)} records do not fit the frame store; rerun build_lists", faults)


def check_rates(store: Store, records: Sequence[Record]) -> None:
    """Raise ListError naming every video whose frames a second are unknown, which windows need."""
    faults = [
        f"{video_id}: unknown frames a second"
        for video_id in dict.fromkeys(record.video_id for record in records)
        if not store.videos[video_id].fps > 0
    ]
    raise_all(
        f"{len(faults)} videos without frames a second, in which the method measures its clips; "
        "set fps in the file of the dataset in datasets/, and rerun extract_frames",
        faults,
    )


def check_views(sampler: str, windows: Windows | None, clips: int, dense: bool) -> None:
    """Raise ValueError if such clips of a test cannot be made by a sampler, or by the windows in
    its place."""
    if windows is None:
        check_test_sampler(sampler, clips, dense)
    else:
        check_windows(dense)


@dataclass(eq=False)
class TrainClips:
    """Randomly sampled and augmented clips for training; raises ListError as `check_records` and,
    with windows, `check_rates`."""

    store: Store
    records: Sequence[Record]
    transform: TrainTransform
    num_segments: int
    seed: int
    sampler: str = "ticks"
    windows: Windows | None = None
    """What draws the frames in place of `sampler`, if it is not None."""

    def __post_init__(self) -> None:
        check_records(self.store, self.records)
        if self.windows is not None:
            check_rates(self.store, self.records)

    def record(self, position: int) -> Record:
        """The record at a position; positions from len(records) on start over."""
        return self.records[position % len(self.records)]

    def load(self, position: int, epoch: int) -> Tensor:
        """One clip, uint8 [T, 3, S, S]; StoreError, with the video, if a frame cannot be read.

        All random choices come from (seed, epoch, position) alone, with epochs from 0. Positions
        from len(records) on repeat the records with other random choices: few-shot epochs are
        longer than their list.
        """
        record = self.record(position)
        rng = np.random.default_rng([self.seed, epoch, position])
        indices = self._sample(record, rng)  # [T]
        return _transformed(self.store, record, indices, lambda f: self.transform(f, rng))

    def _sample(self, record: Record, rng: np.random.Generator) -> np.ndarray:
        """Indices int64 [T] of a record's frames."""
        if self.windows is not None:
            fps = self.store.videos[record.video_id].fps
            return self.windows.train(record.num_frames, fps, self.num_segments, rng)
        return TRAIN_SAMPLERS[self.sampler](record.num_frames, self.num_segments, rng)


@dataclass(eq=False)
class ViewClips:
    """The views of every video: temporal clips x spatial crops, a function of the video and, with
    the sampler `random`, of the seed.

    Raises:
        ListError: as `check_records` and, with windows, `check_rates`.
        ValueError: the sampler (`Method.test_sampler`) cannot produce that many clips, or dense
            ones; windows are never dense.
    """

    store: Store
    records: Sequence[Record]
    transform: ViewTransform
    num_segments: int
    clips: int
    dense: bool
    sampler: str = "first"
    seed: int = 0
    windows: Windows | None = None
    """What chooses the frames in place of `sampler`, if it is not None."""

    def __post_init__(self) -> None:
        check_records(self.store, self.records)
        check_views(self.sampler, self.windows, self.clips, self.dense)
        if self.windows is not None:
            check_rates(self.store, self.records)

    @property
    def view_names(self) -> list[str]:
        """Names of the V = clips * crops views, clip-major: clip0-left, clip0-right, ..."""
        crops = crop_names(self.transform.crops)
        return [f"clip{c}-{crop}" for c in range(self.clips) for crop in crops]

    def load(self, position: int) -> Tensor:
        """All views of one video, uint8 [V, T, 3, S, S]; StoreError as `TrainClips.load`."""
        record = self.records[position]
        indices = self.sample(record)  # [clips, T]
        num_frames, size = self.num_segments, self.transform.input_px

        def clip_major(frames: Sequence[bytes] | np.ndarray) -> Tensor:
            shape = (self.clips, self.transform.crops, num_frames, 3, size, size)
            views = new_clip(*shape)
            for c in range(self.clips):
                self.transform(frames[c * num_frames : (c + 1) * num_frames], views[c])
            return torch.from_numpy(views).flatten(0, 1)  # [clips, crops, T, ...] -> [V, T, ...]

        # [clips, T] -> [clips T]: one read for all clips of the video
        return _transformed(self.store, record, indices.flatten(), clip_major)

    def pictures(self, positions: Sequence[int]) -> list[Tensor]:
        """The first clip's center crop of each of these videos, uint8 [T, 3, S, S]."""
        view = self.view_names.index(SINGLE_VIEW)
        return [self.load(position)[view] for position in positions]  # of [V, T, 3, S, S]

    def sample(self, record: Record) -> np.ndarray:
        """Indices int64 [clips, T] of the frames of a record, from its first one on."""
        num_frames = record.num_frames
        if self.windows is not None:
            fps = self.store.videos[record.video_id].fps
            return self.windows.test(num_frames, fps, self.num_segments, self.clips)
        if self.sampler == "midpoints":
            return sample_midpoints(num_frames, self.num_segments, self.clips)
        if self.sampler == "random":
            rng = video_generator(self.seed, record.video_id, record.start_frame)
            return sample_random(num_frames, self.num_segments, self.clips, rng)
        if sample := SINGLE_CLIP_SAMPLERS.get(self.sampler):
            return sample(num_frames, self.num_segments)[None]  # [T] -> [1, T]
        return sample_test(num_frames, self.num_segments, self.clips, self.dense)


def _transformed(
    store: Store,
    record: Record,
    indices: np.ndarray,
    transform: Callable[[Sequence[bytes] | np.ndarray], Tensor],
) -> Tensor:
    """Read and transform frames of a record; raise StoreError if a frame is damaged."""
    frames = store.read(record.video_id, indices + record.start_frame)
    try:
        return transform(frames)
    except ValueError as error:
        raise StoreError(f"{record.video_id}: a frame cannot be decoded ({error})") from error

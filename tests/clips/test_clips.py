"""Clips depend on (seed, epoch, position) alone."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import simplejpeg
import torch

from clipzoo.clips.clips import TrainClips, ViewClips
from clipzoo.clips.placing import place_next
from clipzoo.clips.transforms import TrainTransform, ViewTransform
from clipzoo.config import AugmentConfig, replace
from clipzoo.data.index import StoreError
from clipzoo.data.records import Record
from clipzoo.data.store import VideoInfo
from clipzoo.files import ListError

AUGMENT = AugmentConfig(
    randaugment_n=0,
    randaugment_m=9,
    short_side_px=32,
    crop="area",
    color_jitter=0.0,
    min_area=0.5,
    max_area=1.0,
    min_aspect=0.75,
    max_aspect=1.33,
    flip=0.5,
    grayscale=0.0,
    mixup_alpha=0.0,
    cutmix_alpha=0.0,
    mix_group=4,
    label_smoothing=0.0,
)


class MemoryStore:
    """Frame i of video `v<k>` has the color (i, 10 * k, 0)."""

    def __init__(self, lengths: list[int]) -> None:
        self.videos = {f"v{k}": VideoInfo(n, 40, 32, 0.0, k) for k, n in enumerate(lengths)}

    def read(self, video_id, indices):
        assert max(indices) < self.videos[video_id].num_frames
        video = np.zeros((len(indices), 32, 40, 3), np.uint8)
        video[..., 0] = np.asarray(indices)[:, None, None]
        video[..., 1] = 10 * int(video_id[1:])
        return video


def train_clips(seed: int = 1) -> TrainClips:
    store = MemoryStore([40, 60, 5])
    records = [Record("v0", 40, 0), Record("v1", 60, 1), Record("v2", 5, 0)]
    return TrainClips(store, records, TrainTransform(16, AUGMENT), 8, seed)


def test_a_clip_is_made_where_its_loader_places_it():
    view = ViewClips(
        MemoryStore([40]), [Record("v0", 40, 0)], ViewTransform(16, 32, 3), 4, 2, False
    )
    for load in (lambda: train_clips().load(1, 0), lambda: view.load(0)):
        expected = load().numpy()
        memory = np.empty(expected.shape, np.uint8)
        place_next(memory)
        assert load().data_ptr() == memory.ctypes.data
        assert np.array_equal(memory, expected)
        assert load().data_ptr() != memory.ctypes.data


def test_train_clips_are_reproducible_and_vary():
    clips = train_clips()
    first = clips.load(1, 0)
    assert first.shape == (8, 3, 16, 16)
    assert torch.equal(first, train_clips().load(1, 0))
    assert not torch.equal(first, clips.load(1, 1))
    assert not torch.equal(first, train_clips(seed=2).load(1, 0))
    assert (first[:, 1] == 10).all()


def test_repeated_positions_make_other_random_choices():
    clips = train_clips()
    assert (clips.load(4, 0)[:, 1] == 10).all()
    assert not torch.equal(clips.load(4, 0), clips.load(1, 0))


def test_segments_start_at_their_frame():
    store = MemoryStore([40])
    record = Record("v0", 8, 0, start_frame=20)
    clips = ViewClips(store, [record], ViewTransform(16, 32, 1), 8, 1, False)
    assert clips.load(0)[0, :, 0, 0, 0].tolist() == list(range(20, 28))


def test_views_are_clip_major():
    store = MemoryStore([40])
    clips = ViewClips(store, [Record("v0", 40, 0)], ViewTransform(16, 32, 3), 4, 2, False)
    views = clips.load(0)
    assert views.shape == (6, 4, 3, 16, 16)
    expected = [[0, 10, 20, 30]] * 3 + [[9, 19, 29, 39]] * 3
    assert views[:, :, 0, 0, 0].tolist() == expected
    assert clips.view_names[:4] == ["clip0-left", "clip0-right", "clip0-center", "clip1-left"]


def test_a_sampler_of_tests_and_one_of_training():
    """10 frames, T = 4: the first frames of the parts are 0, 2, 5, 7, the centers 0, 3, 5, 8; at
    equal distances are 0, 3, 6, 9."""
    store, records = MemoryStore([10]), [Record("v0", 10, 0)]
    first, centers, linspace = (
        ViewClips(store, records, ViewTransform(16, 32, 1), 4, 1, False, sampler)
        for sampler in ("first", "centers", "linspace")
    )
    assert first.load(0)[0, :, 0, 0, 0].tolist() == [0, 2, 5, 7]
    assert centers.load(0)[0, :, 0, 0, 0].tolist() == [0, 3, 5, 8]
    assert linspace.load(0)[0, :, 0, 0, 0].tolist() == [0, 3, 6, 9]
    train = TrainClips(store, records, TrainTransform(16, AUGMENT), 4, 1, "centers")
    for epoch in range(3):
        assert train.load(0, epoch)[:, 0, 0, 0].tolist() == [0, 3, 5, 8]


@pytest.mark.parametrize(("clips", "dense"), [(2, False), (1, True)])
def test_centers_make_one_clip(clips, dense):
    records = [Record("v0", 10, 0)]
    with pytest.raises(ValueError, match=f"clips: found {clips}.*allowed: 1, not dense"):
        ViewClips(MemoryStore([10]), records, ViewTransform(16, 32, 1), 4, clips, dense, "centers")


def test_records_that_do_not_fit_the_store_are_listed():
    records = [Record("v0", 41, 0), Record("gone", 3, 0), Record("v1", 60, 0)]
    with pytest.raises(ListError, match="2 records do not fit") as caught:
        TrainClips(MemoryStore([40, 60]), records, TrainTransform(16, AUGMENT), 8, 0)
    assert "v0: frames up to 41 requested, 40 stored" in str(caught.value)
    assert "gone: not in the frame store" in str(caught.value)


def test_a_damaged_jpeg_names_its_video():
    jpeg = simplejpeg.encode_jpeg(np.zeros((32, 40, 3), np.uint8))

    class Damaged(MemoryStore):
        def read(self, video_id, indices):
            return [jpeg[: len(jpeg) // 2]] * len(indices)

    clips = ViewClips(Damaged([9]), [Record("v0", 9, 0)], ViewTransform(16, 32, 1), 8, 1, False)
    with pytest.raises(StoreError, match="v0: a frame cannot be decoded"):
        clips.load(0)


def test_loading_starts_no_team_of_threads():
    """With 4 threads for torch's operators, a copy of this size by torch would start three."""

    class Large(MemoryStore):
        def read(self, video_id, indices):
            return np.zeros((len(indices), 256, 340, 3), np.uint8)

    store, records = Large([9]), [Record("v0", 9, 0)]
    augments = [replace(AUGMENT, {"short_side_px": px}) for px in (256, 240)]  # the latter resizes
    train = [TrainClips(store, records, TrainTransform(224, a), 4, seed=0) for a in augments]
    view = ViewClips(store, records, ViewTransform(224, 240, 10), 4, 2, dense=False)

    def started() -> set[str]:
        before = set(os.listdir("/proc/self/task"))
        for position in range(4):
            for clips in train:
                clips.load(position, 0)
        view.load(0)
        return set(os.listdir("/proc/self/task")) - before

    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(started).result() == set()
    finally:
        torch.set_num_threads(threads)

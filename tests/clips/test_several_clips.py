"""The samplers of ViFi-CLIP; against the authors' code in tests/parity."""

import numpy as np
import pytest

from clipzoo.clips.clips import ViewClips
from clipzoo.clips.sampling import (
    TRAIN_SAMPLERS,
    check_test_sampler,
    sample_midpoints,
    sample_random,
    sample_tsn,
    video_generator,
)
from clipzoo.clips.transforms import ViewTransform
from clipzoo.data.records import Record
from clipzoo.data.store import VideoInfo


@pytest.mark.parametrize(("num_frames", "num_segments"), [(10, 4), (16, 4), (64, 32), (76, 32)])
def test_tsn_draws_every_frame_of_its_parts_and_none_behind_them(num_frames, num_segments):
    rng = np.random.default_rng(0)
    drawn = np.stack([sample_tsn(num_frames, num_segments, rng) for _ in range(200)])  # [200, T]
    length = num_frames // num_segments
    for i in range(num_segments):
        assert set(drawn[:, i]) == set(range(i * length, (i + 1) * length))


@pytest.mark.parametrize(
    ("num_frames", "num_segments", "expected"),
    [
        (5, 8, [0, 1, 1, 2, 2, 3, 4, 4]),  # 0.625 i: halves to even, 2.5 -> 2
        (1, 4, [0, 0, 0, 0]),  # 0.75 becomes 1, which is frame 0 again
        (4, 4, [0, 1, 2, 3]),
    ],
)
def test_tsn_of_short_videos_is_not_random(num_frames, num_segments, expected):
    for seed in range(3):
        sample = TRAIN_SAMPLERS["tsn"]
        found = sample(num_frames, num_segments, np.random.default_rng(seed))
        assert found.tolist() == expected
        assert found.dtype == np.int64


@pytest.mark.parametrize(
    ("num_frames", "num_segments", "num_clips", "expected"),
    [
        (10, 4, 1, [[1, 3, 6, 8]]),
        (5, 8, 1, [[0, 0, 1, 2, 2, 3, 4, 4]]),
        (16, 2, 2, [[2, 10], [6, 14]]),
        (300, 8, 1, [[18, 56, 93, 131, 168, 206, 243, 281]]),
        (3, 2, 4, [[0, 1], [0, 2], [0, 2], [1, 2]]),
    ],
)
def test_midpoints(num_frames, num_segments, num_clips, expected):
    found = sample_midpoints(num_frames, num_segments, num_clips)
    assert found.tolist() == expected
    assert found.dtype == np.int64


def test_random_clips_depend_on_the_seed_and_the_video_alone():
    def draw(seed: int = 1024, video: str = "a/b", start: int = 0) -> list[list[int]]:
        return sample_random(300, 8, 4, video_generator(seed, video, start)).tolist()

    clips = np.array(draw())
    assert clips.shape == (4, 8)
    assert (clips // 37 == np.arange(8)).all()  # parts of 300 // 8 frames
    assert len({tuple(clip) for clip in clips.tolist()}) == 4
    assert draw() == clips.tolist()
    assert all(other != clips.tolist() for other in (draw(1), draw(video="a/c"), draw(start=7)))


@pytest.mark.parametrize("sampler", ["midpoints", "random"])
def test_they_make_any_number_of_clips_but_no_windows(sampler):
    check_test_sampler(sampler, 1, dense=False)
    check_test_sampler(sampler, 4, dense=False)
    with pytest.raises(ValueError, match=rf"dense: found true; .*test_sampler {sampler}"):
        check_test_sampler(sampler, 4, dense=True)


def test_counts_of_0_are_refused():
    rng = np.random.default_rng(0)
    for counts in ((0, 8, 1), (8, 0, 1), (8, 8, 0)):
        with pytest.raises(ValueError, match="allowed: 1 or more"):
            sample_midpoints(*counts)
        with pytest.raises(ValueError, match="allowed: 1 or more"):
            sample_random(*counts, rng)


class Frames:
    """A store whose frame i is of the color (i, 0, 0)."""

    def __init__(self) -> None:
        self.videos = {name: VideoInfo(120, 16, 16, 0.0, 0) for name in ("a", "b")}

    def read(self, video_id, indices):
        frames = np.zeros((len(indices), 16, 16, 3), np.uint8)
        frames[..., 0] = np.asarray(indices)[:, None, None]
        return frames


@pytest.mark.parametrize("sampler", ["midpoints", "random"])
def test_views_have_the_frames_of_the_sampler(sampler):
    def views(seed: int = 1) -> ViewClips:
        records = [Record("a", 120, 0), Record("b", 120, 0), Record("a", 60, 0, 30)]
        transform = ViewTransform(16, 16, 1)
        return ViewClips(Frames(), records, transform, 4, 3, False, sampler, seed)  # pyright: ignore[reportArgumentType]

    def frames(clips: ViewClips, position: int) -> list[list[int]]:
        return clips.load(position)[:, :, 0, 0, 0].tolist()  # of [V, T, 3, S, S]

    first, second, part = (frames(views(), i) for i in range(3))
    if sampler == "midpoints":
        assert first == second == sample_midpoints(120, 4, 3).tolist()
        assert part == (30 + sample_midpoints(60, 4, 3)).tolist()
        assert frames(views(seed=2), 0) == first
    else:
        assert first == sample_random(120, 4, 3, video_generator(1, "a", 0)).tolist()
        assert part == (30 + sample_random(60, 4, 3, video_generator(1, "a", 30))).tolist()
        assert first != second
        assert frames(views(seed=2), 0) != first

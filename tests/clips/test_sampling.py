"""Frame indices: golden cases of the references, and cases small enough to check by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from clipzoo.clips.sampling import (
    SINGLE_CLIP_SAMPLERS,
    TRAIN_SAMPLERS,
    check_test_sampler,
    inclusive_ranges,
    sample_centers,
    sample_inclusive,
    sample_linspace,
    sample_test,
    sample_train,
)

GOLDEN = json.loads(Path("tests/golden/protocol.json").read_text())
CASES = [case for case in GOLDEN if case["kind"].startswith(("val-", "test-"))]


@pytest.mark.parametrize(
    "case", CASES, ids=lambda c: "-".join(str(v) for v in list(c.values())[:-1])
)
def test_golden_indices(case):
    dense = case["kind"] == "test-dense"
    counts = (case["num_frames"], case["num_segments"], case.get("num_clips", 1))
    indices = sample_test(*counts, dense).flatten()  # [V, T] -> [V T]
    assert (indices + 1).tolist() == case["indices"]
    assert indices.dtype == np.int64


@pytest.mark.parametrize(
    ("num_frames", "num_segments", "expected"),
    [
        (300, 8, [18, 55, 93, 130, 168, 205, 243, 280]),
        (10, 4, [0, 3, 5, 8]),
        (9, 8, [0, 1, 2, 3, 4, 5, 6, 7]),
        (8, 8, [0, 1, 2, 3, 4, 5, 6, 7]),
        (5, 8, [0, 0, 1, 1, 2, 3, 3, 4]),
        (1, 3, [0, 0, 0]),
        (7, 1, [3]),
        (1, 1, [0]),
    ],
)
def test_centers_of_the_parts(num_frames, num_segments, expected):
    indices = sample_centers(num_frames, num_segments)
    assert indices.tolist() == expected
    assert indices.dtype == np.int64
    rng = np.random.default_rng(0)
    drawn = [TRAIN_SAMPLERS["centers"](num_frames, num_segments, rng) for _ in range(3)]
    assert all(indices.tolist() == expected for indices in drawn)
    assert rng.random() == np.random.default_rng(0).random()  # nothing was drawn


@pytest.mark.parametrize(
    ("num_frames", "num_segments", "expected"),
    [
        (300, 8, [0, 42, 85, 128, 170, 213, 256, 299]),
        (250, 8, [0, 35, 71, 106, 142, 177, 213, 249]),
        (10, 4, [0, 3, 6, 9]),
        (10, 3, [0, 4, 9]),
        (10, 2, [0, 9]),
        (8, 8, [0, 1, 2, 3, 4, 5, 6, 7]),
        (5, 8, [0, 0, 1, 1, 2, 2, 3, 4]),
        (3, 5, [0, 0, 1, 1, 2]),
        (2, 4, [0, 0, 0, 1]),
        (1, 3, [0, 0, 0]),
        (7, 1, [3]),
        (8, 1, [4]),
        (1, 1, [0]),
    ],
)
def test_frames_at_equal_distances_from_the_first_to_the_last(num_frames, num_segments, expected):
    indices = sample_linspace(num_frames, num_segments)
    assert indices.tolist() == expected
    assert indices.dtype == np.int64


@pytest.mark.parametrize("num_segments", [2, 7, 8, 16, 32])
def test_equal_distances_are_those_of_the_authors_for_videos_of_any_length(num_segments):
    """Which divide floating-point numbers and cut what follows the point."""
    for num_frames in [*range(1, 700), 18_000, 10_000_001]:
        step = num_segments - 1
        theirs = [int(i * (num_frames - 1) / step) for i in range(num_segments)]
        assert sample_linspace(num_frames, num_segments).tolist() == theirs


@pytest.mark.parametrize("name", SINGLE_CLIP_SAMPLERS)
def test_samplers_of_one_clip_refuse_counts_of_0_and_further_clips(name):
    sample = SINGLE_CLIP_SAMPLERS[name]
    with pytest.raises(ValueError, match="num_frames: found 0"):
        sample(0, 8)
    with pytest.raises(ValueError, match="num_segments: found 0"):
        sample(8, 0)
    check_test_sampler(name, 1, dense=False)
    with pytest.raises(ValueError, match=rf"clips: found 4; allowed: 1.*test_sampler {name}"):
        check_test_sampler(name, 4, dense=False)
    with pytest.raises(ValueError, match="clips: found 1 dense; allowed: 1, not dense"):
        check_test_sampler(name, 1, dense=True)


@pytest.mark.parametrize(
    ("num_frames", "num_segments", "num_clips", "expected"),
    [
        (10, 4, 1, [[0, 2, 5, 7]]),
        (2, 4, 1, [[0, 0, 1, 1]]),
        (1, 3, 1, [[0, 0, 0]]),
        (8, 8, 1, [[0, 1, 2, 3, 4, 5, 6, 7]]),
        (8, 2, 2, [[0, 4], [3, 7]]),
        (12, 3, 3, [[0, 4, 8], [1, 5, 9], [3, 7, 11]]),
        (10, 4, 2, [[0, 2, 5, 7], [1, 3, 6, 8]]),
        (3, 2, 2, [[0, 1], [0, 1]]),
    ],
)
def test_uniform_clips(num_frames, num_segments, num_clips, expected):
    assert sample_test(num_frames, num_segments, num_clips, dense=False).tolist() == expected


@pytest.mark.parametrize(
    ("num_frames", "num_clips", "starts"),
    [
        (1, 4, [0, 0, 0, 0]),
        (127, 4, [0, 0, 0, 0]),
        (128, 4, [0, 0, 0, 0]),
        (130, 4, [0, 0, 0, 0]),
        (131, 4, [0, 1, 2, 3]),
        (140, 4, [0, 4, 8, 12]),
        (200, 4, [0, 24, 48, 72]),
        (250, 4, [0, 40, 80, 120]),
        (301, 4, [0, 57, 114, 171]),
        (300, 2, [0, 172]),
        (300, 1, [0]),
    ],
)
@pytest.mark.parametrize("num_segments", [1, 4, 12, 128])
def test_dense_clips(num_frames, num_clips, starts, num_segments):
    indices = sample_test(num_frames, num_segments, num_clips, dense=True)
    interval = {1: 128, 4: 32, 12: 10, 128: 1}[num_segments]
    expected = [[(s + i * interval) % num_frames for i in range(num_segments)] for s in starts]
    assert indices.tolist() == expected
    assert indices.dtype == np.int64


def test_train_takes_one_frame_of_each_segment_and_every_frame_in_turn():
    rng = np.random.default_rng(0)
    draws = np.stack([sample_train(10, 4, rng) for _ in range(200)])
    frames = [set(column.tolist()) for column in draws.T]
    assert frames == [{0, 1}, {2, 3, 4}, {5, 6}, {7, 8, 9}]


@pytest.mark.parametrize("num_frames", [1, 3, 7, 8])
def test_train_of_a_short_video_has_all_its_frames(num_frames):
    indices = sample_train(num_frames, 8, np.random.default_rng(1))
    assert len(indices) == 8
    assert set(indices.tolist()) == set(range(num_frames))
    assert (np.diff(indices) >= 0).all()


@pytest.mark.parametrize("num_frames", [1, 3, 10, 41])
def test_inclusive_ranges_share_their_ends(num_frames):
    """The authors' rule with numpy's rounding of halves to even, and both ends drawn."""
    rng = np.random.default_rng(0)
    drawn = np.stack([sample_inclusive(num_frames, 4, rng) for _ in range(400)])
    length = float(num_frames - 1) / 4
    for i in range(4):
        first, last = int(np.round(length * i)), int(np.round(length * (i + 1)))
        assert set(drawn[:, i].tolist()) == set(range(first, last + 1))
        assert inclusive_ranges(num_frames, 4)[i] == (first, last)


def test_train_depends_on_its_generator_alone():
    first = [sample_train(300, 8, np.random.default_rng([1, 2, p])).tolist() for p in range(20)]
    again = [sample_train(300, 8, np.random.default_rng([1, 2, p])).tolist() for p in range(20)]
    assert first == again
    assert len({tuple(x) for x in first}) == 20


@pytest.mark.parametrize("num_frames", [1, 5, 100, 128, 129, 500])
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("num_clips", [1, 3, 10])
def test_indices_stay_inside_the_video(num_frames, dense, num_clips):
    indices = sample_test(num_frames, 16, num_clips, dense)
    assert indices.shape == (num_clips, 16)
    assert 0 <= indices.min() <= indices.max() < num_frames


def test_wrong_counts_are_refused():
    with pytest.raises(ValueError, match="num_frames: found 0"):
        sample_test(0, 8, 1, False)
    with pytest.raises(ValueError, match="num_clips: found 0"):
        sample_test(10, 8, 0, False)
    with pytest.raises(ValueError, match="1 to 128"):
        sample_test(10, 129, 1, True)

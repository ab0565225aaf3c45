"""Which frames of a video make a clip: pure functions of counts and a generator, 0-based.

Each sampler checks its counts and returns indices; the store reads the frames at these indices, and
the transforms decode and crop them. If a video has fewer frames than segments, some frames appear
more than once.

All samplers share these arguments: `num_frames`, n, the frames of the video; `num_segments`, T, the
frames of a clip; and in training `rng`, which draws. They return int64 indices in 0 .. n - 1, in
training in ascending order, and raise ValueError if a count is not allowed.

Source: Text4Vis, datasets/datasets.py (whwu95/Text4Vis). ActionCLIP (training) and BIKE (testing)
use the same samplers; BIKE trains with `sample_inclusive` (on Charades with `sample_train`),
ActionCLIP tests with `sample_centers`. The authors count frames from 1 (`index_bias`). PE-Core
tests with `sample_linspace`. ViFi-CLIP trains with `sample_tsn` and tests with `sample_midpoints`
or, where it takes several clips, with `sample_random`.
"""

import zlib

import numpy as np

DENSE_RANGE = 128
"""Frames that a dense clip spans (Text4Vis, BIKE: `sample_range`)."""


def sample_train(num_frames: int, num_segments: int, rng: np.random.Generator) -> np.ndarray:
    """One random frame from each of T equal parts of the video (Text4Vis, ActionCLIP), [T].

    A video of at most T frames gives all of them plus random repeats.

    Example: n = 10, T = 4: one of {0, 1}, of {2, 3, 4}, of {5, 6} and of {7, 8, 9}. n = 2, T = 4:
    [0, 0, 0, 1], [0, 0, 1, 1] or [0, 1, 1, 1].
    """
    # n = 10, T = 4: the ticks i * 10 / 4 are rounded down, so parts have 2 or 3 frames
    #
    #   tick  0         2.5       5         7.5       10
    #   part  |---0---|-----1-----|---2---|-----3-----|
    #   frame   0   1   2   3   4   5   6   7   8   9
    _check_counts(num_frames=num_frames, num_segments=num_segments)
    if num_frames <= num_segments:
        extra = rng.integers(num_frames, size=num_segments - num_frames)  # [T - n]
        return np.sort(np.concatenate([np.arange(num_frames), extra]))  # [n] and [T - n] -> [T]
    ticks = [i * num_frames // num_segments for i in range(num_segments + 1)]
    return np.array([rng.integers(ticks[i], ticks[i + 1]) for i in range(num_segments)])  # [T]


def sample_inclusive(num_frames: int, num_segments: int, rng: np.random.Generator) -> np.ndarray:
    """One random frame from each of T ranges that share their ends, [T].

    So neighboring ranges may give the same frame. Source: BIKE, datasets/video.py, lines 97-103
    (whwu95/BIKE).

    Example: n = 10, T = 4: one of {0, 1, 2}, of {2, 3, 4}, of {4, ..., 7} and of {7, 8, 9}.
    """
    # n = 10, T = 4: the ends i * 9 / 4 are rounded to the nearest frame
    #
    #   frame  0   1   2   3   4   5   6   7   8   9
    #   end    0        2.25     4.5     6.75      9    4.5 becomes 4: halves become even
    #   range  [---0---]
    #                  [---1---]
    #                          [-----2-----]
    #                                      [---3---]
    _check_counts(num_frames=num_frames, num_segments=num_segments)
    ranges = inclusive_ranges(num_frames, num_segments)
    return np.array([rng.integers(first, last, endpoint=True) for first, last in ranges])  # [T]


def inclusive_ranges(num_frames: int, num_segments: int) -> list[tuple[int, int]]:
    """First and last frame of each range of `sample_inclusive`."""
    length = (num_frames - 1) / num_segments
    return [(round(length * i), round(length * (i + 1))) for i in range(num_segments)]


def sample_centers(num_frames: int, num_segments: int) -> np.ndarray:
    """The center of each of T equal parts of the video, without randomness, [T].

    Source: ActionCLIP, datasets/datasets.py, lines 143-155 (sallymmx/ActionCLIP): part i of a video
    of n > T frames gives i * n / T + (n / T - 1) / 2, rounded down; of a shorter one, i * n / T.

    Example: n = 10, T = 4: [0, 3, 5, 8]. n = 5, T = 8: [0, 0, 1, 1, 2, 3, 3, 4].
    """
    # n = 10, T = 4: parts of 2.5 frames, whose centers are rounded down
    #
    #   frame    0  1  2  3  4  5  6  7  8  9
    #   part    |---0---|---1---|---2---|---3--|
    #   center    0.75    3.25    5.75    8.25
    _check_counts(num_frames=num_frames, num_segments=num_segments)
    if num_segments == 1:
        return np.array([num_frames // 2])  # the formula below would give (n - 1) / 2
    parts = np.arange(num_segments)  # [T]
    if num_frames <= num_segments:
        return parts * num_frames // num_segments
    offset = (num_frames / num_segments - 1) / 2
    return (parts * num_frames / num_segments + offset).astype(np.int64)


def sample_linspace(num_frames: int, num_segments: int) -> np.ndarray:
    """T frames at equal distances, of which the first and the last are those of the video, [T].

    A single frame is the one in the middle.

    Source: PE-Core, apps/pe/clip_benchmark/datasets/video_classification_dataset.py, `_load_video`
    (facebookresearch/perception_models): i * (n - 1) / (T - 1), rounded down; n / 2, rounded down,
    for T = 1.

    Example: n = 10, T = 4: [0, 3, 6, 9]. n = 10, T = 3: [0, 4, 9]. n = 3, T = 5: [0, 0, 1, 1, 2].
    """
    # n = 10, T = 3: distances of 9 / 2 = 4.5 frames, which are rounded down
    #
    #   frame  0   1   2   3   4   5   6   7   8   9
    #   place  0                 4.5               9
    _check_counts(num_frames=num_frames, num_segments=num_segments)
    if num_segments == 1:
        return np.array([num_frames // 2])
    return np.arange(num_segments) * (num_frames - 1) // (num_segments - 1)  # [T]


def sample_tsn(num_frames: int, num_segments: int, rng: np.random.Generator) -> np.ndarray:
    """One random frame from each of T parts of n // T frames, [T]; the rest is never drawn.

    A video of fewer frames than T gives i * n / T, rounded to the nearest frame (halves to the even
    one), without randomness. One rounded up to n, behind the last frame, is frame 0 and may so be
    out of order.

    Source: ViFi-CLIP, datasets/pipeline.py, `_get_train_clips` with clips of 1 frame
    (muzairkhattak/ViFi-CLIP), which is the sampler of TSN.

    Example: n = 10, T = 4: one of {0, 1}, of {2, 3}, of {4, 5} and of {6, 7}. n = 5, T = 8:
    [0, 1, 1, 2, 2, 3, 4, 4]. n = 1, T = 4: [0, 0, 0, 0].
    """
    # n = 10, T = 4: parts of 10 // 4 = 2 frames
    #
    #   frame  0   1   2   3   4   5   6   7   8   9
    #   part  |---0---|---1---|---2---|---3---|        8 and 9 are in no part
    _check_counts(num_frames=num_frames, num_segments=num_segments)
    length, parts = num_frames // num_segments, np.arange(num_segments)  # parts [T]
    if length:
        return parts * length + rng.integers(length, size=num_segments)
    return np.around(parts * (num_frames / num_segments)).astype(np.int64) % num_frames


TRAIN_SAMPLERS = {
    "ticks": sample_train,
    "tsn": sample_tsn,
    "inclusive": sample_inclusive,
    "centers": lambda num_frames, num_segments, rng: sample_centers(num_frames, num_segments),
}
"""Name that a method gives (`train_sampler`) -> sampler."""


def sample_test(num_frames: int, num_segments: int, num_clips: int, dense: bool) -> np.ndarray:
    """V clips of one video, spread evenly over it, [V, T].

    The rules are those of Text4Vis, datasets/datasets.py, lines 127-150 (`_get_test_indices`); BIKE
    has the same. There, one dense clip divides by zero; here it starts at frame 0.

    Args:
        num_clips: V, 1 or more.
        dense: windows of 128 frames instead of one frame from each part of the video; T is then at
            most 128. Windows longer than the video wrap around.

    Example: n = 8, T = 2, V = 2: [[0, 4], [3, 7]]. n = 2, T = 4, V = 1: [[0, 0, 1, 1]]. n = 140,
    T = 4, V = 3, dense: [[0, 32, 64, 96], [6, 38, 70, 102], [12, 44, 76, 108]].
    """
    _check_counts(num_frames=num_frames, num_segments=num_segments, num_clips=num_clips)
    if dense and num_segments > DENSE_RANGE:
        raise ValueError(
            f"num_segments: found {num_segments}; dense clips allow 1 to {DENSE_RANGE}"
        )
    sample = _dense_clips if dense else _uniform_clips
    return sample(num_frames, num_segments, num_clips)


def sample_midpoints(num_frames: int, num_segments: int, num_clips: int) -> np.ndarray:
    """V clips of one video, each with one frame of each of T equal parts, [V, T].

    Clip c takes the place (2 c + 1) / (2 V) of every part, so that a single clip has the midpoints.
    They are rounded down. `sample_centers` rounds the center of a part's frames down instead, which
    is half a frame earlier.

    Source, for V = 1: ViFi-CLIP, datasets/pipeline.py, `_get_test_clips`
    (muzairkhattak/ViFi-CLIP): i * n / T + n / (2 T). Several clips are this project's, since the
    authors' are random (`sample_random`).

    Example: n = 10, T = 4, V = 1: [[1, 3, 6, 8]]. n = 5, T = 8, V = 1: [[0, 0, 1, 2, 2, 3, 4, 4]].
    n = 16, T = 2, V = 2: [[2, 10], [6, 14]].
    """
    # n = 10, T = 4: parts of 2.5 frames
    #
    #   frame    |0  |1  |2  |3  |4  |5  |6  |7  |8  |9  |
    #   part     |----0----|----1----|----2----|----3----|
    #   midpoint     1.25      3.75      6.25      8.75
    _check_counts(num_frames=num_frames, num_segments=num_segments, num_clips=num_clips)
    length = num_frames / num_segments
    places = length * (2 * np.arange(num_clips) + 1) / (2 * num_clips)  # [V]
    return (np.arange(num_segments) * length + places[:, None]).astype(np.int64)  # [V, T]


def sample_random(
    num_frames: int, num_segments: int, num_clips: int, rng: np.random.Generator
) -> np.ndarray:
    """V clips of one video, each drawn by `sample_tsn`, [V, T].

    Source: ViFi-CLIP, datasets/build.py, where the pipeline of several clips has no `test_mode`, so
    that the views of a test are random training samples. The authors' draws depend on the worker;
    here they are functions of the seed and the video (`video_generator`).
    """
    _check_counts(num_clips=num_clips)
    return np.stack([sample_tsn(num_frames, num_segments, rng) for _ in range(num_clips)])


def video_generator(seed: int, video_id: str, start_frame: int) -> np.random.Generator:
    """The generator of a video's random test clips: whatever list, process or order it is in."""
    return np.random.default_rng([seed, zlib.crc32(video_id.encode()), start_frame])


SINGLE_CLIP_SAMPLERS = {"centers": sample_centers, "linspace": sample_linspace}
"""Name that a method gives (`test_sampler`) -> sampler of tests that makes one clip of a video."""


CLIP_SAMPLERS = ("midpoints", "random")
"""Samplers of tests that make any number of clips, none of them dense windows; a method gives their
names, too."""


def check_test_sampler(sampler: str, num_clips: int, dense: bool) -> None:
    """Raise ValueError if a sampler of tests cannot produce such clips."""
    if sampler in CLIP_SAMPLERS and dense:
        raise ValueError(
            f"dense: found true; allowed: false, because the method's test_sampler {sampler} makes "
            "clips of the whole video; first makes dense ones"
        )
    if sampler in SINGLE_CLIP_SAMPLERS and (num_clips > 1 or dense):
        raise ValueError(
            f"clips: found {num_clips}{' dense' if dense else ''}; allowed: 1, not dense, because "
            f"the method's test_sampler {sampler} makes one clip of a video; first makes more"
        )


def _uniform_clips(num_frames: int, num_segments: int, num_clips: int) -> np.ndarray:
    """One frame from each of T equal parts; each clip takes a later frame of all parts."""
    # n = 12, T = 3, V = 3: a tick is 12 / 3 = 4; the starts 0, 1.5, 3 are rounded down
    #
    #          |- part 0 -|- part 1 -|- part 2 -|
    #   frame   0  1  2  3  4  5  6  7  8  9 10 11
    #   clip 0  x           x           x
    #   clip 1     x           x           x
    #   clip 2           x           x           x
    tick = num_frames / num_segments
    # For tick < 1 the starts are negative (rounded down by linspace) and wrap around, as they do in
    # the authors' code: n = 2, T = 4, V = 2 has a tick of 0.5, and clip 1 begins at -1, frame 1.
    starts = np.linspace(0, tick - 1, num_clips, dtype=int)  # [V]
    # The authors round the sum, towards 0. For a negative start that is not start plus the rounded
    # tick * i: int(-1 + 0.5) is 0, but -1 + int(0.5) is -1 and would wrap around.
    clips = [[int(s + tick * i) % num_frames for i in range(num_segments)] for s in starts]
    return np.array(clips)  # [V, T]


def _dense_clips(num_frames: int, num_segments: int, num_clips: int) -> np.ndarray:
    """Windows of 128 frames that start at equal distances; T frames of each."""
    # n = 200, T = 4, V = 4: interval 128 // 4 = 32, step (200 - 128) // 3 = 24
    #
    #   frame   0      24      48      72      96     120     144     168     199
    #   clip 0  x.........x..........x.........x.........|          0  32  64  96
    #   clip 1          x.........x..........x.........x.........| 24  56  88 120
    #   clip 2                  x.........x..........x.........x.........|  48 ...
    #   clip 3                          x.........x..........x.........x.........|
    #
    # The step is rounded down, so the last window may end before the video does (n = 130, V = 4:
    # the step is 2 // 3 = 0, and all windows start at 0).
    step = max(0, num_frames - DENSE_RANGE) // max(1, num_clips - 1)
    starts = np.arange(num_clips) * step  # [V]
    offsets = np.arange(num_segments) * (DENSE_RANGE // num_segments)  # [T]
    return (starts[:, None] + offsets) % num_frames  # [V, 1] + [T] -> [V, T]


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name}: found {count}; allowed: 1 or more")

"""Which frames of a video make a clip: pure functions of counts and a generator, 0-based.

Each sampler checks its counts and returns indices; the store reads the frames at these indices, and
the transforms decode and crop them. If a video has fewer frames than segments, some frames appear
more than once.

Source: Text4Vis, datasets/datasets.py (whwu95/Text4Vis). ActionCLIP (training) and BIKE (testing)
use the same samplers; BIKE trains with `sample_inclusive` (on Charades with `sample_train`),
ActionCLIP tests with `sample_centres`.
The authors count frames from 1 (`index_bias`).
"""

import numpy as np

DENSE_RANGE = 128
"""Frames that a dense clip spans (Text4Vis, BIKE: `sample_range`)."""


def sample_train(num_frames: int, num_segments: int, rng: np.random.Generator) -> np.ndarray:
    """One random frame from each of `num_segments` equal parts of the video.

    Part i holds the frames from i * num_frames // num_segments up to that of i + 1. A video of at
    most num_segments frames gives all of them plus random repeats (Text4Vis, ActionCLIP).

    Args:
        num_frames: frames of the video, 1 or more.
        num_segments: T, 1 or more.
        rng: draws one number per segment.

    Returns:
        indices int64 [T], ascending, in 0 .. num_frames - 1.

    Raises:
        ValueError: a count is below 1.

    Example: 10 frames, T = 4: one of {0, 1}, of {2, 3, 4}, of {5, 6} and of {7, 8, 9}. 2 frames,
    T = 4: [0, 0, 0, 1], [0, 0, 1, 1] or [0, 1, 1, 1].
    """
    _check_counts(num_frames=num_frames, num_segments=num_segments)
    if num_frames <= num_segments:
        extra = rng.integers(num_frames, size=num_segments - num_frames)  # [T - num_frames]
        return np.sort(np.concatenate([np.arange(num_frames), extra]))  # [T]
    ticks = [i * num_frames // num_segments for i in range(num_segments + 1)]
    return np.array([rng.integers(ticks[i], ticks[i + 1]) for i in range(num_segments)])  # [T]


def sample_inclusive(num_frames: int, num_segments: int, rng: np.random.Generator) -> np.ndarray:
    """One random frame from each of `num_segments` ranges that share their ends.

    Range i goes from round(i * s) to round((i + 1) * s), both included, with s = (num_frames - 1) /
    num_segments and halves rounded to even, so neighbouring ranges may give the same frame. Source:
    BIKE, datasets/video.py, lines 97-103 (whwu95/BIKE).

    Args, returns, raises: as for `sample_train`.

    Example: 10 frames, T = 4: one of {0, 1, 2}, of {2, 3, 4}, of {4, ..., 7} and of {7, 8, 9}.
    """
    _check_counts(num_frames=num_frames, num_segments=num_segments)
    ranges = inclusive_ranges(num_frames, num_segments)
    return np.array([rng.integers(first, last, endpoint=True) for first, last in ranges])  # [T]


def inclusive_ranges(num_frames: int, num_segments: int) -> list[tuple[int, int]]:
    """First and last frame of each range of `sample_inclusive`."""
    length = (num_frames - 1) / num_segments
    return [(round(length * i), round(length * (i + 1))) for i in range(num_segments)]


def sample_centres(num_frames: int, num_segments: int) -> np.ndarray:
    """The centre of each of `num_segments` equal parts of the video, without randomness.

    Source: ActionCLIP, datasets/datasets.py, lines 143-155 (sallymmx/ActionCLIP): part i of a video
    of n > T frames gives i * n / T + (n / T - 1) / 2, rounded down, of a shorter one i * n / T.

    Args, returns, raises: as for `sample_train`, without `rng`.

    Example: 10 frames, T = 4: [0, 3, 5, 8]. 5 frames, T = 8: [0, 0, 1, 1, 2, 3, 3, 4].
    """
    # 10 frames, T = 4: parts of 2.5 frames
    #
    #   frame     0  1  2  3  4  5  6  7  8  9
    #   part     |---0---|---1---|---2---|---3---|
    #   centre    0.75    3.25    5.75    8.25
    _check_counts(num_frames=num_frames, num_segments=num_segments)
    if num_segments == 1:
        return np.array([num_frames // 2])
    parts = np.arange(num_segments)  # [T]
    if num_frames <= num_segments:
        return parts * num_frames // num_segments
    offset = (num_frames / num_segments - 1) / 2
    return (parts * num_frames / num_segments + offset).astype(np.int64)


TRAIN_SAMPLERS = {
    "ticks": sample_train,
    "inclusive": sample_inclusive,
    "centres": lambda num_frames, num_segments, rng: sample_centres(num_frames, num_segments),
}
"""By the name that a method gives."""


def sample_test(num_frames: int, num_segments: int, num_clips: int, dense: bool) -> np.ndarray:
    """Several clips of one video, spread evenly over it.

    The rules are those of Text4Vis, datasets/datasets.py, lines 127-150 (`_get_test_indices`); BIKE
    has the same. There, one dense clip divides by zero; here it starts at frame 0.

    Args:
        num_frames: n, frames of the video, 1 or more.
        num_segments: T, 1 or more; at most 128 if `dense`.
        num_clips: V, 1 or more.
        dense: windows of 128 frames instead of one frame from each part of the video.

    Returns:
        indices int64 [V, T] in 0 .. n - 1.

    Raises:
        ValueError: a count is below 1, or T is above 128 for dense clips.

    Example: 8 frames, T = 2, V = 2, uniform: tick 4, starts [0, 3]: [[0, 4], [3, 7]]. 2 frames,
    T = 4, V = 1, uniform: tick 0.5: [[0, 0, 1, 1]]. 140 frames, T = 4, V = 3, dense: interval 32,
    starts [0, 6, 12]: [[0, 32, 64, 96], [6, 38, 70, 102], [12, 44, 76, 108]].
    """
    _check_counts(num_frames=num_frames, num_segments=num_segments, num_clips=num_clips)
    if dense and num_segments > DENSE_RANGE:
        raise ValueError(
            f"num_segments: found {num_segments}; dense clips allow 1 to {DENSE_RANGE}"
        )
    sample = _dense_clips if dense else _uniform_clips
    return sample(num_frames, num_segments, num_clips)


def check_test_sampler(sampler: str, num_clips: int, dense: bool) -> None:
    """Raise ValueError if a sampler of tests does not give such clips."""
    if sampler == "centres" and (num_clips > 1 or dense):
        raise ValueError(
            f"clips: found {num_clips}{' dense' if dense else ''}; allowed: 1, not dense, because "
            "the centres of a video's parts make one clip; actionclip.test_sampler first has more"
        )


def _uniform_clips(num_frames: int, num_segments: int, num_clips: int) -> np.ndarray:
    """One frame from each of T equal parts; each clip takes a later frame of all parts."""
    # 12 frames, T = 3, V = 3: tick 4, starts 0 1 3 (0 to tick - 1, rounded down)
    #
    #          |- part 0 -|- part 1 -|- part 2 -|
    #   frame   0  1  2  3  4  5  6  7  8  9 10 11
    #   clip 0  x           x           x
    #   clip 1     x           x           x
    #   clip 2           x           x           x
    tick = num_frames / num_segments
    # For tick < 1 the starts are negative (rounded down by linspace) and wrap around, as they do in
    # the authors' code.
    starts = np.linspace(0, tick - 1, num_clips, dtype=int)  # [V]
    # The sum is rounded down, not its terms: start and tick * i together may reach the next frame.
    clips = [[int(s + tick * i) % num_frames for i in range(num_segments)] for s in starts]
    return np.array(clips)  # [V, T]


def _dense_clips(num_frames: int, num_segments: int, num_clips: int) -> np.ndarray:
    """Windows of 128 frames that start at equal distances; T frames of each."""
    # 200 frames, T = 4, V = 4: interval 128 // 4 = 32, step (200 - 128) // 3 = 24
    #
    #   frame   0      24      48      72      96     120     144     168     199
    #   clip 0  x.........x..........x.........x.........|          0  32  64  96
    #   clip 1          x.........x..........x.........x.........| 24  56  88 120
    #   clip 2                  x.........x..........x.........x.........|  48 ...
    #   clip 3                          x.........x..........x.........x.........|
    #
    # The step is rounded down, so that the last window may end before the video does (n = 130,
    # V = 4: all start at 0). Windows longer than the video wrap around.
    step = max(0, num_frames - DENSE_RANGE) // max(1, num_clips - 1)
    starts = np.arange(num_clips) * step  # [V]
    offsets = np.arange(num_segments) * (DENSE_RANGE // num_segments)  # [T]
    return (starts[:, None] + offsets) % num_frames  # [V, 1] + [T] -> [V, T]


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name}: found {count}; allowed: 1 or more")

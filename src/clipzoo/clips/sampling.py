"""Which frames of a video make a clip: pure functions of counts and a generator, 0-based.

Videos with fewer frames than segments are sampled too: some frames come more than once.
"""

import numpy as np

DENSE_RANGE = 128
"""Frames that a dense clip spans (Text4Vis, BIKE)."""


def _check(num_frames: int, num_segments: int) -> None:
    if num_frames < 1 or num_segments < 1:
        raise ValueError(
            f"num_frames: found {num_frames}, num_segments: found {num_segments}; both must be >= 1"
        )


def sample_train(num_frames: int, num_segments: int, rng: np.random.Generator) -> np.ndarray:
    """One random frame from each of `num_segments` equal parts of the video.

    Part i holds the frames from i * num_frames // num_segments up to that of i + 1. A video of at
    most num_segments frames gives all of them plus random repeats (Text4Vis, ActionCLIP).

    Args:
        num_frames: frames of the video, 1 or more.
        num_segments: T, 1 or more.
        rng: draws one number a segment.

    Returns:
        indices int64 [T], ascending, in 0 .. num_frames - 1.

    Example: 10 frames, T = 4: one of {0, 1}, of {2, 3, 4}, of {5, 6} and of {7, 8, 9}.
    """
    _check(num_frames, num_segments)
    if num_frames <= num_segments:
        extra = rng.integers(num_frames, size=num_segments - num_frames)
        return np.sort(np.concatenate([np.arange(num_frames), extra]))
    ticks = [i * num_frames // num_segments for i in range(num_segments + 1)]
    return np.array([rng.integers(ticks[i], ticks[i + 1]) for i in range(num_segments)])


def sample_val(num_frames: int, num_segments: int) -> np.ndarray:
    """The first frame of each of `num_segments` equal parts.

    Returns:
        indices int64 [T], ascending.

    Example: 10 frames, 4 segments: tick 2.5, indices [0, 2, 5, 7]; 2 frames: [0, 0, 1, 1].
    """
    return sample_test(num_frames, num_segments, num_clips=1, dense=False)[0]


def sample_test(num_frames: int, num_segments: int, num_clips: int, dense: bool) -> np.ndarray:
    """Several clips of one video, spread evenly.

    Uniform: with tick = num_frames / T, clip c takes the frames int(start[c] + tick * i), where the
    starts run from 0 to tick - 1. Dense: clips of T frames at distance 128 // T whose starts run
    over the video, wrapping at its end.

    Args:
        num_frames: frames of the video, 1 or more.
        num_segments: T, 1 or more; at most 128 where `dense`.
        num_clips: clips, 1 or more.
        dense: windows of 128 frames instead of one frame from each part of the video.

    Returns:
        indices int64 [num_clips, T] in 0 .. num_frames - 1.

    Example: 8 frames, T = 2, 2 clips, uniform: tick 4, starts [0, 3]: [[0, 4], [3, 7]].
    """
    _check(num_frames, num_segments)
    if num_clips < 1:
        raise ValueError(f"num_clips: found {num_clips}; must be >= 1")
    if dense and num_segments > DENSE_RANGE:
        raise ValueError(f"num_segments: found {num_segments}; dense clips allow 1 to 128")
    if dense:
        last_start = max(0, num_frames - DENSE_RANGE - 1)
        starts = np.linspace(0, last_start, num_clips, dtype=int)
        steps = np.arange(num_segments) * (DENSE_RANGE // num_segments)
        return (starts[:, None] + steps) % num_frames
    tick = num_frames / num_segments
    # For tick < 1 the starts are negative (rounded down by linspace) and wrap around, as they do in
    # the authors' code.
    starts = np.linspace(0, tick - 1, num_clips, dtype=int)
    clips = [[int(s + tick * i) % num_frames for i in range(num_segments)] for s in starts]
    return np.array(clips)

"""Clips that span an equal time of every video: windows, which know its frames a second.

Source: wengzejia1/Open-VCLIP (a fork of facebookresearch/SlowFast), slowfast/datasets/decoder.py.
There a clip of T frames is meant to have one of every `stride` frames of a video of `fps`; but the
T frames are spread over stride * T frames of what was decoded, which is stride * (T - 1) frames and
one more, so that the last gap is shorter.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

Reader = Literal["pyav", "pyav_avi", "torchvision"]


@dataclass(frozen=True)
class Windows:
    """How clips of equal time are cut out of videos.

    All its samplers take `num_frames`, n, `fps`, the frames a second of the video, and
    `num_segments`, T, and return int64 indices in 0 .. n - 1, ascending in each clip. A video that
    is shorter than a window repeats its last frame.

    Raises:
        ValueError: a count below 1, or a rate that is not above 0.
    """

    reader: Reader
    """pyav: clip v of V starts at (n - w) v / V, w the frames of a window, so that the end of the
    video is in no clip; the first frame is the one at this place or after it. pyav_avi: the frame
    before it, because AVI counts times in whole frames. torchvision: clip v starts at
    v floor((n - w) / (V - 1)), a single clip in the middle; w is larger by a stride."""
    stride: int
    """Frames between those of a clip, in a video of `fps`."""
    fps: float

    def test(self, num_frames: int, fps: float, num_segments: int, num_clips: int) -> np.ndarray:
        """V clips of a video, without randomness, [V, T].

        Example: n = 300, 30 frames a second, T = 8, V = 3, stride 16 of 30, pyav: w = 112; starts
        0, 62.67, 125.33; the first clip is [0, 18, 36, 54, 72, 90, 108, 112].
        """
        free = max(num_frames - self._window(fps, num_segments), 0)
        last = num_clips - 1

        def start(clip: int) -> float:
            if self.reader != "torchvision":
                return free * clip / num_clips
            return float(clip * math.floor(free / last) if last else math.floor(free / 2))

        _check(num_clips=num_clips)
        return self._clips(num_frames, fps, num_segments, [start(v) for v in range(num_clips)])

    def train(
        self, num_frames: int, fps: float, num_segments: int, rng: np.random.Generator
    ) -> np.ndarray:
        """One clip at a random place of the video, evenly drawn (not only at whole frames), [T]."""
        start = rng.uniform(0, max(num_frames - self._window(fps, num_segments), 0))
        return self._clips(num_frames, fps, num_segments, [start])[0]  # [1, T] -> [T]

    def _window(self, fps: float, num_segments: int) -> float:
        """w: frames of a video of `fps` from which a window's start is not drawn at its end."""
        _check(num_segments=num_segments, fps=fps)
        if self.reader == "torchvision":
            return self._spread(fps, num_segments)
        # The operations are in the authors' order, since the result is rounded up.
        return max(1.0, math.ceil(self.stride * (num_segments - 1) / self.fps * fps))

    def _spread(self, fps: float, num_segments: int) -> float:
        """Frames that the T frames of a clip are spread over, as many as there are."""
        return max(1.0, self.stride * num_segments / self.fps * fps)

    def _clips(
        self, num_frames: int, fps: float, num_segments: int, starts: list[float]
    ) -> np.ndarray:
        """The frames of windows that begin at these places, [V, T]."""
        # n = 300, T = 8: the second of 3 windows of pyav begins at 62.67
        #
        #   decoded   63 ............................................ 174
        #   spread    63   81   99  117  135  153  171  (189)
        #   clip      63   81   99  117  135  153  171   174
        _check(num_frames=num_frames)
        window = self._window(fps, num_segments)
        spread = self._spread(fps, num_segments)
        # The authors take torch's float32 numbers and cut them off.
        offsets = torch.linspace(0, spread - 1, num_segments).long().numpy()  # [T]
        clips = []
        for start in starts:
            first = math.ceil(start) if self.reader == "pyav" else math.floor(start)
            # One frame more is decoded than the window has.
            end = math.floor(start) + window if self.reader != "torchvision" else math.inf
            last = min(num_frames - 1, end)
            clips.append(np.minimum(min(first, num_frames - 1) + offsets, int(last)))
        return np.array(clips)  # [V, T]


def check_windows(dense: bool) -> None:
    """Raise ValueError if dense clips are asked for, which are windows of another kind."""
    if dense:
        raise ValueError(
            "dense: found true; allowed: false, because the method's clips are windows of equal "
            "time"
        )


def _check(**counts: float) -> None:
    for name, count in counts.items():
        rate = name == "fps"
        if not (count > 0 if rate else count >= 1):
            allowed = "above 0" if rate else "1 or more"
            raise ValueError(f"{name}: found {count}; allowed: {allowed}")

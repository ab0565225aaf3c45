"""When the pictures of a video are shown, according to the times that ffmpeg prints.

Times are those of a player: 0 is where the container begins, with whichever of its streams begins
first. A picture may begin after its sound, and pictures need not be evenly spaced.
"""

import math
import re
from dataclasses import dataclass, field

import numpy as np

LENGTH = re.compile(r"\[info\]   Duration: (?:(\d+):(\d\d):(\d\d(?:\.\d+)?)|N/A)")


@dataclass
class Timing:
    """The clock of a video, filled in line by line from ffmpeg's messages."""

    container: str = ""
    """ffmpeg's names of the format, e.g. `mov,mp4,m4a,3gp,3g2,mj2`."""
    header_seconds: float = 0.0
    """The length according to the header, from the container's beginning on; 0 = unknown."""
    times: list[float] = field(default_factory=list)
    """When each decoded picture is shown (seconds), in this order."""
    end_seconds: float = 0.0
    """When the last picture ends."""
    _tick: float = 0.0
    """The unit of the times that showinfo prints (seconds)."""

    @property
    def start_seconds(self) -> float:
        """When the first picture is shown; NaN = unknown."""
        return round(self.times[0], 6) if self.times else math.nan

    @property
    def longest_seconds(self) -> float:
        """The longest time between two pictures."""
        return float(np.diff(self.times).max(initial=0.0))

    def note(self, line: str) -> bool:
        """Read one of ffmpeg's messages; return whether it comes from the filter showinfo."""
        if "[Parsed_showinfo" in line:
            self._note_picture(line)
            return True
        if not self.container and line.startswith("[info] Input #0, "):
            self.container = line.removeprefix("[info] Input #0, ").partition(", from ")[0]
        if (length := LENGTH.match(line)) and length[1]:
            self.header_seconds = int(length[1]) * 3600 + int(length[2]) * 60 + float(length[3])
        return False

    def _note_picture(self, line: str) -> None:
        if picture := re.search(r" pts: *(-?\d+)\s", line):  # not `NOPTS`, a picture without a time
            duration = re.search(r" duration: *(\d+) ", line)
            time = int(picture[1]) * self._tick
            self.times.append(time)
            end = time + (int(duration[1]) * self._tick if duration else 0.0)
            self.end_seconds = max(self.end_seconds, end)
        elif unit := re.search(r"config in time_base: (\d+)/(\d+)", line):
            self._tick = int(unit[1]) / int(unit[2])


def frame_rate(times: list[float], fps: float) -> tuple[float, float]:
    """The frames a second of pictures shown at these times, and how far from even they are.

    The rate of the header is kept if it puts all pictures within half a frame of where they are
    shown, as times are often rounded; else the mean rate is taken if it fits better.

    Args:
        times: when each picture is shown (seconds).
        fps: the frames a second according to the header; 0 = unknown.

    Returns:
        The frames a second, 0 if unknown, and the largest distance (seconds) of a picture from
        times[0] + i / fps.

    Example: times 0, 0.033, 0.067 and header 30: (30, 0.0003...). Times 0, 0.1, 1.1: no rate puts
    them within half a frame; (1.8..., 0.45).
    """
    found = np.asarray(times)  # [n]
    if len(found) < 2 or found[-1] <= found[0]:
        return fps, 0.0
    mean = (len(found) - 1) / float(found[-1] - found[0])
    errors = {
        rate: float(np.abs(found - found[0] - np.arange(len(found)) / rate).max())
        for rate in (fps, mean)
        if rate
    }
    if fps and errors[fps] <= 0.5 / fps:
        return fps, errors[fps]
    best = min(errors, key=errors.__getitem__)
    return best, errors[best]

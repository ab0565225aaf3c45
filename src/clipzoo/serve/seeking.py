"""A long video whose frames are read by seeking, where that gives the frames of `VideoFile`.

A list of its packets, for which nothing is decoded, says when its frames are shown and which are
key frames. To read some frames, ffmpeg begins at the key frame before them:

    key frames   K                   K                   K                   K
    wanted            x                   x     x                         x
    decoded      [----]              [----------]        [----------------]

That a list of packets is right, and that frames are equal whichever key frame decoding begins at,
is not true of every file: codecs may refer to pictures before a key frame, containers may miss
times, and files may be damaged. So the time of every decoded frame is compared with the list, and
when a file is opened, some of its key frames are sought and compared with what is decoded from the
key frame before (`_probe`). Where anything differs, the file is decoded from its start.
"""

from array import array
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import numpy as np

from clipzoo.data.decoding import (
    Outcome,
    VideoError,
    check_decoded,
    run_ffmpeg,
    selection,
    split_jpegs,
)
from clipzoo.data.ffmpeg import ask_ffmpeg, ffmpeg_path
from clipzoo.data.store import VideoInfo
from clipzoo.data.timing import frame_rate
from clipzoo.serve.folder import FramesOfVideos
from clipzoo.serve.video_file import (
    MOST_SELECTED,
    VideoFile,
    check_name,
    selecting_command,
)

CONTAINERS = ("avi", "matroska", "mov")
"""The first of ffmpeg's names of the formats with an index of key frames."""
SEEK_FROM_SECONDS = 60
"""Shorter videos are decoded from their start, which takes less time than `_probe`."""
SKIP_SECONDS = 4
"""The least time that is skipped: to start ffmpeg takes as long as to decode some frames."""
NUM_PROBES = 3
BEFORE_SECONDS = 2e-6
"""How long before a frame decoded frames are kept. ffmpeg counts microseconds, and rounds to the
ticks of the file."""
TOLERANCE_SECONDS = 1e-5
"""How far a decoded frame may be from its time in the list of packets."""
KEY, DISCARDED = 1, 4
"""Flags of packets: decoding may begin here; it is not shown."""
NO_TIME = -(2**63)
MOST_PACKETS = 10_000_000
"""More than two days; files of strangers may have any number."""


class CannotSeek(ValueError):
    """Seeking does not give the frames of a file; the message says why."""


def open_video(path: str | Path, frames: FramesOfVideos) -> "Video":
    """A video as a `SeekingFile`, or as a `VideoFile` if it is short, or seeking in it is not
    exact; arguments and errors are those of `VideoFile`."""
    try:
        file = SeekingFile(path, frames)
        if file.end_seconds < SEEK_FROM_SECONDS:
            raise CannotSeek("it is short")
        file.check()
    except CannotSeek:
        return VideoFile(path, frames)
    return file


class SeekingFile:
    """A video that ffmpeg decodes near the frames that are read; otherwise as `VideoFile`.

    Raises:
        VideoError: the file is missing.
        CannotSeek: its format has no index, the times of its packets are not those of frames, it
            is cut or damaged, or only some frames a second are kept.
    """

    def __init__(self, path: str | Path, frames: FramesOfVideos) -> None:
        self.path, self.frames = Path(path), frames
        check_name(self.path)
        if frames.fps:
            raise CannotSeek("frames are resampled")
        self.name, outcome = self.path.name, Outcome()
        self.seconds, self.keys = list_frames(self.path, outcome)
        """When each frame is shown, [num_frames] float64, and which are key frames, [keys] int64,
        both ascending."""
        self.end_seconds = outcome.timing.end_seconds
        rate, _ = frame_rate(outcome.timing.times, outcome.fps)
        self.videos = {self.name: VideoInfo(len(self.seconds), 0, 0, rate, 0)}

    @property
    def num_frames(self) -> int:
        """The number of frames."""
        return len(self.seconds)

    def read(self, video_id: str, indices: Sequence[int] | np.ndarray) -> list[bytes]:
        """As `VideoFile.read`; decodes from a key frame on."""
        unique = np.unique(indices)
        jpegs = list(self.stream(unique))
        return [jpegs[place] for place in np.searchsorted(unique, indices)]

    def stream(self, frames: np.ndarray) -> Generator[bytes, None, None]:
        """As `VideoFile.stream`. If seeking fails, the frames that are left are read by that."""
        done = 0
        try:
            for run in self._runs(frames.tolist()):
                for jpeg in self._decode(run):
                    yield jpeg
                    done += 1
        except CannotSeek as reason:
            exact = VideoFile(self.path, self.frames)
            same = exact.num_frames == self.num_frames
            if not same or np.abs(exact.seconds - self.seconds).max() > TOLERANCE_SECONDS:
                text = f"{self.path}: its frames are not those that its packets promise ({reason})"
                raise VideoError(text) from None
            yield from exact.stream(frames[done:])

    def check(self) -> None:
        """Compare frames that are sought with those that are decoded from further before.

        Raises:
            CannotSeek: they differ, or the list of packets is not that of the frames at the
                beginning or end.
        """
        keys = self.keys.tolist()
        if len(keys) < 3 or keys[0] != 0:
            raise CannotSeek("it has under 3 key frames, or does not begin with one")
        beginning = range(min(keys[1] + 3, self.num_frames))
        for _ in self._decode(beginning):
            pass
        for _ in self._decode(range(keys[-1], self.num_frames), to_end=True):
            pass
        for place in np.linspace(1, len(keys) - 1, NUM_PROBES).round().astype(int).tolist():
            self._probe(keys[place - 1], keys[place])

    def _probe(self, before: int, key: int) -> None:
        """Frames around a key frame must be those that are decoded from the one before."""
        last = min(key + 2, self.num_frames - 1)
        around = [i for i in range(key - 2, last + 1) if i > before]
        played = list(self._decode(around, begin=before))
        for number, jpeg in zip(around, played, strict=True):
            if list(self._decode([number])) != [jpeg]:
                raise CannotSeek(f"frame {number} differs if it is sought")

    def _runs(self, frames: list[int]) -> Iterator[list[int]]:
        """Divide ascending frames where at least SKIP_SECONDS between two need no decoding, and
        after MOST_SELECTED."""
        run: list[int] = []
        for frame in frames:
            key = self._key_before(frame)
            skips = run and self.seconds[key] - self.seconds[run[-1]] > SKIP_SECONDS
            if skips or len(run) == MOST_SELECTED:
                yield run
                run = []
            run.append(frame)
        if run:
            yield run

    def _key_before(self, frame: int) -> int:
        """The last key frame up to a frame. Frames that precede it in time may follow it in the
        file, and refer to what precedes it there: these are decoded from the key frame before."""
        return int(self.keys[max(np.searchsorted(self.keys, frame, side="right") - 1, 0)])

    def _decode(
        self, run: Sequence[int], begin: int | None = None, to_end: bool = False
    ) -> Iterator[bytes]:
        """The JPEGs of a run of frames, which are decoded together.

        Args:
            run: frames, ascending.
            begin: decoding begins at the last key frame up to this one; None = up to the first of
                the run.
            to_end: every frame of the run and after it must be one of the list.

        Raises:
            CannotSeek: one of the frames has not the time of the list, or ffmpeg reports an error.
        """
        begin = self._key_before(run[0] if begin is None else begin)
        offset = float(self.seconds[begin]) - BEFORE_SECONDS if begin else 0.0
        expected, outcome = self.seconds[np.asarray(run)] - offset, Outcome()
        command = self._command([frame - begin for frame in run], offset, to_end)
        waiting: deque[bytes] = deque()  # frames whose times were not printed yet
        checked = done = 0
        for jpeg in split_jpegs(run_ffmpeg(command, outcome)):
            waiting.append(jpeg)
            checked = _check_times(outcome.timing.times, expected, checked)
            while waiting and done < checked:
                yield waiting.popleft()
                done += 1
        checked = _check_times(outcome.timing.times, expected, checked)
        if outcome.damage or checked < len(run) or done + len(waiting) != len(run):
            raise CannotSeek(outcome.damage or f"{checked} of {len(run)} frames are there")
        yield from waiting

    def _command(self, places: list[int], offset: float, to_end: bool) -> list[str]:
        """As `jpeg_command`, from a time on (seconds; 0 = the beginning); the times of the selected
        frames are printed."""
        expression = f"gte(n,{places[0]})" if to_end else selection(places)
        command = selecting_command(self.path, self.frames, expression, _showinfo())
        if not to_end:
            command[-1:] = ["-frames:v", str(len(places)), command[-1]]
        if offset:
            place = command.index("-i")
            command[place:place] = ["-ss", f"{offset:.6f}"]
        return command


def _showinfo() -> str:
    """The filter that prints times, without checksums if ffmpeg has that option."""
    has_option = "checksum" in ask_ffmpeg("-hide_banner", "-h", "filter=showinfo")
    return "showinfo=checksum=0" if has_option else "showinfo"


def _check_times(times: list[float], expected: np.ndarray, checked: int) -> int:
    """How many selected frames have the times that are expected; CannotSeek if one has another."""
    new = np.asarray(times[checked:])
    if checked + len(new) > len(expected):
        raise CannotSeek("more frames are decoded than it has packets")
    errors = np.abs(new - expected[checked : checked + len(new)])
    if errors.max(initial=0.0) > TOLERANCE_SECONDS:
        number = int(errors.argmax())
        raise CannotSeek(
            f"a frame is at {new[number]:.6f} s, not {expected[checked + number]:.6f} s, after it "
            "is sought"
        )
    return checked + len(new)


def list_frames(path: Path, outcome: Outcome) -> tuple[np.ndarray, np.ndarray]:
    """When the frames of a video are shown and which are key frames, without decoding them.

    Args:
        outcome: is filled in, with the times as well.

    Returns:
        seconds [n] float64, and indices of key frames int64, ascending.

    Raises:
        CannotSeek: as `SeekingFile`.
    """
    command = [ffmpeg_path(), "-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+info"]
    command += ["-i", f"file:{path}", "-map", "0:V:0", "-c", "copy", "-f", "framecrc", "pipe:"]
    ticks, rows, rest = 0.0, array("q"), b""  # 4 numbers a packet, in little memory
    for chunk in run_ffmpeg(command, outcome):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"#tb 0: "):
                above, _, below = line[7:].partition(b"/")
                ticks = int(above) / int(below)
            elif not line.startswith(b"#"):
                rows.extend(_packet(line))
        if len(rows) > 4 * MOST_PACKETS:
            raise CannotSeek(f"it has over {MOST_PACKETS} packets")
    if outcome.damage or not outcome.timing.container.startswith(CONTAINERS):
        raise CannotSeek(outcome.damage or f"{outcome.timing.container} has no index")
    table = np.frombuffer(rows, np.int64).reshape(-1, 4)  # [packets, 4]
    table = table[table[:, 3] & DISCARDED == 0]
    if not len(table):
        raise CannotSeek("it has no packets")
    dts, pts, duration, flags = table.T
    shown = dts if (pts == NO_TIME).any() else pts
    order = np.argsort(shown, kind="stable")
    seconds = shown[order] * ticks
    if np.diff(seconds).min(initial=1.0) <= 2 * TOLERANCE_SECONDS:
        raise CannotSeek("two packets have one time")  # as those of several edits may have
    outcome.timing.times = seconds.tolist()
    outcome.timing.end_seconds = float((shown + duration).max() * ticks)
    check_decoded(path, outcome, None, len(seconds))
    if outcome.damage:
        raise CannotSeek(outcome.damage)
    return seconds, np.flatnonzero(flags[order] & KEY)


def _packet(line: bytes) -> tuple[int, int, int, int]:
    """dts, pts, duration (ticks) and flags of `stream, dts, pts, duration, size, crc[, F=0x0]`,
    where no flags mean KEY alone."""
    fields = line.split(b",")
    flags = int(fields[6].strip()[2:], 16) if fields[6:] and b"F=" in fields[6] else KEY
    dts, pts = (NO_TIME if f.strip() == b"NOPTS" else int(f) for f in fields[1:3])
    return dts, pts, int(fields[3]), flags


Video = VideoFile | SeekingFile
"""Both are a `data.store.Store` of one video."""

"""One raw video -> JPEGs or pictures in RGB, by ffmpeg.

ffmpeg writes one picture for every decoded frame (even if the frame rate varies) unless `fps` is
set, applies rotation metadata, and ignores the pixels' aspect ratio. Frames are counted by
decoding, because headers may be wrong. A video counts as broken if ffmpeg reports any error, or if
it ends clearly earlier than its header says (`clipzoo.data.truncation`). Times are those of a
player (`clipzoo.data.timing`).

Videos come from strangers. ffmpeg may open nothing but the file itself (`SAFE_INPUT`), is killed if
it writes no frame for STALLED_SECONDS, and ends with the process that started it.
"""

import functools
import itertools
import os
import re
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clipzoo.config import SOURCE_SIZE
from clipzoo.data.ffmpeg import ask_ffmpeg, ffmpeg_path
from clipzoo.data.timing import Timing
from clipzoo.data.truncation import find_cut

CHUNK_BYTES = 1 << 20
JPEG_SEAM = b"\xff\xd9\xff\xd8"
"""The end of one JPEG and the start of the next. It cannot occur inside one, where the coded data
have a 0 after each 0xff."""
BICUBIC = "bicubic+accurate_rnd+bitexact"
"""The scaling of stored frames. Without the last two flags, pixels differ by one between CPUs with
and without AVX-512."""
BILINEAR = "bilinear"
"""The scaling that decord uses."""
STALLED_SECONDS = 120
"""A decoder is killed if it gives no new frame for this time: far more than a frame takes, and
longer than a file server's short interruptions."""
CONTAINERS = (
    *("asf", "asf_o", "avi", "flv", "h264", "hevc", "live_flv", "m4v", "matroska", "mov", "mpeg"),
    *("mpegts", "mpegvideo", "ogg"),
)
"""ffmpeg's names of the formats that hold a video in one file. Left out are pictures, and
playlists, manifests and scripts, which make ffmpeg open other files and addresses."""
SAFE_INPUT = (
    *("-protocol_whitelist", "file,pipe"),
    *("-format_whitelist", ",".join(CONTAINERS)),
)
"""Options of an input, known to ffmpeg 3.0 and later. No index and no fingerprint has them, because
they change no frame."""


class VideoError(ValueError):
    """A raw video is broken; the message says why."""


def jpeg_command(
    path: Path,
    size: str,
    quality: int,
    fps: float | None,
    *,
    frames: Sequence[int] | None = None,
    timed: bool = False,
) -> list[str]:
    """The ffmpeg command that writes a video's frames as JPEGs to its standard output.

    Args:
        size: '256' (short side; the other is rounded to an even number), '340x256' (px), or
            'source' (as in the video).
        quality: -q:v, 2 (best) to 31.
        fps: frames a second to keep; None = every frame.
        frames: indices among the frames kept, ascending, without repeats; None = all frames.
        timed: make ffmpeg print when each picture is shown (`Outcome.timing`). Like `SAFE_INPUT`,
            this is in no index and no fingerprint.
    """
    width, _, height = size.partition("x")
    if size == SOURCE_SIZE:
        width, height = "iw", "ih"
    elif not height:
        width, height = f"if(gt(iw,ih),-2,{size})", f"if(gt(iw,ih),{size},-2)"
    video, selected = _selected(_input(path, fps, timed), frames)
    # JPEG implies full range and the matrix of BT.601, whatever the video uses.
    video = video.filter(
        "scale", w=width, h=height, out_color_matrix="bt601", out_range="pc", flags=BICUBIC
    ).filter("setsar", "1")
    options = {"c:v": "mjpeg", "pix_fmt": "yuvj420p", "q:v": quality, "flags": "+bitexact"}
    options |= selected
    return _compiled(video, "image2pipe", options)


def frames_command(
    path: Path,
    fps: float | None,
    size: tuple[int, int],
    frames: Sequence[int] | None = None,
    *,
    flags: str = BICUBIC,
    timed: bool = False,
) -> list[str]:
    """The ffmpeg command that writes frames as RGB, 3 bytes a pixel, to its standard output.

    Args:
        fps, frames, timed: as for `jpeg_command`.
        size: width and height (px).
        flags: the scaling, `BICUBIC` or `BILINEAR`.
    """
    video, selected = _selected(_input(path, fps, timed), frames)
    video = video.filter("scale", w=size[0], h=size[1], flags=flags)
    return _compiled(video, "rawvideo", {"pix_fmt": "rgb24", **selected})


def _selected(video, frames: Sequence[int] | None):  # ffmpeg-python has no types
    """Some frames of a video, and the options of the output that end it after the last of them."""
    if frames is None:
        return video, {}
    return video.filter("select", selection(frames)), {"frames:v": str(len(frames))}


def selection(places: Iterable[int]) -> str:
    """ffmpeg's expression of the frames to select, which compares a number with few of them.

    A sum of comparisons would be evaluated as a whole for each frame, and may have 100 terms.

    Example: [0, 5, 6, 9] -> `if(lt(n,5),between(n,0,0),if(lt(n,9),between(n,5,6),between(n,9,9)))`.
    """
    # In a run of consecutive numbers, the difference of a number and its position stays the same.
    grouped = itertools.groupby(enumerate(places), lambda pair: pair[1] - pair[0])
    lists = [[place for _, place in run] for _, run in grouped]
    runs = [(run[0], run[-1]) for run in lists]

    def tree(low: int, high: int) -> str:
        if high - low == 1:
            return f"between(n,{runs[low][0]},{runs[low][1]})"
        middle = (low + high) // 2
        return f"if(lt(n,{runs[middle][0]}),{tree(low, middle)},{tree(middle, high)})"

    return tree(0, len(runs))


def _input(path: Path, fps: float | None, timed: bool):  # ffmpeg-python has no types
    import ffmpeg  # here and below: frames that are ready need none

    # `file:` keeps a colon in a name from being read as a protocol; V skips cover pictures.
    video = ffmpeg.input(f"file:{path}", threads=1)["V:0"]
    delay = _picture_delay(path) if timed or fps else 0.0
    video = video.filter("setpts", f"PTS+{delay}/TB") if delay else video
    if timed:
        # Checksums take time; ffmpeg before 4.3 always computes them.
        has_option = "checksum" in ask_ffmpeg("-hide_banner", "-h", "filter=showinfo")
        video = video.filter("showinfo", **({"checksum": 0} if has_option else {}))
    return video.filter("fps", fps=fps) if fps else video


def _picture_delay(path: Path) -> float:
    """Seconds from the beginning of a transport or program stream to that of its picture.

    In these formats alone, ffmpeg's time 0 is the beginning of the first stream that it decodes, so
    that a picture that begins after its sound would begin at 0. Older versions do not have this
    rule and print no correction.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError:
        return 0.0  # ffmpeg will say why; or this is the word VIDEO in a fingerprint
    if not (b"\x47" in (start[:1], start[4:5]) or start.startswith(b"\0\0\1\xba")):
        return 0.0
    outcome = Outcome()
    options = ["-i", f"file:{path}", "-map", "0:V:0", "-frames:v", "1", "-f", "null", "-"]
    list(run_ffmpeg([*_quiet("verbose"), *options], outcome))
    return outcome.correction


def _compiled(video, format_name: str, options: Mapping[str, object]) -> list[str]:
    import ffmpeg

    # -fps_mode of ffmpeg 5.1 and later was called -vsync before.
    has_fps_mode = "fps_mode" in ask_ffmpeg("-hide_banner", "-h", "long")
    every_frame = {"fps_mode" if has_fps_mode else "vsync": "passthrough"}
    # Frames are numbered instead of timed: encoders reject two frames with the same time, which a
    # varying frame rate or a bad header can cause.
    video = video.filter("settb", "1/1000").filter("setpts", "N")
    options = {"enc_time_base": "1:1000", "threads": 1, **every_frame, **options}
    command = ffmpeg.output(video, "pipe:", f=format_name, **options).compile()
    return [*_quiet("info"), "-filter_threads", "1", *command[1:]]


def _quiet(level: str) -> list[str]:
    """The beginning of all commands; each message has its level in front."""
    options = ["-hide_banner", "-nostdin", "-nostats", "-loglevel", f"level+{level}"]
    return [ffmpeg_path(), *options]


@functools.cache
def ending_with_us() -> list[str]:
    """What to put before a command so that the kernel kills it when this thread ends, even by -9.

    Empty where setpriv (of util-linux 2.33 and later) is missing: there, ffmpeg ends when it next
    writes to the closed pipe. Python's way, a function that runs between fork and exec, may
    deadlock in a process with threads.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return []
    usage = subprocess.run([setpriv, "--help"], capture_output=True, check=False).stdout
    return [setpriv, "--pdeathsig", "KILL"] if b"--pdeathsig" in usage else []


@dataclass
class Outcome:
    """What ffmpeg reported."""

    fps: float = 0.0
    """The frames a second according to the header; 0 = unknown."""
    codec: str = ""
    """ffmpeg's name of the codec, like 'h264'; '' = unknown."""
    damage: str = ""
    """The first error; '' = none."""
    correction: float = 0.0
    """The seconds by which ffmpeg moved its time 0, which `-loglevel verbose` prints."""
    timing: Timing = field(default_factory=Timing)
    """The times of all decoded pictures, if the command was `timed`."""


def run_ffmpeg(command: list[str], outcome: Outcome) -> Iterator[bytes]:
    """Yield ffmpeg's standard output in chunks; `outcome` is filled in, completely at the end.

    `SAFE_INPUT` is added to the command.

    Raises:
        VideoError: ffmpeg gave no output for STALLED_SECONDS and was killed.
        MemoryError: ffmpeg was killed by someone else.
    """
    place = command.index("-i")
    command = [*ending_with_us(), *command[:place], *SAFE_INPUT, *command[place:]]
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, stdin=nothing, stdout=pipe, stderr=pipe, bufsize=0) as process:
        try:
            yield from _read_output(process, outcome)
            process.wait(STALLED_SECONDS)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise VideoError(f"ffmpeg did not end within {STALLED_SECONDS} s") from error
        except BaseException:  # the caller stopped, e.g. because the disk is full
            process.kill()
            raise
    if process.returncode == -signal.SIGKILL:  # as the kernel does where memory runs out
        raise MemoryError("ffmpeg was killed by SIGKILL")
    if process.returncode and not outcome.damage:
        outcome.damage = f"ffmpeg ended with code {process.returncode}"


def _read_output(process: subprocess.Popen[bytes], outcome: Outcome) -> Iterator[bytes]:
    """Yield what comes from standard output, and note what comes from standard error.

    Both are read as they come: ffmpeg would wait forever if one of the two pipes were full.
    """
    assert process.stdout is not None
    assert process.stderr is not None
    rest = b""  # of the messages: an incomplete line
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        selector.register(process.stderr, selectors.EVENT_READ)
        deadline = time.monotonic() + STALLED_SECONDS
        while selector.get_map():
            # Messages do not count as progress: a decoder may print them forever.
            if time.monotonic() > deadline:
                raise VideoError(
                    f"ffmpeg gave no new frame for {STALLED_SECONDS} s and was killed; a file "
                    "server that hangs, or a file that makes ffmpeg hang"
                )
            for key, _ in selector.select(max(0, deadline - time.monotonic())):
                chunk = os.read(key.fd, CHUNK_BYTES)
                if not chunk:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stdout:
                    yield chunk
                    deadline = time.monotonic() + STALLED_SECONDS  # the caller took its time
                else:
                    *lines, rest = (rest + chunk).split(b"\n")
                    rest = rest[-CHUNK_BYTES:]
                    for line in lines:
                        _note(line.decode("utf-8", "replace"), outcome)
    _note(rest.decode("utf-8", "replace"), outcome)


def _note(line: str, outcome: Outcome) -> None:
    """Keep times, and the first codec, frame rate and error among ffmpeg's messages."""
    if outcome.timing.note(line):
        return
    if moved := re.match(r"\[verbose\] Correcting start time of Input #0 by (-?\d+) ?us", line):
        outcome.correction = int(moved[1]) / 1e6
    if (codec := re.search(r"Video: (\w+)", line)) and not outcome.codec:
        outcome.codec = codec[1]
    if (rate := re.search(r"Video:.*?([\d.]+)(k?) fps", line)) and not outcome.fps:
        outcome.fps = float(rate[1]) * (1000 if rate[2] else 1)
    if (error := re.search(r"\[(?:error|fatal|panic)\] (.+)", line)) and not outcome.damage:
        outcome.damage = error[1].strip()
        if "matches no streams" in outcome.damage:
            outcome.damage = "it has no video stream"
        elif "Format not on whitelist" in outcome.damage:
            outcome.damage = (
                "it is not a video but a playlist, a script or a picture; allowed: containers of "
                f"one video ({', '.join(CONTAINERS)})"
            )


def check_decoded(path: Path, outcome: Outcome, fps: float | None, num_frames: int) -> None:
    """Set `outcome.damage` to `cut: ...` if a video ends clearly earlier than its header says.

    The outcome is that of a `timed` command that decoded the whole video and kept `num_frames`.

    Raises:
        VideoError: it kept none.
    """
    if num_frames == 0:
        reason = "it has no frames"
        if path.is_file() and not path.stat().st_size:
            reason = "it is empty"
        elif outcome.damage.startswith("it "):  # of `_note`
            reason = outcome.damage
        elif outcome.damage:
            reason = f"it is not a video that ffmpeg can read ({outcome.damage})"
        elif fps and outcome.timing.times:
            reason = f"it is too short for {fps:g} frames a second"
        raise VideoError(f"{path}: {reason}")
    outcome.damage = find_cut(path, outcome.timing, lambda: _last_packet(path)) or outcome.damage


def _last_packet(path: Path) -> float:
    """When the last packet of any stream ends (seconds), without decoding."""
    command = [*_quiet("error"), "-i", f"file:{path}", "-map", "0:v?", "-map", "0:a?"]
    command += ["-map", "0:s?", "-c", "copy", "-f", "framecrc", "pipe:"]
    units: dict[str, float] = {}
    latest, rest = 0.0, b""
    for chunk in run_ffmpeg(command, Outcome()):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            # `#tb 0: 1/90000`, and then `stream, dts, pts, duration, size, checksum`
            if unit := re.match(r"#tb (\d+): (\d+)/(\d+)", line.decode("ascii", "replace")):
                units[unit[1]] = int(unit[2]) / int(unit[3])
            elif not line.startswith(b"#"):
                stream, dts, pts, duration = line.decode("ascii").replace(" ", "").split(",")[:4]
                ticks = int(pts if pts != "NOPTS" else dts) + int(duration)
                latest = max(latest, ticks * units[stream])
    return latest


def split_jpegs(chunks: Iterable[bytes]) -> Generator[bytes, None, None]:
    """Split concatenated JPEGs, which may begin and end anywhere in the chunks.

    Raises:
        VideoError: the stream does not end with a complete JPEG.
    """
    start, end = JPEG_SEAM[2:], JPEG_SEAM[:2]
    rest = b""
    for chunk in chunks:
        *whole, last = (rest + chunk).split(JPEG_SEAM)
        for number, part in enumerate(whole):
            yield (start if number else b"") + part + end
        rest = start + last if whole else last
    if rest and not (rest.startswith(start) and rest.endswith(end)):
        raise VideoError("ffmpeg's output ends within a frame")
    if rest:
        yield rest

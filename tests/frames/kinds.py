"""Videos of many kinds, each frame of which shows its number.

Frame i is an upright picture if its upper third is red on the left and blue on the right; below are
the 8 bits of i, 2 rows of 4 blocks, white or black, the highest first.
"""

import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipzoo.data.ffmpeg import ffmpeg_path
from videos import run_ffmpeg

RATE = 10
SIZE = (96, 72)
H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-g", "10", "-bf", "2", "-crf", "12")
MPEG2 = ("-c:v", "mpeg2video", "-q:v", "2", "-bf", "2", "-g", "10")
HEVC = ("-c:v", "libx265", "-pix_fmt", "yuv420p", "-x265-params", "log-level=none:keyint=10")


def picture(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Frame `number`, uint8 [H, W, 3], RGB."""
    width, height = size
    image = np.full((height, width, 3), 128, np.uint8)
    image[: height // 3, : width // 2] = 200, 30, 30
    image[: height // 3, width // 2 :] = 30, 30, 200
    rows = np.linspace(height // 3, height, 3).astype(int)
    columns = np.linspace(0, width, 5).astype(int)
    for place in range(8):
        i, j = divmod(place, 4)
        value = 230 if number >> (7 - place) & 1 else 20
        image[rows[i] : rows[i + 1], columns[j] : columns[j + 1]] = value
    return image


def number_of(image: np.ndarray) -> int:
    """The number that a picture [H, W, 3] shows; -1 if it is not upright."""
    height, width = image.shape[:2]
    image = image.astype(int)
    left, right = image[height // 6, width // 4], image[height // 6, 3 * width // 4]
    if not (left[0] > left[2] + 50 and right[2] > right[0] + 50):
        return -1
    bits = [
        image[int(height * (3 * i + 5) / 12 + height / 12), int(width * (2 * j + 1) / 8)].mean()
        for i in (0, 1.3)
        for j in range(4)
    ]
    return int("".join("1" if bit > 128 else "0" for bit in bits), 2)


def encode(
    path: Path,
    numbers: Sequence[int],
    *options: object,
    size: tuple[int, int] = SIZE,
    turn: Callable[[np.ndarray], np.ndarray] = lambda image: image,
) -> None:
    """A video of numbered frames, RATE a second; `turn` changes each picture before."""
    images = [np.ascontiguousarray(turn(picture(number, size))) for number in numbers]
    height, width = images[0].shape[:2]
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(RATE)]
    command = [ffmpeg_path(), "-v", "error", "-y", *source, "-i", "-", *map(str, options)]
    pixels = b"".join(image.tobytes() for image in images)
    subprocess.run([*command, str(path)], input=pixels, check=True)


def set_edits(path: Path, edits: Sequence[tuple[float, float]]) -> None:
    """Replace the edit list of a mp4 with one track.

    Args:
        path: is changed.
        edits: start (seconds; -1 = show nothing) and duration of each.
    """
    content = bytearray(path.read_bytes())
    assert content.index(b"mdat") < content.index(b"moov"), "offsets of frames stay as they are"

    def number(box: bytes, offset: int) -> int:
        at = content.index(box) + 4 + offset
        return struct.unpack(">i", content[at : at + 4])[0]

    movie, media = number(b"mvhd", 12), number(b"mdhd", 12)  # units a second
    delay = number(b"elst", 12)  # of the first frame, because of B-frames
    entries = b"".join(
        struct.pack(
            ">iiI",
            round(seconds * movie),
            -1 if start < 0 else round(start * media) + delay,
            0x10000,
        )
        for start, seconds in edits
    )
    box = b"elst" + struct.pack(">II", 0, len(edits)) + entries
    at = content.index(b"elst") - 4
    old = struct.unpack(">I", content[at : at + 4])[0]
    grown = len(box) + 4 - old
    content[at : at + old] = struct.pack(">I", len(box) + 4) + box
    for name in (b"moov", b"trak", b"edts"):
        at = content.index(name) - 4
        size = struct.unpack(">I", content[at : at + 4])[0]
        content[at : at + 4] = struct.pack(">I", size + grown)
    path.write_bytes(content)


@dataclass(frozen=True)
class Kind:
    """How to make one file, and what is right."""

    make: Callable[[Path], object]
    numbers: Sequence[int] | None = range(24)
    """Numbers of the frames that it shows; None = whatever ffmpeg shows."""
    by_decord: bool | None = None
    """Whether decord reads it as ffmpeg does; None = not asked."""
    refused: str = ""
    """Reason, if it cannot be read on the fly."""


def plain(*options: object, numbers: Sequence[int] = range(24), **settings):
    return lambda path: encode(path, numbers, *options, **settings)


def edited(*edits: tuple[float, float]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        encode(path, range(40), *H264)
        set_edits(path, edits)

    return make


def shown(*options: object, turn: Callable[[np.ndarray], np.ndarray] = lambda image: image):
    """A file whose display matrix `options` set; `turn` makes the picture upright again."""

    def make(path: Path) -> None:
        whole = path.with_name(f"_{path.stem}.mp4")
        encode(whole, range(24), *H264, turn=turn)
        run_ffmpeg(*options, "-i", whole, "-c", "copy", path)
        whole.unlink()

    return make


def tracks(first: Sequence[int], second: Sequence[int]) -> Callable[[Path], None]:
    """Two video tracks; the second is larger, which is what ffmpeg's and decord's choice go by."""

    def make(path: Path) -> None:
        parts = [path.with_name(f"_{path.stem}{i}.mp4") for i in range(2)]
        encode(parts[0], first, *H264)
        encode(parts[1], second, *H264, size=(192, 144))
        run_ffmpeg("-i", parts[0], "-i", parts[1], "-map", "0", "-map", "1", "-c", "copy", path)
        for part in parts:
            part.unlink()

    return make


def cut_within(path: Path) -> None:
    """A transport stream that begins between key frames."""
    encode(path, range(40), *H264)
    packets = path.read_bytes()
    path.write_bytes(packets[188 * (len(packets) // 188 // 3) :])


def cut_start(path: Path) -> None:
    """What `-ss -c copy` gives: the key frame before the start is there, but not shown."""
    whole = path.with_name(f"_{path.stem}.mp4")
    encode(whole, range(40), *H264)
    run_ffmpeg("-ss", "0.5", "-i", whole, "-c", "copy", path)
    whole.unlink()


def changing_size(path: Path) -> None:
    parts = [path.with_name(f"_{path.stem}{i}.h264") for i in range(2)]
    encode(parts[0], range(12), *H264)
    encode(parts[1], range(12, 24), *H264, size=(192, 144))
    joined = path.with_name(f"_{path.stem}.h264")
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    run_ffmpeg("-f", "h264", "-r", RATE, "-i", joined, "-c", "copy", path)
    for part in (*parts, joined):
        part.unlink()


def later_picture(path: Path) -> None:
    """Sound from 0 s, the picture from 1.3 s on."""
    whole = path.with_name(f"_{path.stem}.mp4")
    encode(whole, range(24), *H264)
    sound = ("-f", "lavfi", "-i", "sine=duration=3.7")
    delayed = ("-itsoffset", "1.3", "-i", whole)
    run_ffmpeg(*sound, *delayed, "-map", "0", "-map", "1", "-c:v", "copy", path)
    whole.unlink()


VARYING = ("-vf", "setpts='if(lt(N,8),N*3,N+16)/10/TB'", "-fps_mode", "passthrough")
MIRRORED = shown("-display_hflip", turn=lambda image: image[:, ::-1])
FIRST = {
    "plain.mp4": Kind(plain(*H264), by_decord=True),
    "two-edits.mp4": Kind(edited((0, 1), (2, 1)), [*range(10), *range(20, 30)]),
    "h264.ts": Kind(plain(*H264), by_decord=False),
    "mirrored.mp4": Kind(MIRRORED, by_decord=False),
    "two-tracks.mp4": Kind(tracks(range(24), range(100, 110)), by_decord=False),
}
"""One of each kind of fault; the others are in KINDS."""
KINDS = {
    "edits-back.mp4": Kind(edited((2, 1), (0, 1)), [*range(20, 30), *range(10)]),
    "edit-again.mp4": Kind(edited((0, 1), (0, 1), (0, 1)), [*range(10)] * 3),
    "edit-late.mp4": Kind(edited((1.5, 2)), range(15, 35)),
    "edit-short.mp4": Kind(edited((0, 2)), range(20)),
    "edit-empty.mp4": Kind(edited((-1, 1), (0, 4)), range(40)),
    "first-key-frame-not-shown.mp4": Kind(cut_start, None, by_decord=False),
    "first-key-frame-not-shown.mkv": Kind(cut_start, None),
    "h264.m2ts": Kind(plain(*H264), by_decord=False),
    "h264.mts": Kind(plain(*H264), by_decord=False),
    "h264-no-b.ts": Kind(plain(*H264, "-bf", "0"), by_decord=True),
    "mpeg2.ts": Kind(plain(*MPEG2), by_decord=False),
    "mpeg2.mts": Kind(plain(*MPEG2), by_decord=False),
    "mpeg2.mpg": Kind(plain(*MPEG2, "-r", "25"), None),
    "hevc.ts": Kind(plain(*HEVC), by_decord=False),
    "hevc.mts": Kind(plain(*HEVC), by_decord=False),
    "hevc.mp4": Kind(plain(*HEVC)),
    "hevc10.mp4": Kind(plain(*HEVC, "-pix_fmt", "yuv420p10le")),
    "h264-10.mp4": Kind(plain(*H264, "-pix_fmt", "yuv420p10le"), by_decord=True),
    "h264-444.mp4": Kind(plain(*H264, "-pix_fmt", "yuv444p"), by_decord=True),
    "open.mp4": Kind(plain(*H264, "-x264-params", "open-gop=1")),
    "fragments.mp4": Kind(plain(*H264, "-movflags", "frag_keyframe+empty_moov")),
    "h264.avi": Kind(plain(*H264)),
    "mpeg4-b.avi": Kind(plain("-c:v", "mpeg4", "-q:v", "2", "-bf", "2")),
    "mpeg4.avi": Kind(plain("-c:v", "mpeg4", "-q:v", "2"), by_decord=True),
    "mjpeg.mov": Kind(plain("-c:v", "mjpeg", "-q:v", "2"), by_decord=True),
    "vp8.webm": Kind(plain("-c:v", "libvpx", "-crf", "4", "-b:v", "2M"), by_decord=True),
    "vp9.webm": Kind(plain("-c:v", "libvpx-vp9", "-crf", "4", "-b:v", "2M", "-cpu-used", "8")),
    "wmv2.wmv": Kind(plain("-c:v", "wmv2", "-q:v", "2")),
    "theora.ogv": Kind(plain("-c:v", "libtheora", "-q:v", "9")),
    "av1.mp4": Kind(plain("-c:v", "libsvtav1", "-preset", "12", "-crf", "15"), None, False),
    "av1.mkv": Kind(plain("-c:v", "libaom-av1", "-cpu-used", "8"), by_decord=False),
    "varying.mkv": Kind(plain(*VARYING, *H264)),
    "varying.mp4": Kind(plain(*VARYING, *H264), by_decord=False),
    "later-picture.mp4": Kind(later_picture),
    "later-picture.mkv": Kind(later_picture),
    "odd.mp4": Kind(plain(*H264, "-pix_fmt", "yuv444p", size=(97, 73))),
    "narrow.mp4": Kind(plain(*H264, size=(24, 72))),
    "pixels.mp4": Kind(plain("-vf", "setsar=4/3", *H264), by_decord=True),
    "one.mp4": Kind(plain(*H264, numbers=[7]), [7]),
    "tracks-swapped.mp4": Kind(tracks(range(100, 110), range(24)), range(100, 110)),
    "two-tracks.mkv": Kind(tracks(range(24), range(100, 110))),
    "two-tracks.ts": Kind(tracks(range(24), range(100, 110))),
    "size-changes.mp4": Kind(changing_size, None, refused="(does their size change|broken: )"),
    "mirrored.mkv": Kind(MIRRORED, by_decord=False),
    "turned.mp4": Kind(
        shown("-display_rotation", "90", turn=lambda image: np.rot90(image, -1)), by_decord=True
    ),
    **{
        f"turned{degrees}{'-mirrored' if mirror else ''}{suffix}": Kind(
            shown("-display_rotation", degrees, *mirror), None
        )
        for degrees in (0, 45, 90, 180, 270)
        for mirror in ((), ("-display_hflip",))
        for suffix in (".mp4", ".mkv")
    },
}

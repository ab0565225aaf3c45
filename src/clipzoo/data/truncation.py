"""Videos whose download stopped: what their containers promise, and whether it is there.

Decoders play the part of such a file that is there without an error. A file counts as cut if its
header promises clearly more than was decoded and no other stream fills the rest (sound may be
longer than the picture), or if it ends within one of the pieces that its container is made of.
"""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from clipzoo.data.timing import Timing

SLACK_SECONDS, SLACK_SHARE = 0.5, 0.01
"""How much may be missing: headers are rounded, and count pictures that decoders drop."""
SLACK_PICTURES = 2
"""How many of the longest times between two pictures may be missing: some headers count the last
picture, or those that decoders wait for, twice."""
HEADER_BYTES = 1 << 16
"""The headers of avi and asf are within these first bytes."""
MOST_EDITS = 10_000
LARGEST_MOOV = 1 << 28
"""Limits of what is read of a file that strangers made."""
ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
UNPROMISED = ("mpegts", "mpeg", "ogg")
"""Formats whose headers do not state a length: ffmpeg takes the time at the end of the file, or
guesses."""
LARGEST_PACKET = (1 << 16) + 6
PACK = b"\0\0\1\xba"
TS_PACKET = {188: 0, 192: 4, 204: 0}
"""The sizes of the packets of transport streams, and for each the place of the byte 0x47."""


def find_cut(path: Path, timing: Timing, last_packet: Callable[[], float]) -> str:
    """Why a video counts as cut, e.g. `cut: 3.2 of 10.0 s`; empty = it is whole.

    Args:
        timing: the times of all its pictures.
        last_packet: says when the last packet of any stream ends (seconds); reads the whole file,
            so it is called only where the picture alone is too short.
    """
    end, promised = timing.end_seconds, _promised_seconds(path, timing)
    torn = _torn(path, timing.container)
    slack = max(SLACK_SECONDS, SLACK_PICTURES * timing.longest_seconds) + SLACK_SHARE * promised
    if not torn and (promised - end <= slack or promised - last_packet() <= slack):
        return ""
    length = f"{end:.1f} of {promised:.1f} s" if promised - end > 0.05 else f"{end:.1f} s"
    return f"cut: {length}, {torn}" if torn else f"cut: {length}"


def _promised_seconds(path: Path, timing: Timing) -> float:
    """The length of the picture according to the header; 0 = unknown."""
    if timing.container in UNPROMISED:
        return 0.0
    with path.open("rb") as file:
        if timing.container == "avi":
            return _avi_seconds(file.read(HEADER_BYTES))
        if timing.container.startswith("asf"):
            return _asf_seconds(file.read(HEADER_BYTES))
        promised = timing.header_seconds
        slack = SLACK_SECONDS + SLACK_SHARE * promised
        if not timing.container.startswith("mov"):
            return promised
        size = path.stat().st_size
        if promised - timing.end_seconds > slack:
            promised = min(promised, _track_seconds(file, size) or promised)
        return max(promised, _fragments_seconds(file, size))


def _avi_seconds(header: bytes) -> float:
    """The length of the first video stream, which ffmpeg guesses from the size of a file if its
    index is missing."""
    place = header.find(b"strh")
    while place >= 0:
        stream = header[place + 8 : place + 44]
        if stream.startswith(b"vids") and len(stream) == 36:
            # dwScale, dwRate, dwStart, dwLength: rate / scale pictures a second
            scale, rate, _, length = struct.unpack("<4I", stream[20:36])
            return length * scale / rate if rate else 0.0
        place = header.find(b"strh", place + 4)
    return 0.0


def _asf_seconds(header: bytes) -> float:
    """The length in the file's properties, which ffmpeg does not print if the file is too small."""
    place = header.find(ASF_PROPERTIES)
    fields = header[place + 64 : place + 92]  # play time, send time, preroll, flags
    if place < 0 or len(fields) < 28:
        return 0.0
    play, _, preroll, flags = struct.unpack("<3QI", fields)
    broadcast = flags & 1
    return 0.0 if broadcast else max(0.0, play / 1e7 - preroll / 1e3)  # 100 ns; ms


Box = tuple[bytes, int, int]
"""The type of a box of an mp4 file, where its content begins, and where it ends."""


def _boxes(file: IO[bytes], start: int, end: int) -> Iterator[Box]:
    """The boxes of an mp4 file between two places; the last one may end after `end`."""
    while start + 8 <= end:
        file.seek(start)
        head = file.read(16)
        # A size of 1: it follows in 8 bytes. A size of 0: the box fills the rest.
        size, name = struct.unpack(">I4s", head[:8])
        content = start + 8
        if size == 1 and len(head) == 16:
            size, content = struct.unpack(">Q", head[8:])[0], start + 16
        stop = start + size if size else end
        if stop < content:
            return
        yield name, content, stop
        start = stop


def _find_boxes(file: IO[bytes], start: int, end: int, *names: bytes) -> Iterator[tuple[int, int]]:
    """Begin and end of the content of all boxes of a path, e.g. moov, trak, mdia."""
    for name, content, stop in _boxes(file, start, end):
        if name == names[0] and stop <= end:
            if len(names) == 1:
                yield content, stop
            else:
                yield from _find_boxes(file, content, stop, *names[1:])


def _track_seconds(file: IO[bytes], size: int) -> float:
    """The length of the first video track of an mp4 file; 0 = unknown, or the file is in fragments.

    It is the smaller one of the track's length and the length of what its edits show of its media,
    since some writers state the length of the longest track for all.
    """
    if any(name == b"moof" for name, *_ in _boxes(file, 0, size)):
        return 0.0
    for moov in _find_boxes(file, 0, size, b"moov"):
        movie = _lengths(file, next(_find_boxes(file, *moov, b"mvhd"), None), 0)
        for trak in _find_boxes(file, *moov, b"trak"):
            handler = next(_find_boxes(file, *trak, b"mdia", b"hdlr"), None)
            if handler is None:
                continue
            file.seek(handler[0] + 8)
            if file.read(4) != b"vide":
                continue
            media = _lengths(file, next(_find_boxes(file, *trak, b"mdia", b"mdhd"), None), 0)
            track = _lengths(file, next(_find_boxes(file, *trak, b"tkhd"), None), 4)
            seconds = [_edited_seconds(file, trak, movie[0], media)]
            seconds.append(track[1] / movie[0] if movie[0] else 0.0)
            return min((one for one in seconds if one), default=0.0)
    return 0.0


def _edited_seconds(
    file: IO[bytes], trak: tuple[int, int], movie: int, media: tuple[int, int]
) -> float:
    """The length of what the edit list of the track `trak` shows of its media; 0 = unknown.

    `movie` is the time scale of the durations of edits (ticks a second).
    """
    scale, length = media  # the length is in ticks of this scale
    box = next(_find_boxes(file, *trak, b"edts", b"elst"), None)
    if not scale or not length or not movie or box is None:
        return length / scale if scale else 0.0
    file.seek(box[0])
    head = file.read(8)
    entry = ">Qqi" if head[:1] == b"\1" else ">Iii"
    edits = file.read(min(box[1] - file.tell(), struct.calcsize(entry) * MOST_EDITS))
    edits = edits[: len(edits) // struct.calcsize(entry) * struct.calcsize(entry)]
    total = 0.0
    for duration, start, _ in struct.iter_unpack(entry, edits):
        rest = (length - start) / scale + SLACK_SECONDS  # pictures wait for those decoded first
        if start >= 0:  # -1 = nothing is shown; the clock may begin after it
            total += max(0.0, min(duration / movie or rest, rest))
    return total


def _fragments_seconds(file: IO[bytes], size: int) -> float:
    """The length of all fragments of an mp4 file, which ffmpeg does not read; 0 = not stated."""
    for moov in _find_boxes(file, 0, size, b"moov"):
        scale = _lengths(file, next(_find_boxes(file, *moov, b"mvhd"), None), 0)[0]
        for content, _ in _find_boxes(file, *moov, b"mvex", b"mehd"):
            file.seek(content)
            data = file.read(12)
            wide = data[:1] == b"\1"  # version 1 of a box has 8 bytes for a time, version 0 has 4
            if scale and len(data) == 12:
                return struct.unpack_from(">Q" if wide else ">I", data, 4)[0] / scale
    return 0.0


def _lengths(file: IO[bytes], box: tuple[int, int] | None, gap: int) -> tuple[int, int]:
    """Time scale (or a track's id) and duration of mvhd, mdhd or, with a gap of 4 bytes, tkhd.

    version, flags | created | modified | scale or id | gap    | duration
    4 bytes        | 4 or 8  | 4 or 8   | 4           | 0 or 4 | 4 or 8
    """
    if box is None:
        return 0, 0
    file.seek(box[0])
    data = file.read(36)
    wide = data[:1] == b"\1"
    place = 4 + (16 if wide else 8)
    if len(data) < place + 4 + gap + (8 if wide else 4):
        return 0, 0
    scale = struct.unpack_from(">I", data, place)[0]
    duration = struct.unpack_from(">Q" if wide else ">I", data, place + 4 + gap)[0]
    unknown = 2**64 - 1 if wide else 2**32 - 1  # all bits set
    return scale, 0 if duration == unknown else duration


def _torn(path: Path, container: str) -> str:
    """Where a file ends, if that is within a piece of its container; '' = it is not."""
    checks = {"mpegts": _torn_packet, "mov": _torn_fragment, "mpeg": _torn_stream}
    check = (checks | {"ogg": _torn_page}).get(container.partition(",")[0])  # "mov,mp4,m4a,..."
    with path.open("rb") as file:
        return check(file, path.stat().st_size) if check else ""


def _torn_packet(file: IO[bytes], size: int) -> str:
    """The same of a transport stream, whose packets have one size."""
    start = file.read(1024)
    for length, place in TS_PACKET.items():
        if start[place::length][:5] == b"\x47" * 5:
            over = size % length
            return f"its last packet has {over} of {length} bytes" if over else ""
    return ""


def _torn_stream(file: IO[bytes], size: int) -> str:
    """The same of a program stream: packs, in which every packet begins with its length."""
    begin = max(0, size - 2 * LARGEST_PACKET)
    file.seek(begin)
    data = file.read()
    place = data.find(PACK)
    while 0 <= place < len(data):
        if data.startswith(PACK, place):
            mpeg2 = data[place + 4 : place + 5] >= b"\x40"
            stuffing = data[place + 13 : place + 14]
            place += 14 + (stuffing[0] & 7 if stuffing else 0) if mpeg2 else 12
        elif data[place : place + 4] == b"\0\0\1\xb9" or data[place : place + 3] != b"\0\0\1":
            return ""  # the end, or padding
        else:
            length = data[place + 4 : place + 6]
            place += 6 + int.from_bytes(length, "big")
    rest = place - len(data)
    return f"{rest} bytes of its last packet are missing" if place >= 0 and rest > 0 else ""


def _torn_fragment(file: IO[bytes], size: int) -> str:
    """The same of an mp4 file in fragments; in others ffmpeg notices which samples are missing."""
    boxes = list(_boxes(file, 0, size))
    names = {name for name, *_ in boxes}
    if b"moof" not in names:
        return ""
    last, _, stop = boxes[-1]
    if last in (b"mdat", b"moof") and stop > size:
        return f"{stop - size:,} bytes of its last fragment are missing"
    if 0 < size - stop < 8:
        return "it ends within the header of a fragment"
    # ffmpeg puts an index at the end, unless the fragments are segments of a stream, and nothing
    # else says how many fragments there should be.
    moov = next(_find_boxes(file, 0, size, b"moov"), None)
    if moov is None or names & {b"mfra", b"styp", b"sidx"} or moov[1] - moov[0] > LARGEST_MOOV:
        return ""
    file.seek(moov[0])
    by_ffmpeg = b"Lavf" in file.read(moov[1] - moov[0])
    return "the index at its end (mfra) is missing" if by_ffmpeg else ""


def _torn_page(file: IO[bytes], size: int) -> str:
    """The same of an ogg file, whose pages begin with the lengths of their pieces."""
    file.seek(max(0, size - (1 << 17)))  # two pages, which have 65,307 bytes at most
    data = file.read()
    place = data.rfind(b"OggS\0")
    if place < 0:
        return ""
    page = data[place:]
    pieces = page[26] if len(page) > 26 else 0  # number of lengths that follow
    whole = len(page) >= 27 + pieces and len(page) >= 27 + pieces + sum(page[27 : 27 + pieces])
    return "" if whole else "it ends within a page"

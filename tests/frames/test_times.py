"""When pictures are shown, and whether files are whole: tiny videos in many containers."""

import math
import struct
from pathlib import Path

import kinds
import numpy as np
import pytest

from clipzoo.data.decoding import Outcome, check_decoded, run_ffmpeg
from clipzoo.data.spec import DatasetSpec
from clipzoo.data.timing import frame_rate
from clipzoo.data.truncation import find_cut
from clipzoo.data.video import Kept, read_by_decord
from clipzoo.frames.comparison import thumbnails_command
from clipzoo.frames.manifest import RawVideo
from clipzoo.frames.packing import describe_videos, pack_videos
from videos import run_ffmpeg as make

H264 = ["-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "10", "-pix_fmt", "yuv420p"]
MPEG4 = ["-c:v", "mpeg4", "-q:v", "3", "-g", "10"]
AAC = ["-c:a", "aac", "-b:a", "32k"]
FRAGMENTS = ["-movflags", "frag_keyframe+empty_moov+default_base_moof"]
DASH = ["-movflags", "frag_keyframe+empty_moov+default_base_moof+global_sidx"]


def film(seconds: float, *, fps: int = 10) -> list[object]:
    """Input: a moving picture."""
    return ["-f", "lavfi", "-i", f"testsrc2=size=96x64:rate={fps}:duration={seconds}"]


def sound(seconds: float) -> list[object]:
    return ["-f", "lavfi", "-i", f"sine=duration={seconds}:sample_rate=16000"]


def outcome_of(path: Path) -> Outcome:
    outcome = Outcome()
    for _ in run_ffmpeg(thumbnails_command(path, None, timed=True), outcome):
        pass
    check_decoded(path, outcome, None, 1)
    return outcome


def rows_of(path: Path, frames, **spec) -> list[dict]:
    """Index rows of one video, from both readers."""
    video = RawVideo("x", path.name, path.stat().st_size)
    rows = []
    for reader in ("shards", "video"):
        described = DatasetSpec(about="x", format="folder", reader=reader, **spec)
        arguments = (path.parent, [video], described, frames)
        if reader == "shards":
            found, failures, _ = pack_videos(path.with_suffix(".tar"), *arguments)
        else:
            found, failures, _ = describe_videos(*arguments)
        assert not failures
        rows += found
    return rows


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv", "x.ts", "x.mov", "x.flv", "x.mpg"])
@pytest.mark.parametrize("late", ["picture", pytest.param("sound", marks=pytest.mark.slow)])
def test_the_first_picture_s_time_is_that_of_a_player(tmp_path, name, late):
    mpeg2 = ["-c:v", "mpeg2video", "-c:a", "mp2", "-fps_mode", "passthrough"]
    codec = mpeg2 if name == "x.mpg" else [*H264, *AAC]
    rate = 25 if name == "x.mpg" else 10
    delay = ["-itsoffset", 1.6]
    first, second = (delay, []) if late == "picture" else ([], delay)
    make(*first, *film(1, fps=rate), *second, *sound(3), *codec, tmp_path / name)
    timing = outcome_of(tmp_path / name).timing
    expected = 1.6 if late == "picture" else 0.0
    assert timing.start_seconds == pytest.approx(expected, abs=0.15)  # codecs begin at a lead-in
    assert len(timing.times) == rate
    assert timing.end_seconds == pytest.approx(expected + 1, abs=0.15)


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv"])
def test_both_readers_keep_the_same_frames_of_a_picture_that_begins_late(
    tmp_path, params_for, name
):
    make("-itsoffset", 1.6, *film(4), *sound(6), *H264, *AAC, tmp_path / name)
    frames = params_for("mine").frames
    shards, video = rows_of(tmp_path / name, frames, fps=1.0)
    for key in ("num_frames", "fps", "start_seconds", "uneven_seconds"):
        assert shards[key] == video[key], key
    assert shards["start_seconds"] == pytest.approx(1.6, abs=0.03)
    assert shards["num_frames"] == 4
    assert video["decord_fault"] == ""
    whole = read_by_decord(tmp_path / name, range(40), size=(96, 64), kept=Kept(40))
    kept = Kept(4, 1.0, video["start_seconds"])
    images = read_by_decord(tmp_path / name, range(4), size=(96, 64), kept=kept)
    # At 2 s ffmpeg shows the last frame that is due by then, that of 2.4 s: number 8.
    assert [int(np.abs(whole.astype(int) - one).sum((1, 2, 3)).argmin()) for one in images] == [
        8,
        18,
        28,
        38,
    ]


def test_uneven_frames_are_measured(tmp_path, params_for):
    frames = params_for("mine").frames
    jump = ["-vf", "setpts='PTS+if(gt(N,9),2/TB,0)'", "-fps_mode", "passthrough"]
    make(*film(2), *jump, *H264, tmp_path / "jump.mkv")
    make(*film(2), *H264, tmp_path / "even.mkv")
    jumping, even = (rows_of(tmp_path / n, frames)[0] for n in ("jump.mkv", "even.mkv"))
    assert even["uneven_seconds"] < 0.002
    assert even["fps"] == 10
    assert 0.5 < jumping["uneven_seconds"] < 2
    assert rows_of(tmp_path / "jump.mkv", frames, fps=10.0)[0]["uneven_seconds"] == 0


@pytest.mark.parametrize(
    ("times", "header", "expected"),
    [
        ([0.0, 0.033, 0.067, 0.1], 30.0, (30.0, 1 / 30 - 0.033)),  # rounded times: the header's
        ([2.0, 2.1, 2.2], 10.0, (10.0, 0.0)),
        ([0.0, 0.1, 0.2], 30.0, (10.0, 0.0)),  # a wrong header
        ([0.0, 0.1, 0.2], 0.0, (10.0, 0.0)),  # none
        ([0.0, 0.1, 1.1], 10.0, (2 / 1.1, 0.45)),
        ([1.0], 25.0, (25.0, 0.0)),
        ([], 25.0, (25.0, 0.0)),
    ],
)
def test_frame_rates_of_times(times, header, expected):
    assert frame_rate(times, header) == pytest.approx(expected, abs=1e-6)


KINDS = {
    "mpeg4.avi": MPEG4,
    "mjpeg.avi": ["-c:v", "mjpeg", "-q:v", "3"],
    "h264.mkv": H264,
    "fragments.mp4": [*H264, *FRAGMENTS],
    "dash.mp4": [*H264, *DASH],
    "front.mp4": [*H264, "-movflags", "faststart"],
    "h264.ts": H264,
    "h264.m2ts": H264,
    "flv1.flv": ["-c:v", "flv1", "-q:v", "3", "-ar", "22050"],
    "wmv2.wmv": ["-c:v", "wmv2", "-q:v", "3"],
}


QUICK = ("mpeg4.avi", "h264.mkv", "fragments.mp4", "front.mp4", "h264.ts")


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=() if k in QUICK else pytest.mark.slow) for k in KINDS]
)
@pytest.mark.parametrize("with_sound", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_download_that_stopped_is_named(tmp_path, kind, with_sound):
    path, part = tmp_path / kind, tmp_path / f"part-{kind}"
    make(*film(6), *(sound(6) if with_sound else []), *KINDS[kind], path)
    whole = outcome_of(path)
    assert whole.damage == ""
    content = path.read_bytes()
    stop = len(content) * 2 // 3 | 1  # not the end of a packet
    if kind in ("fragments.mp4", "dash.mp4") and not with_sound:  # else there is no picture at all
        stop = content.rindex(b"moof") - 4
    part.write_bytes(content[:stop])
    cut = outcome_of(part)
    assert cut.damage.startswith(f"cut: {cut.timing.end_seconds:.1f} ")
    assert 1 < cut.timing.end_seconds < 5.9
    if kind not in ("fragments.mp4", "h264.ts", "h264.m2ts"):  # which do not say how long they are
        assert " of 6." in cut.damage


def without(content: bytes, *names: bytes) -> bytes:
    """A mp4 file without some boxes at its end, and not by ffmpeg."""
    for name in names:
        content = content[: content.rindex(name) - 4]
    return content.replace(b"Lavf", b"Abcd")


def test_fragments_of_which_the_header_knows_the_length(tmp_path):
    """As packagers write them: a `mehd`, and no index of fragments."""
    path = tmp_path / "x.mp4"
    make(*film(6), *H264, *FRAGMENTS, path)
    content = bytearray(without(path.read_bytes(), b"mfra"))
    scale = struct.unpack_from(">I", content, content.index(b"mvhd") + 16)[0]
    box = struct.pack(">I4sII", 16, b"mehd", 0, 6 * scale)
    content[content.index(b"mvex") + 4 : content.index(b"mvex") + 4] = box
    for name in (b"mvex", b"moov"):
        place = content.index(name) - 4
        struct.pack_into(">I", content, place, struct.unpack_from(">I", content, place)[0] + 16)
    path.write_bytes(content)
    assert outcome_of(path).damage == ""
    path.write_bytes(without(bytes(content), b"moof", b"moof"))
    assert outcome_of(path).damage == "cut: 4.0 of 6.0 s"


def test_a_program_stream_that_ends_within_a_packet(tmp_path):
    path = tmp_path / "x.mpg"
    make(*film(2, fps=25), "-c:v", "mpeg2video", "-q:v", "2", path)
    assert outcome_of(path).damage == ""
    path.write_bytes(path.read_bytes()[:-5])
    assert outcome_of(path).damage.endswith("5 bytes of its last packet are missing")


@pytest.mark.parametrize("name", ["x.flv", "x.wmv", "x.mp4"])
def test_pictures_that_stay_are_not_cut(tmp_path, name):
    """Headers count the last picture, or those that a decoder waits for, twice."""
    codec = ["-c:v", "wmv2"] if name == "x.wmv" else [*H264, *(DASH if name == "x.mp4" else [])]
    make("-f", "lavfi", "-i", "testsrc2=size=96x64:rate=1/5:duration=20", *codec, tmp_path / name)
    outcome = outcome_of(tmp_path / name)
    assert (outcome.damage, len(outcome.timing.times)) == ("", 4)


@pytest.mark.parametrize("edits", [[(1, 4)], [(0, 1), (3, 5)], [(-1, 1), (2, 4)]])
def test_edits_that_end_after_their_media_are_not_cut(tmp_path, edits):
    kinds.edited(*edits)(tmp_path / "x.mp4")
    assert outcome_of(tmp_path / "x.mp4").damage == ""


def test_videos_too_short_for_their_rate_are_named_so(tmp_path, params_for):
    make(*film(0.2), *H264, tmp_path / "x.mp4")
    video = RawVideo("x", "x.mp4", (tmp_path / "x.mp4").stat().st_size)
    for reader in ("shards", "video"):
        spec = DatasetSpec(about="x", format="folder", reader=reader, fps=1.0)
        arguments = (tmp_path, [video], spec, params_for("mine").frames)
        shards = reader == "shards"
        report = pack_videos(tmp_path / "x.tar", *arguments) if shards else None
        ((_, reason),) = (report or describe_videos(*arguments))[1]
        assert reason.endswith("it is too short for 1 frames a second")


@pytest.mark.slow
def test_what_is_longer_than_its_picture_is_not_cut(tmp_path):
    """Sound may last longer, and the last picture too; an edit list shows a part."""
    hold = ["-vf", "setpts='PTS+if(gt(N,18),5/TB,0)'", "-fps_mode", "passthrough"]
    make(*film(2), *sound(9), *H264, *AAC, tmp_path / "sound.mp4")
    make(*film(2), *sound(9), *H264, *AAC, *FRAGMENTS, tmp_path / "sound-fragments.mp4")
    make(*film(2), *sound(9), *MPEG4, tmp_path / "sound.avi")
    make(*film(2), *sound(9), *H264, *AAC, tmp_path / "sound.mkv")
    make(*film(2), *sound(9), *H264, *AAC, tmp_path / "sound.ts")
    make(*film(2), *hold, *H264, tmp_path / "hold.mkv")
    make(*film(6), *H264, tmp_path / "long.mp4")
    make("-ss", 3.5, "-i", tmp_path / "long.mp4", "-c", "copy", tmp_path / "edited.mp4")
    for path in sorted(tmp_path.iterdir()):
        outcome = outcome_of(path)
        assert outcome.damage == "", path.name
        assert outcome.timing.times, path.name


def test_the_length_of_the_video_s_own_track_counts(tmp_path):
    path = tmp_path / "x.mp4"
    make(*film(2), *H264, path)
    timing = outcome_of(path).timing
    timing.header_seconds = 9.0  # of the file as a whole
    assert find_cut(path, timing, lambda: 2.0) == ""
    content = bytearray(path.read_bytes())
    for name, gap in ((b"tkhd", 20), (b"mdhd", 16), (b"elst", 8)):
        place = content.index(name) + 4 + gap
        (length,) = struct.unpack_from(">I", content, place)
        struct.pack_into(">I", content, place, length * 4)
    path.write_bytes(content)
    assert find_cut(path, timing, lambda: 2.0) == "cut: 2.0 of 8.0 s"


def test_a_cut_video_is_refused_or_kept_as_damaged(tmp_path, params_for):
    path = tmp_path / "x.avi"
    make(*film(6), *MPEG4, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    video = RawVideo("a/x", "x.avi", path.stat().st_size)
    frames = params_for("mine").frames
    for keep in (False, True):
        for reader in ("shards", "video"):
            spec = DatasetSpec(about="x", format="folder", reader=reader, keep_damaged=keep)
            arguments = (tmp_path, [video], spec, frames)
            report = (
                pack_videos(tmp_path / "x.tar", *arguments)
                if reader == "shards"
                else describe_videos(*arguments)
            )
            rows, failures, damaged = report
            ((video_id, reason),) = damaged if keep else failures
            assert (video_id, len(rows)) == ("a/x", int(keep))
            assert reason.startswith("cut: ")
            assert reason.endswith(" of 6.0 s")


def test_the_packets_are_only_read_where_the_header_says_more(tmp_path):
    path = tmp_path / "x.mkv"
    make(*film(1), *H264, path)
    timing = outcome_of(path).timing

    def read() -> float:
        raise AssertionError

    assert find_cut(path, timing, read) == ""
    timing.header_seconds = 4.0
    assert find_cut(path, timing, lambda: 3.9) == ""
    assert find_cut(path, timing, lambda: 1.0) == "cut: 1.0 of 4.0 s"
    assert math.isclose(timing.start_seconds, 0.0)

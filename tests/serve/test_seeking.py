"""Frames that are sought are those of the exact reader, or it is asked."""

from pathlib import Path

import numpy as np
import pytest

import colors
from clipzoo.data.decoding import Outcome, VideoError, selection
from clipzoo.data.decoding import run_ffmpeg as decode
from clipzoo.serve import seeking
from clipzoo.serve.folder import FramesOfVideos
from clipzoo.serve.seeking import CannotSeek, SeekingFile, open_video
from clipzoo.serve.video_file import VideoFile
from colors import make_colored
from videos import run_ffmpeg

FRAMES = FramesOfVideos(size="source", quality=3)
H264 = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-crf", "20"]
LATE = ["-itsoffset", "1.6"]
SOUND = ["-f", "lavfi", "-i", "sine=duration=13"]
UNEVEN = ["-vf", "select='lt(t,3)+not(mod(n,3))*(lt(t,5)+gte(t,9))'", "-fps_mode", "passthrough"]
FILES = {
    "b-frames.mp4": ([], [*H264, "-bf", "3", "-g", "30"]),
    "late.mp4": (LATE, [*H264, "-bf", "2", "-g", "25", *SOUND]),
    "uneven.mp4": ([], [*UNEVEN, *H264, "-bf", "2", "-g", "10"]),
    "uneven.mkv": ([], [*UNEVEN, *H264, "-bf", "2", "-g", "10"]),
    "late.mkv": (LATE, [*H264, "-bf", "2", "-g", "25", *SOUND]),
    "mpeg4.avi": ([], ["-c:v", "mpeg4", "-q:v", "3", "-g", "25"]),
    "fragments.mp4": ([], [*H264, "-g", "25", "-movflags", "frag_keyframe+empty_moov"]),
    "vp8.webm": ([], ["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-g", "25"]),
    "hevc.mp4": ([], ["-c:v", "libx265", "-x265-params", "log-level=none:keyint=25"]),
}
"""Input and output options of 12 s at 10 frames a second."""
EXACT = {
    "one-key.mp4": [*H264, "-g", "1000"],
    "b-frames.avi": ["-c:v", "mpeg4", "-q:v", "3", "-bf", "2", "-g", "25"],
    "h264.ts": [*H264, "-bf", "2", "-g", "25"],
}
"""Output options of files in which nothing is sought."""


def make(path: Path, before: list[str], after: list[str]) -> Path:
    sound = after[-len(SOUND) :] == SOUND
    source = ["-f", "lavfi", "-i", "testsrc2=size=96x64:rate=10:duration=12"]
    inputs = [*before, *source, *(SOUND if sound else [])]
    run_ffmpeg(*inputs, *(after[: -len(SOUND)] if sound else after), path)
    return path


SLOW = ("late.mkv", "uneven.mkv", "vp8.webm", "hevc.mp4", "fragments.mp4")


@pytest.fixture(
    params=[pytest.param(k, marks=pytest.mark.slow if k in SLOW else ()) for k in FILES],
    scope="module",
)
def file(request, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("seeking") / request.param
    return make(path, *FILES[request.param])


def test_every_frame_that_is_sought_is_the_exact_one(file: Path):
    exact, sought = VideoFile(file, FRAMES), SeekingFile(file, FRAMES)
    sought.check()
    assert sought.num_frames == exact.num_frames
    np.testing.assert_allclose(sought.seconds, exact.seconds, atol=1e-5)
    assert sought.end_seconds == pytest.approx(exact.end_seconds, abs=1e-5)
    frames = np.arange(exact.num_frames)
    expected = list(exact.stream(frames))
    assert len(set(expected)) == len(expected), "no two frames are equal"
    assert list(sought.stream(frames)) == expected
    rng = np.random.default_rng(0)
    alone = rng.choice(frames[1:-1], 6, replace=False).tolist()
    for frame in (0, int(sought.keys[1]) - 1, int(sought.keys[1]), *alone[:3], int(frames[-1])):
        assert sought.read("x", [frame]) == [expected[frame]], frame
    some = np.sort(rng.choice(frames, 20, replace=False))
    assert list(sought.stream(some)) == [expected[i] for i in some]


@pytest.mark.parametrize("name", EXACT)
def test_files_in_which_seeking_is_not_exact_are_decoded(tmp_path, name):
    path = make(tmp_path / name, [], EXACT[name])
    with pytest.raises(CannotSeek):
        SeekingFile(path, FRAMES).check()
    assert isinstance(open_video(path, FRAMES), VideoFile)


@pytest.mark.parametrize(
    "options", [[], ["-x264-params", "open-gop=1"], ["-x264-params", "intra-refresh=1"]]
)
def test_pictures_that_refer_to_what_precedes_a_key_frame(tmp_path, monkeypatch, options):
    """Whichever reader is taken, frames are those of the exact one."""
    monkeypatch.setattr(seeking, "SEEK_FROM_SECONDS", 1)
    path = make(tmp_path / "x.mp4", [], [*H264, "-bf", "2", "-g", "30", *options])
    expected = list(VideoFile(path, FRAMES).stream(np.arange(120)))
    file = open_video(path, FRAMES)
    for frame in (29, 30, 31, 58, 59, 61, 95):
        assert file.read("x", [frame]) == [expected[frame]], frame


def test_only_what_is_near_is_decoded(tmp_path, monkeypatch):
    """Of 12 s with a key frame each second, two frames need two seconds at most."""
    path = make(tmp_path / "x.mp4", [], [*H264, "-g", "10", "-keyint_min", "10"])
    file, begun = SeekingFile(path, FRAMES), []

    def note(command, outcome):
        begun.append(command[command.index("-ss") + 1] if "-ss" in command else None)
        return decode(command, outcome)

    monkeypatch.setattr(seeking, "run_ffmpeg", note)
    assert len(list(file.stream(np.array([3, 8, 14, 85, 115])))) == 5
    # 0.8 s and 1.4 s are near, 8.5 s and 11.5 s are not more than SKIP_SECONDS apart.
    assert [start and float(start) for start in begun] == [None, pytest.approx(8, abs=1e-4)]


def test_short_videos_are_decoded_and_long_ones_sought(tmp_path, monkeypatch):
    path = make(tmp_path / "x.mp4", [], [*H264, "-g", "25"])
    assert isinstance(open_video(path, FRAMES), VideoFile)
    monkeypatch.setattr(seeking, "SEEK_FROM_SECONDS", 10)
    assert isinstance(open_video(path, FRAMES), SeekingFile)
    resampled = FRAMES.model_copy(update={"fps": 5})
    assert isinstance(open_video(path, resampled), VideoFile)


def test_windows_are_equal_with_both_readers(tmp_path, monkeypatch):
    parts = [("red", 4), ("black", 5), ("green", 3)]
    path = make_colored(tmp_path / "x.mp4", parts, *H264, "-bf", "2", "-g", "20")
    model, exactly = colors.model(), list(colors.model().windows(path, every=1))
    monkeypatch.setattr(seeking, "SEEK_FROM_SECONDS", 0)
    opened = []
    monkeypatch.setattr(seeking.SeekingFile, "check", lambda self: opened.append(self))
    assert list(model.windows(path, every=1)) == exactly
    assert model.predict(path) == colors.model().predict(path)
    assert opened


def test_a_list_that_is_wrong_is_noticed(tmp_path):
    path = make(tmp_path / "x.mp4", [], [*H264, "-bf", "2", "-g", "25"])
    for change in (0.03, -0.03):
        file = SeekingFile(path, FRAMES)
        file.seconds[60:] += change
        with pytest.raises(CannotSeek, match=r"a frame is at .* s, not .* s, after it is sought"):
            file.check()
        with pytest.raises(VideoError, match="its frames are not those that its packets promise"):
            list(file.stream(np.array([80])))
    file = SeekingFile(path, FRAMES)
    file.seconds = np.append(file.seconds, 12.0)
    with pytest.raises(CannotSeek, match="frames are there"):
        file.check()
    file = SeekingFile(path, FRAMES)
    file.seconds = file.seconds[:-1]
    with pytest.raises(CannotSeek, match="more frames are decoded than it has packets"):
        file.check()


def test_frames_that_differ_when_sought_are_noticed(tmp_path, monkeypatch):
    path = make(tmp_path / "x.mp4", [], [*H264, "-g", "25"])
    file = SeekingFile(path, FRAMES)
    run, key = SeekingFile._decode, int(file.keys[1])

    def broken(self, run_of_frames, begin=None, to_end=False):
        for jpeg in run(self, run_of_frames, begin, to_end):
            yield jpeg[:-2] + b"x" if list(run_of_frames) == [key] else jpeg

    monkeypatch.setattr(SeekingFile, "_decode", broken)
    with pytest.raises(CannotSeek, match=f"frame {key} differs if it is sought"):
        file.check()


def test_where_seeking_fails_the_rest_is_decoded(tmp_path, monkeypatch):
    path = make(tmp_path / "x.mp4", [], [*H264, "-g", "10", "-keyint_min", "10"])
    file, run = SeekingFile(path, FRAMES), SeekingFile._decode

    def broken(self, run_of_frames, begin=None, to_end=False):
        yield from run(self, run_of_frames, begin, to_end)
        raise CannotSeek("it went away")

    monkeypatch.setattr(SeekingFile, "_decode", broken)
    frames = np.array([1, 3, 80, 119])
    assert list(file.stream(frames)) == list(VideoFile(path, FRAMES).stream(frames))


@pytest.mark.parametrize("name", ["x.mp4", "x.avi", "x.mkv"])
def test_a_long_video_that_is_cut_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.setattr(seeking, "SEEK_FROM_SECONDS", 1)
    codec = H264 if name != "x.avi" else ["-c:v", "mpeg4"]
    front = ["-movflags", "faststart"] if name == "x.mp4" else []
    path = make(tmp_path / name, [], [*codec, "-g", "25", *front])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3 | 1])
    with pytest.raises(VideoError, match="is damaged"):
        open_video(path, FRAMES)


def test_playlists_and_scripts_open_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(seeking, "SEEK_FROM_SECONDS", 1)
    video = make(tmp_path / "x.mp4", [], [*H264, "-g", "25"])
    scripts = {
        "a.mp4": f"ffconcat version 1.0\nfile '{video}'\n",
        "b.mp4": f"#EXTM3U\n#EXTINF:12,\n{video}\n#EXT-X-ENDLIST\n",
    }
    for name, text in scripts.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(CannotSeek, match=r"playlist|moov atom not found"):
            SeekingFile(tmp_path / name, FRAMES)
        with pytest.raises(VideoError):
            open_video(tmp_path / name, FRAMES)


def test_a_file_of_too_many_packets_is_left_to_the_exact_reader(tmp_path, monkeypatch):
    monkeypatch.setattr(seeking, "MOST_PACKETS", 100)
    path = make(tmp_path / "x.mp4", [], [*H264, "-g", "25"])
    with pytest.raises(CannotSeek, match="over 100 packets"):
        seeking.list_frames(path, Outcome())


@pytest.mark.parametrize("count", [1, 2, 3, 100, 1000])
def test_selections_of_any_size(tmp_path, count):
    """A sum of over 100 comparisons would be refused by ffmpeg."""
    rng = np.random.default_rng(count)
    places = np.sort(rng.choice(3000, count, replace=False))
    expression = selection(places)
    names = {
        "between": lambda n, low, high: low <= n <= high,
        "lt": lambda a, b: a < b,
        "choose": lambda condition, yes, no: yes if condition else no,
    }
    code = compile(expression.replace("if(", "choose("), "", "eval")
    chosen = [n for n in range(0, 3000, 7 if count > 100 else 1) if eval(code, {**names, "n": n})]
    assert chosen == [n for n in places if count <= 100 or n % 7 == 0]


def test_many_frames_of_a_video_are_selected(tmp_path):
    path = make(tmp_path / "x.mp4", [], [*H264, "-g", "25", "-r", "30"])
    file = VideoFile(path, FRAMES)
    frames = np.arange(0, file.num_frames, 2)
    assert len(frames) > 120
    everything = list(file.stream(np.arange(file.num_frames)))
    assert list(file.stream(frames)) == everything[::2]

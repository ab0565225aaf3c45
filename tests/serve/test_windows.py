"""Long videos in windows: which frames they have, and what is predicted of them."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import colors
from clipzoo.config import ConfigError
from clipzoo.data.decoding import Outcome, VideoError, jpeg_command, split_jpegs
from clipzoo.data.decoding import run_ffmpeg as decode
from clipzoo.serve import model as model_module
from clipzoo.serve import windows
from clipzoo.serve.video_file import VideoFile
from clipzoo.serve.windows import FramesAhead, split_windows
from colors import NUM_SEGMENTS, Colors, make_colored
from videos import run_ffmpeg


@pytest.mark.parametrize(
    ("seconds", "end", "every", "expected"),
    [
        (range(11), 11, 4, [(0, 4, 0, 4), (4, 4, 4, 8), (8, 3, 8, 11)]),
        (range(11), 11, 5, [(0, 5, 0, 5), (5, 6, 5, 11)]),  # a rest of 1 of 5
        (range(11), 11, 100, [(0, 11, 0, 11)]),
        ([1.6, 2.6, 3.6], 4.6, 1, [(0, 1, 1.6, 2.6), (1, 1, 2.6, 3.6), (2, 1, 3.6, 4.6)]),
        ([0, 0.1, 7, 7.1], 8, 2, [(0, 2, 0, 6), (2, 2, 6, 8)]),  # one picture for 6.9 s
        ([0], 0.04, 2, [(0, 1, 0, 0.04)]),
        ([0, 1e9], 1e9, 1, [(0, 2, 0, 1e9)]),  # a rest of 0
        ([0, 0.1, 0.2 - 1e-9], 0.3, 0.1, [(0, 1, 0, 0.1), (1, 1, 0.1, 0.2), (2, 1, 0.2, 0.3)]),
        ([5.0, 5.0, 5.0], 5.0, 1, [(0, 3, 5, 5)]),
    ],
)  # fmt: skip
def test_windows_of_times(seconds, end, every, expected):
    spans = split_windows(np.asarray(seconds, float), end, every)
    assert [tuple(span) for span in spans] == [pytest.approx(row, abs=1e-9) for row in expected]


@pytest.mark.parametrize("every", [0.03, 0.5, 0.7, 1, 3.3, 50])
def test_windows_divide_a_video(every):
    """Each frame is in the one window of its time, also where times are uneven."""
    rng = np.random.default_rng(0)
    seconds = 0.7 + np.cumsum(rng.exponential(0.3, 200))
    spans = split_windows(seconds, seconds[-1] + 0.1, every)
    assert [s.first_frame for s in spans] == [0, *np.cumsum([s.num_frames for s in spans])[:-1]]
    assert sum(s.num_frames for s in spans) == len(seconds)
    assert [s.start for s in spans[1:]] == [s.end for s in spans[:-1]]
    for span in spans:
        inside = seconds[span.first_frame : span.first_frame + span.num_frames]
        assert span.start - 1e-6 <= inside[0] <= inside[-1] <= span.end + 1e-6


def test_one_window_is_the_whole_video(tmp_path):
    path = make_colored(tmp_path / "x.mp4", [("red", 1), ("blue", 2)])
    for clips in (1, 2):
        model = colors.model(clips=clips)
        whole = model.predict(path)
        (window,) = model.windows(path, every=1000)
        assert (window.start, window.end) == (0, pytest.approx(3))
        for name in ("labels", "probabilities", "cosines", "frames", "seconds", "weights"):
            assert getattr(window, name) == getattr(whole, name)


def test_the_whole_video_is_seen(tmp_path):
    """The action is in the last third."""
    path = make_colored(tmp_path / "x.mp4", [("black", 6), ("green", 1), ("black", 2)])
    model = colors.model()
    whole = model.predict(path)
    assert whole.labels[0] == "green"
    assert whole.seconds[-1] > 6
    windows = list(model.windows(path, every=1))
    best = [(w.start, w.labels[0], w.probabilities[0]) for w in windows if w.cosines[0] > 0.9]
    assert [(start, label) for start, label, _ in best] == [(pytest.approx(6), "green")]
    assert best[0][2] > 0.99
    assert len(windows) == 9
    assert model.predict(path, every=1) == windows
    for window in windows:
        assert len(window.frames) == NUM_SEGMENTS
        assert all(window.start - 1e-6 <= t < window.end for t in window.seconds)
    embeddings = list(model.embed_windows(path, every=1))
    assert [(start, end) for start, end, _ in embeddings] == [(w.start, w.end) for w in windows]
    green = torch.stack([e for *_, e in embeddings]) @ torch.tensor([0.0, 1.0, 0.0])
    assert int(green.argmax()) == 6
    assert torch.stack([e for *_, e in embeddings]).norm(dim=1) == pytest.approx(1, abs=1e-5)


def test_times_are_true_where_the_frame_rate_varies(tmp_path):
    """Half of the frames are dropped from 2 s on; then one picture stays for 3 s."""
    chain = "select='lt(t,2)+not(mod(n,2))*(lt(t,4)+gte(t,7))'"
    options = ["-fps_mode", "passthrough", "-c:v", "libx264", "-bf", "2", "-g", "10"]
    path = make_colored(tmp_path / "even.mp4", [("red", 2), ("green", 2), ("blue", 6)])
    uneven = tmp_path / "uneven.mp4"
    run_ffmpeg("-i", path, "-vf", chain, *options, "-pix_fmt", "yuv420p", uneven)
    model = colors.model()
    found = [(w.start, w.end, w.labels[0]) for w in model.windows(uneven, every=2)]
    expected = [(0, 2, "red"), (2, 6, "green"), (6, 8, "blue"), (8, 10, "blue")]
    assert found == [(pytest.approx(a), pytest.approx(b, abs=0.5), c) for a, b, c in expected]
    file = VideoFile(uneven, colors.FRAMES)
    for window in model.windows(uneven, every=2):
        assert window.seconds == [pytest.approx(file.seconds[i], abs=1e-6) for i in window.frames]


def test_windows_of_resampled_frames(tmp_path):
    """A model whose dataset keeps 5 frames a second."""
    path = make_colored(tmp_path / "x.mp4", [("red", 2), ("blue", 2)])
    model = colors.model(frames=colors.FRAMES.model_copy(update={"fps": 5}))
    found = list(model.windows(path, every=1))
    assert [w.labels[0] for w in found] == ["red", "red", "blue", "blue"]
    assert [w.frames for w in found] == [[5 * i, 5 * i + 1, 5 * i + 2, 5 * i + 3] for i in range(4)]
    assert found[1].seconds == [pytest.approx(1 + i / 5) for i in range(4)]
    file = VideoFile(path, model.config.frames)
    command = jpeg_command(path, "16", 2, 5.0, frames=[0, 7, 8, 19])
    expected = list(split_jpegs(decode(command, Outcome())))
    assert file.read("x", [0, 7, 8, 19]) == expected
    assert list(file.stream(np.array([0, 7, 8, 19]))) == expected


def test_arguments_are_checked_before_the_file_is_read():
    model = colors.model()
    for every in (0, -1, 1e-9, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=r"every: found .*; allowed: 0\.001 seconds or more"):
            model.windows("nowhere.mp4", every=every)
        with pytest.raises(ConfigError, match="every: found"):
            model.embed_windows("nowhere.mp4", every=every)
    with pytest.raises(ConfigError, match="top: found 0"):
        model.windows("nowhere.mp4", every=1, top=0)
    with pytest.raises(VideoError, match="no such file"):
        next(model.windows("nowhere.mp4", every=1))


def test_windows_end_with_their_reader(tmp_path, monkeypatch):
    """Whoever stops early leaves neither a thread nor an ffmpeg behind."""
    monkeypatch.setattr(model_module, "WINDOWS_AT_ONCE", 1)
    monkeypatch.setattr(windows, "AHEAD", 2)
    path = make_colored(tmp_path / "x.mp4", [("red", 30)])
    before = threading.active_count()
    found = colors.model().windows(path, every=1)
    next(found)
    assert threading.active_count() == before + 1
    found.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert threading.active_count() == before


def test_memory_does_not_grow_with_the_video(tmp_path, monkeypatch):
    """Frames are read in one pass, and few are kept."""
    monkeypatch.setattr(model_module, "WINDOWS_AT_ONCE", 2)
    monkeypatch.setattr(windows, "AHEAD", 4)
    kept, passes = [], []
    read, stream = FramesAhead.read, VideoFile.stream

    def read_and_count(self, video_id, indices):
        frames = read(self, video_id, indices)
        kept.append(len(self._here) + self._queue.qsize())
        return frames

    def stream_and_count(self, frames):
        passes.append(len(frames))
        return stream(self, frames)

    monkeypatch.setattr(FramesAhead, "read", read_and_count)
    monkeypatch.setattr(VideoFile, "stream", stream_and_count)
    path = make_colored(tmp_path / "x.mp4", [("red", 20)])
    assert len(list(colors.model().windows(path, every=1))) == 20
    assert passes == [20 * NUM_SEGMENTS]
    assert max(kept) <= NUM_SEGMENTS + 4


def test_errors_while_frames_are_read_ahead_reach_the_reader(tmp_path, monkeypatch):
    path = make_colored(tmp_path / "x.mp4", [("red", 4)])

    def stream(self, frames):
        yield b"not a JPEG"
        raise VideoError("it went away")

    monkeypatch.setattr(VideoFile, "stream", stream)
    with pytest.raises(VideoError, match="it went away"):
        list(colors.model().windows(path, every=0.5))


def test_only_wanted_frames_can_be_read(tmp_path):
    file = VideoFile(make_colored(tmp_path / "x.mp4", [("red", 1)]), colors.FRAMES)
    with FramesAhead(file, np.array([1, 4, 6])) as ahead:
        assert ahead.read("x", [4, 1, 4]) == file.read("x", [4, 1, 4])
        assert ahead.read("x", [6]) == file.read("x", [6])
        for _ in range(2):
            with pytest.raises(IndexError):
                ahead.read("x", [7])


def test_weights_are_given_whether_or_not_test_stores_them(tmp_path):
    assert not Colors.stores_saliency
    path = make_colored(tmp_path / "x.mp4", [("black", 2), ("red", 1), ("green", 1)])
    found = colors.model().predict(path)
    assert found.weights is not None
    assert found.weights.frames == found.frames
    weights = dict(zip(found.labels, found.weights.by_label, strict=True))
    assert [sum(row) for row in weights.values()] == [pytest.approx(1)] * 3
    assert int(np.argmax(weights["red"])) == 2
    assert int(np.argmax(weights["green"])) == 3
    one = colors.model().predict(path, top=1).weights
    assert one is not None
    assert one.by_label == found.weights.by_label[:1]


def test_a_method_without_weights_has_none(tmp_path):
    class Combined(Colors):
        def encode(self, inputs):
            return super().encode(inputs).mean(dim=1)  # [b, T, 3] -> [b, 3]

        def similarity(self, features, text):
            return super().similarity(features[:, :, None], text)

    path = make_colored(tmp_path / "x.mp4", [("red", 1)])
    found = colors.model(Combined()).predict(path)
    assert (found.weights, found.labels[0]) == (None, "red")


def test_an_opened_file_is_kept_until_it_changes(tmp_path, monkeypatch):
    opened, init = [], VideoFile.__init__

    def note(self, path, frames):
        opened.append(Path(path).name)
        init(self, path, frames)

    monkeypatch.setattr(VideoFile, "__init__", note)
    path, model = make_colored(tmp_path / "x.mp4", [("red", 1)]), colors.model()
    assert model.predict(path).labels[0] == "red"
    first = model.read_frames(path, [3, 0, 3])
    assert (first[0], len(first)) == (first[2], 3)
    assert model.pictures(path, [0, 1]).shape == (2, 3, 16, 16)
    assert model.duration(path) == pytest.approx(1)
    assert opened == ["x.mp4"]
    make_colored(path, [("blue", 1)])
    assert model.predict(path).labels[0] == "blue"
    assert opened == ["x.mp4"] * 2
    path.unlink()
    with pytest.raises(VideoError, match="no such file"):
        model.predict(path)

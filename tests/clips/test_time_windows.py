"""Clips of equal time: golden tables of the authors' decoder, and cases to check by hand."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from clipzoo.clips.clips import TrainClips, ViewClips
from clipzoo.clips.transforms import TrainTransform, ViewTransform
from clipzoo.clips.windows import Windows, check_windows
from clipzoo.config import load_params
from clipzoo.data.records import Record
from clipzoo.data.store import VideoInfo
from clipzoo.files import ListError

GOLDEN = json.loads(Path("tests/golden/openvclip_windows.json").read_text())
PYAV = Windows("pyav", 16, 30.0)
READERS = ("pyav", "pyav_avi", "torchvision")


class Numbered:
    """A store whose frame i is of the gray level i."""

    def __init__(self, **videos: tuple[int, float]) -> None:
        self.videos = {
            name: VideoInfo(count, 16, 16, fps, row)
            for row, (name, (count, fps)) in enumerate(videos.items())
        }

    def read(self, video_id: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        return np.tile(np.asarray(indices, np.uint8)[:, None, None, None], (1, 16, 16, 3))


def test_golden_clips():
    for case in GOLDEN:
        windows = Windows(case["reader"], case["window_stride"], case["window_fps"])
        counts = (case["num_frames"], case["fps"], case["num_segments"], case["num_clips"])
        indices = windows.test(*counts)
        assert indices.tolist() == case["indices"], counts
        assert indices.dtype == np.int64
    assert {case["reader"] for case in GOLDEN} == set(READERS)


def test_a_clip_spans_the_same_time_of_videos_of_any_rate():
    clips = {fps: PYAV.test(int(20 * fps), fps, 8, 3)[1] for fps in (10.0, 15.0, 30.0, 60.0)}
    spans = [(indices[-1] - indices[0]) / fps for fps, indices in clips.items()]
    assert max(spans) - min(spans) < 0.2
    assert spans[0] == pytest.approx(16 * 7 / 30, abs=0.2)


class FixedDraw:
    """In the place of a generator: the draw of a given share."""

    def __init__(self, share: float) -> None:
        self.share = share

    def uniform(self, low: float, high: float) -> float:
        return low + self.share * (high - low)


@pytest.mark.parametrize("reader", READERS)
def test_training_draws_the_start_and_then_takes_the_frames_of_a_test(reader: str):
    """Clip v of V starts at the share v / V; the middle of the range is that of one clip."""
    windows = Windows(reader, 16, 30.0)  # pyright: ignore[reportArgumentType]
    for num_frames, fps in ((300, 30.0), (250, 25.0), (152, 15.0), (20, 30.0), (1, 24.0)):
        clips, share = 3, 1 / 3
        if reader == "torchvision":
            clips, share = 1, 0.5
        expected = windows.test(num_frames, fps, 8, clips)[-1 if clips == 1 else 1]
        drawn = windows.train(num_frames, fps, 8, FixedDraw(share))  # pyright: ignore[reportArgumentType]
        assert drawn.tolist() == expected.tolist(), (num_frames, fps)


@pytest.mark.parametrize("reader", READERS)
def test_training_clips_cover_the_whole_video_and_never_leave_it(reader: str):
    windows = Windows(reader, 16, 30.0)  # pyright: ignore[reportArgumentType]
    rng = np.random.default_rng(0)
    seen = np.concatenate([windows.train(200, 30.0, 8, rng) for _ in range(500)])
    # A start is never the first or last place itself, which pyav rounds up and torchvision down.
    assert (seen.min(), seen.max()) == (int(reader == "pyav"), 199 - int(reader == "torchvision"))
    assert (np.diff(windows.train(200, 30.0, 8, rng)) >= 0).all()
    short = [windows.train(5, 30.0, 8, rng).tolist() for _ in range(3)]
    assert short == [[0, 4, 4, 4, 4, 4, 4, 4]] * 3


def test_wrong_counts_and_rates_are_named():
    for counts, message in (
        ((0, 30.0, 8, 3), "num_frames: found 0"),
        ((10, 0.0, 8, 3), r"fps: found 0\.0; allowed: above 0"),
        ((10, float("nan"), 8, 3), "fps: found nan"),
        ((10, 30.0, 0, 3), "num_segments: found 0"),
        ((10, 30.0, 8, 0), "num_clips: found 0"),
    ):
        with pytest.raises(ValueError, match=message):
            PYAV.test(*counts)


def views(store: Numbered, *records: Record, dense: bool = False) -> ViewClips:
    transform = ViewTransform(16, 16, 1)
    return ViewClips(store, records, transform, 8, 3, dense, windows=PYAV)


def test_views_read_the_frames_of_the_windows():
    store = Numbered(a=(100, 10.0), b=(100, 30.0))
    records = [Record("a", 100, 0), Record("b", 60, 0, start_frame=40)]
    clips = views(store, *records)
    for position, (record, fps) in enumerate(zip(records, (10.0, 30.0), strict=True)):
        expected = PYAV.test(record.num_frames, fps, 8, 3) + record.start_frame
        found = clips.load(position)[:, :, 0, 8, 8]  # [V, T, 3, S, S] -> [V, T]
        assert found.tolist() == expected.tolist()
        assert clips.sample(record).tolist() == (expected - record.start_frame).tolist()


def test_training_reads_the_frames_of_a_window():
    store = Numbered(a=(200, 30.0))
    params = load_params()
    transform = TrainTransform(16, params.augment.model_copy(update={"short_side_px": 0}))
    clips = TrainClips(store, [Record("a", 200, 0)], transform, 8, 7, windows=PYAV)
    for epoch in range(3):
        rng = np.random.default_rng([7, epoch, 0])
        expected = PYAV.train(200, 30.0, 8, rng)
        assert clips.load(0, epoch)[:, 0, 8, 8].tolist() == expected.tolist()


def test_videos_of_unknown_rate_are_listed():
    store = Numbered(a=(100, 10.0), b=(100, 0.0), c=(100, 0.0))
    records = [Record(name, 100, 0) for name in "abc"]
    for make in (views, lambda s, *r: TrainClips(s, r, None, 8, 7, windows=PYAV)):  # pyright: ignore[reportArgumentType]
        with pytest.raises(ListError, match=r"(?s)2 videos without frames a second.*fps.*b: .*c: "):
            make(store, *records)


def test_windows_are_not_dense():
    with pytest.raises(ValueError, match="dense: found true; allowed: false"):
        check_windows(True)
    with pytest.raises(ValueError, match="dense: found true; allowed: false"):
        views(Numbered(a=(100, 10.0)), Record("a", 100, 0), dense=True)

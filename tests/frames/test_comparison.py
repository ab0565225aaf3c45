"""Raw videos read on the fly are those of the shards, whatever decord makes of them."""

import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from kinds import FIRST, H264, KINDS, MPEG2, Kind, encode, number_of

from clipzoo.clips.transforms import decode
from clipzoo.commands.missing import known_failures
from clipzoo.commands.scan import scan
from clipzoo.data.index import StoreError, index_path, read_index
from clipzoo.data.store import open_store
from clipzoo.frames import comparison, packing
from clipzoo.frames.extraction import extract
from videos import make_video

LARGEST_DIFFERENCE = 6.0
"""Mean difference of a frame of two readers; a wrong bit of the number makes more than 15."""


def open_reader(params_for, reader: str, root: Path, extra: str = ""):
    """Extract the videos of a folder and open them by a reader."""
    Path(f"datasets/{reader}.yaml").write_text(
        f"about: x\nformat: folder\nreader: {reader}\n{extra}"
    )
    scan(reader, root)
    params = params_for(reader, frames={"size": 72})
    with ThreadPoolExecutor(1) as pool:
        extract(params, reader, executor=pool)
    return open_store(params, reader)


def frames_of(store, video_id: str) -> np.ndarray:
    """All frames of a video, int [T, H, W, 3], read in an order that goes back and forth."""
    count = store.videos[video_id].num_frames
    order = [*range(0, count, 2), *range(1, count, 2)]
    images = np.stack([decode(frame) for frame in store.read(video_id, order)])
    return images[np.argsort(order)].astype(int)


def faults_of(dataset: str) -> dict[str, str]:
    table = read_index(index_path(dataset))
    return dict(
        zip(*(table[name].to_pylist() for name in ("video_id", "decord_fault")), strict=True)
    )


def check(params_for, root: Path, kinds: Mapping[str, Kind], extra: str = "") -> dict[str, str]:
    """Make one file of each kind and compare both readers; returns what is wrong with decord."""
    for name, kind in kinds.items():
        (root / name.replace(".", "-")).mkdir(parents=True)
        kind.make(root / name.replace(".", "-") / name)
    shards = open_reader(params_for, "shards", root, extra)
    video = open_reader(params_for, "video", root, extra)
    faults = faults_of("video")
    assert shards.videos.keys() == video.videos.keys() == faults.keys()
    for name, kind in kinds.items():
        video_id = f"{name.replace('.', '-')}/{Path(name).stem}"
        expected, found = frames_of(shards, video_id), frames_of(video, video_id)
        assert found.shape == expected.shape, name
        assert np.abs(found - expected).mean((1, 2, 3)).max() < LARGEST_DIFFERENCE, name
        if kind.numbers is not None and not extra:
            assert [number_of(image) for image in found] == [*kind.numbers], name
        if kind.by_decord is not None:
            assert (faults[video_id] == "") == kind.by_decord, f"{name}: {faults[video_id]}"
    return faults


def test_what_decord_reads_wrongly_is_read_as_shards_are(project, params_for):
    faults = check(params_for, project / "raw", FIRST)
    assert faults["two-edits-mp4/two-edits"] == "decord finds 41 frames, ffmpeg 20"
    assert faults["two-tracks-mp4/two-tracks"] == "decord finds 10 frames, ffmpeg 24"
    for name in ("h264-ts/h264", "mirrored-mp4/mirrored"):
        assert faults[name] == "decord gives another picture than ffmpeg from frame 0 on"


REFUSED = [name for name, kind in KINDS.items() if kind.refused]
READ = [name for name in KINDS if name not in REFUSED]
AT_A_TIME = 16
"""Kinds that are read in one test: most of the time of one is that of starting its processes."""


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, len(READ), AT_A_TIME))
@pytest.mark.parametrize("extra", ["", "fps: 4\n"])
def test_every_kind_of_video_is_read_as_shards_are(project, params_for, first, extra):
    names = READ[first : first + AT_A_TIME]
    if extra and "one.mp4" in names:
        names.remove("one.mp4")  # too short for the frame rate
    faults = check(params_for, project / "raw", {name: KINDS[name] for name in names}, extra)
    for video_id, fault in faults.items():
        if video_id.startswith("av1"):
            assert fault == "decord cannot decode AV1"


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("extra", ["", "fps: 4\n"])
def test_a_video_that_cannot_be_read_on_the_fly_is_refused(project, params_for, name, extra):
    kind = KINDS[name]
    (project / "raw" / "c").mkdir(parents=True)
    kind.make(project / "raw" / "c" / name)
    with pytest.raises(StoreError, match=rf"c/{Path(name).stem}: .*{kind.refused}"):
        open_reader(params_for, "video", project / "raw", extra)


def test_times_that_decord_does_not_know_are_those_of_ffmpeg(project, params_for):
    """decord's times began 3e17 s before 0, which made an index of 746 TiB."""
    root = project / "raw"
    (root / "c").mkdir(parents=True)
    encode(root / "c" / "x.mpg", range(50), *MPEG2, "-r", "25")
    encode(root / "c" / "good.mp4", range(50), *H264)
    shards = open_reader(params_for, "shards", root, "fps: 1\n")
    video = open_reader(params_for, "video", root, "fps: 1\n")
    for video_id in ("c/x", "c/good"):
        expected = [number_of(image) for image in frames_of(shards, video_id)]
        assert [number_of(image) for image in frames_of(video, video_id)] == expected
        assert len(expected) == 5
    faults = faults_of("video")
    assert faults["c/good"] == ""
    assert "decord's times give " in faults["c/x"]


FAKES = {
    "hangs": ("time.sleep(600)", "decord gives no new frame for 2 s"),
    "crashes": ("os.abort()", "decord crashes"),
    "large": ("raise MemoryError", "decord cannot decode it (MemoryError"),
}
"""What decord does with a video of this name, and what the index says."""


@pytest.mark.slow
def test_a_decord_that_hangs_or_crashes_costs_no_other_video(project, params_for, monkeypatch):
    (project / "decord").mkdir()
    (project / "decord" / "__init__.py").write_text(
        "import importlib.util, os, sys, time\n"
        f"folders = [f for f in sys.path if f != {str(project)!r} and f]\n"
        "spec = importlib.machinery.PathFinder.find_spec('decord', folders)\n"
        "real = importlib.util.module_from_spec(spec)\n"
        "sys.modules['decord'] = real\n"
        "spec.loader.exec_module(real)\n"
        "def reader(name, *args, open=real.VideoReader, **options):\n"
        + "".join(f"    if '{name}.' in name: {code}\n" for name, (code, _) in FAKES.items())
        + "    return open(name, *args, **options)\n"
        "real.VideoReader = reader\n"
    )
    monkeypatch.setattr(comparison, "STALLED_SECONDS", 2)
    monkeypatch.setenv("PYTHONPATH", f"{project}:{':'.join(sys.path)}")
    for name in ("a", *FAKES, "z"):
        make_video(project / "raw" / "c" / f"{name}.mp4", 5)
    video = open_reader(params_for, "video", project / "raw")
    faults = faults_of("video")
    assert (faults["c/a"], faults["c/z"]) == ("", "")
    for name, (_, fault) in FAKES.items():
        assert faults[f"c/{name}"].startswith(fault)
        difference = frames_of(video, f"c/{name}") - frames_of(video, "c/a")  # [5, H, W, 3]
        assert np.abs(difference).mean((1, 2, 3)).max() < LARGEST_DIFFERENCE


def test_a_decord_that_does_not_start_stops_the_stage(project, params_for, monkeypatch):
    (project / "decord.py").write_text("raise ImportError('no decord here')\n")
    monkeypatch.setenv("PYTHONPATH", f"{project}:{':'.join(sys.path)}")
    make_video(project / "raw" / "c" / "a.mp4", 5)
    with pytest.raises(OSError, match="decord: its process does not start"):
        open_reader(params_for, "video", project / "raw")


@pytest.mark.parametrize("reader", ["shards", "video"])
def test_memory_that_runs_out_names_the_video_and_cannot_be_accepted(
    project, params_for, monkeypatch, reader
):
    def run_out(*_: object) -> None:
        raise MemoryError("Unable to allocate 746 TiB")

    make_video(project / "raw" / "c" / "a.mp4", 5)
    monkeypatch.setattr(packing, "split_jpegs", run_out)
    monkeypatch.setattr(comparison, "run_ffmpeg", run_out)
    with pytest.raises(
        StoreError, match=r"c/a\.mp4: .*too little memory .*Unable to allocate 746 TiB"
    ) as raised:
        open_reader(params_for, reader, project / "raw")
    assert "--accept" not in str(raised.value)
    assert known_failures(reader, ["c/a"], {}) == {}

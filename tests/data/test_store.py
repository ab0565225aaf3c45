"""The three readers give the same frames for the same indices; wrong requests are refused."""

import re
import shutil
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import simplejpeg
from pyarrow import parquet

from clipzoo.clips.transforms import decode
from clipzoo.commands.scan import scan
from clipzoo.data.ffmpeg import ffmpeg_path
from clipzoo.data.index import StoreError, index_path, read_index, read_states, write_index
from clipzoo.data.store import ShardStore, open_store
from clipzoo.data.video import read_by_ffmpeg, resampled
from clipzoo.files import ListError
from clipzoo.frames.extraction import extract
from videos import make_video, run_ffmpeg

JPEG_ERROR = 4.0
"""Mean absolute difference (of 255) between two readers; neighboring frames differ by over 5."""


def open_reader(params_for, dataset: str, root: Path, extra: str = "", **changes):
    """Scan and extract `root` as `dataset` and open it."""
    Path(f"datasets/{dataset}.yaml").write_text(f"about: x\nformat: folder\n{extra}")
    scan(dataset, root)
    params = params_for(dataset, **changes)
    with ThreadPoolExecutor(1) as pool:
        extract(params, dataset, executor=pool)
    return open_store(params, dataset)


def frames_of(store, video_id: str, indices) -> np.ndarray:
    """Decoded frames, int [T, H, W, 3]."""
    return np.stack([decode(frame) for frame in store.read(video_id, indices)]).astype(int)


def moving_video(path: Path, *codec: str, rate: int = 10, size: str = "80x64") -> None:
    """24 frames in which the brightness changes by 8 at each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = f"color=gray:size={size}:rate={rate},geq=lum='20+N*8+X/8':cb=100+X/2:cr=150-Y/2"
    source = ("-f", "lavfi", "-i", f"{picture},format=yuv420p", "-frames:v", "24")
    run_ffmpeg(*source, *codec, path)


H264 = ("-c:v", "libx264", "-g", "9", "-bf", "2", "-crf", "10")


def test_three_readers_give_the_same_frames(project, params_for):
    root = project / "raw"
    moving_video(root / "c" / "h264.mp4", *H264)
    moving_video(root / "c" / "mpeg4.avi", "-c:v", "mpeg4", "-q:v", "2", "-bf", "2")
    moving_video(root / "c" / "vp8.webm", "-c:v", "libvpx", "-crf", "4", "-b:v", "2M")
    moving_video(root / "c" / "tall.mp4", *H264, size="64x80")
    turned = ("-display_rotation", "90", "-i", root / "c" / "h264.mp4")
    run_ffmpeg(*turned, "-c", "copy", root / "c" / "turned.mp4")
    shards = open_reader(params_for, "shards", root)
    video = open_reader(params_for, "video", root, "reader: video\n")
    pictures = project / "pictures"
    for video_id, info in shards.videos.items():
        (pictures / video_id).mkdir(parents=True)
        for i, jpeg in enumerate(shards.read(video_id, range(info.num_frames))):
            (pictures / video_id / f"{i:04d}.jpeg").write_bytes(jpeg)
    template = "frame_template: '{:04d}.jpeg'\nfirst_index: 0\n"
    directory = open_reader(params_for, "pictures", pictures, f"reader: directory\n{template}")
    assert shards.videos.keys() == video.videos.keys() == directory.videos.keys()
    order = [23, 0, 7, 7, 15, 9]
    for video_id, info in shards.videos.items():
        assert info.num_frames == video.videos[video_id].num_frames == 24
        expected = frames_of(shards, video_id, order)
        assert (frames_of(directory, video_id, order) == expected).all()
        decoded = frames_of(video, video_id, order)
        assert decoded.shape == expected.shape
        assert np.abs(decoded - expected).mean((1, 2, 3)).max() < JPEG_ERROR, video_id
        shifted = frames_of(video, video_id, [22, 1, 8, 8, 16, 10])
        assert np.abs(shifted - expected).mean((1, 2, 3)).min() > JPEG_ERROR, video_id
    assert (shards.videos["c/turned"].width, shards.videos["c/turned"].height) == (48, 60)


def test_raw_videos_at_their_own_size_are_as_decord_gives_them(project, params_for):
    """Pixel for pixel, as evaluations that decode videos themselves see them."""
    decord = pytest.importorskip("decord")
    root, order = project / "raw", [23, 0, 7, 7]
    moving_video(root / "c" / "wide.mp4", *H264, size="98x54")
    moving_video(root / "c" / "tall.mp4", *H264, size="54x98")
    video = open_reader(params_for, "video", root, "reader: video\n", frames={"size": "source"})
    for name, shape in (("wide", (54, 98)), ("tall", (98, 54))):
        theirs = decord.VideoReader(str(root / "c" / f"{name}.mp4")).get_batch(order).asnumpy()
        ours = frames_of(video, f"c/{name}", order)
        assert ours.shape[1:3] == shape
        assert np.array_equal(ours, theirs)


def jpeg_of_color(value: int) -> bytes:
    return simplejpeg.encode_jpeg(np.full((16, 16, 3), value, np.uint8))


def test_frame_files_may_bear_the_name_of_their_folder(project, params_for):
    root, jpegs = project / "rgb", [jpeg_of_color(value) for value in (0, 100, 200)]
    for folder in ("x/46GP8", "y/b+c"):
        (root / folder).mkdir(parents=True)
        name = folder.rpartition("/")[2]
        for i, jpeg in enumerate(jpegs, start=1):
            (root / folder / f"{name}-{i:06d}.jpg").write_bytes(jpeg)
        (root / folder / f"{name}x-000001.jpg").write_bytes(jpegs[0])  # of another video
    extra = "reader: directory\nframe_template: '{folder}-{:06d}.jpg'\nfps: 24\n"
    store = open_reader(params_for, "rgb", root, extra)
    assert {video_id: info.num_frames for video_id, info in store.videos.items()} == {
        "x/46GP8": 3,
        "y/b+c": 3,
    }
    assert store.read("x/46GP8", [2, 0]) == store.read("y/b+c", [2, 0]) == [jpegs[2], jpegs[0]]
    (root / "x/46GP8/46GP8-000002.jpg").unlink()
    with pytest.raises(ListError, match=r"x/46GP8: 46GP8-000002.jpg is not among 2 frame files"):
        open_reader(params_for, "rgb", root, extra)


@pytest.mark.parametrize(("rate", "fps"), [(10, 3), (10, 10), (8, 20), (24, 5), (30, 1)])
def test_fps_is_the_same_in_shards_and_video(project, params_for, rate, fps):
    root = project / "raw"
    moving_video(root / "c" / "x.mp4", *H264, rate=rate)
    shards = open_reader(params_for, "shards", root, f"fps: {fps}\n")
    video = open_reader(params_for, "video", root, f"fps: {fps}\nreader: video\n")
    count = shards.videos["c/x"].num_frames
    assert count == video.videos["c/x"].num_frames
    assert abs(count - 24 * fps / rate) <= 1
    difference = frames_of(shards, "c/x", range(count)) - frames_of(video, "c/x", range(count))
    assert np.abs(difference).mean((1, 2, 3)).max() < JPEG_ERROR
    assert video.videos["c/x"].fps == shards.videos["c/x"].fps == fps


@pytest.mark.parametrize(
    ("num_frames", "rate", "fps", "expected"),
    [
        (4, 4, 2, [0, 2]),
        (5, 4, 2, [0, 2, 4]),
        (6, 4, 2, [0, 2, 4]),
        (7, 4, 2, [0, 2, 4, 6]),
        (24, 10, 3, [1, 4, 8, 11, 14, 18, 21]),
        (40, 30, 1, [14]),
        (14, 30, 1, []),
        (3, 4, 8, [0, 0, 1, 1, 2, 2]),
    ],
)
def test_resampled_keeps_what_ffmpeg_keeps(num_frames, rate, fps, expected):
    times = np.stack([np.arange(num_frames), np.arange(1, num_frames + 1)], 1) / rate
    assert resampled(times, fps).tolist() == expected
    source = f"color=black:size=16x16:rate={rate},format=gray,geq=lum=N*5+1"
    command = [ffmpeg_path(), "-v", "error", "-f", "lavfi", "-i", source, "-vf"]
    command += [f"trim=end_frame={num_frames},fps={fps}", "-f", "rawvideo", "-pix_fmt", "gray", "-"]
    output = subprocess.run(command, check=True, capture_output=True).stdout
    assert ((np.frombuffer(output, np.uint8)[::256] - 1) // 5).tolist() == expected


def test_ffmpeg_reads_many_separate_frames(tmp_path):
    """It refuses a sum of over 100 comparisons, which the views of a test may need."""
    path = make_video(tmp_path / "x.mp4", num_frames=250)
    frames = list(range(0, 250, 2))
    found = read_by_ffmpeg(path, frames, size=(32, 24))
    whole = read_by_ffmpeg(path, list(range(250)), size=(32, 24))
    assert np.array_equal(found, whole[::2])


def test_what_decord_reads_wrongly_is_read_by_ffmpeg(project, params_for):
    """An edit list that cuts the start: decord counts the frames before it, and ffmpeg reads it."""
    root = project / "raw"
    whole = project / "whole.mp4"
    moving_video(whole, *H264)
    (root / "c").mkdir(parents=True)
    run_ffmpeg("-ss", "0.5", "-i", whole, "-c", "copy", root / "c" / "cut.mp4")
    shards = open_reader(params_for, "shards", root)
    video = open_reader(params_for, "video", root, "reader: video\n")
    (fault,) = read_index(index_path("video"))["decord_fault"].to_pylist()
    assert re.fullmatch(r"decord finds \d+ frames, ffmpeg 19", fault)
    count = shards.videos["c/cut"].num_frames
    assert count == video.videos["c/cut"].num_frames == 19
    for i in range(count):
        difference = frames_of(shards, "c/cut", [i]) - frames_of(video, "c/cut", [i])
        assert np.abs(difference).mean() < JPEG_ERROR


def test_an_index_of_an_earlier_version_is_read(project, params_for):
    """It has a column `seekable` in place of `decord_fault`."""
    root = project / "raw"
    for name in ("x", "y"):
        moving_video(root / "c" / f"{name}.mp4", *H264)
    video = open_reader(params_for, "mine", root, "reader: video\n")
    path = index_path("mine")
    table, states = read_index(path), read_states(path)
    place = table.column_names.index("decord_fault")
    earlier = table.set_column(place, "seekable", pa.array([True, False]))
    write_index(earlier, states, path)
    faults = ["", "decord seeks to other frames than it plays"]
    assert read_index(path)["decord_fault"].to_pylist() == faults
    assert read_index(path, ["decord_fault", "path"]).column_names == ["decord_fault", "path"]
    again = open_store(params_for("mine"), "mine")
    for video_id in ("c/x", "c/y"):
        difference = frames_of(again, video_id, [3, 20]) - frames_of(video, video_id, [3, 20])
        assert np.abs(difference).mean() < JPEG_ERROR


def test_shards_are_read_at_mapped_places(project, params_for):
    for name in ("a", "b", "c"):
        make_video(project / "raw" / "x" / f"{name}.mp4", 6)
    store = open_reader(params_for, "mine", project / "raw", frames={"shard_videos": 2})
    assert isinstance(store, ShardStore)
    assert isinstance(store._jpegs.base, np.memmap)  # one copy for all processes
    members = {}
    for shard in Path("data/frames/mine").glob("*.tar"):
        with tarfile.open(shard) as tar:
            members |= {m.name: file.read() for m in tar if (file := tar.extractfile(m))}
    assert len(members) == 18
    for video_id in store.videos:
        expected = [members[f"{video_id}/{i + 1:05d}.jpg"] for i in (5, 0, 3, 3)]
        assert store.read(video_id, np.array([5, 0, 3, 3])) == expected
    assert store.read("x/a", []) == []


def test_threads_read_what_one_reads(project, params_for):
    moving_video(project / "raw" / "c" / "x.mp4", *H264)
    for extra in ("", "reader: video\n"):
        store = open_reader(params_for, "mine", project / "raw", extra)
        alone = [frames_of(store, "c/x", [i, 23 - i]) for i in range(12)]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda i: frames_of(store, "c/x", [i, 23 - i]), range(12)))  # noqa: B023
        assert all((a == b).all() for a, b in zip(alone, together, strict=True))


def test_what_cannot_be_read_is_refused(project, params_for):
    make_video(project / "raw" / "c" / "x.mp4", 5)
    store = open_reader(params_for, "mine", project / "raw")
    with pytest.raises(StoreError, match="nobody: not in the frame store"):
        store.read("nobody", [0])
    with pytest.raises(StoreError, match="c/x: frames 0 to 5 requested; the video has 0 to 4"):
        store.read("c/x", [0, 5])
    shard = Path("data/frames/mine/shard-00000.tar")
    shard.write_bytes(shard.read_bytes()[:2000])
    with pytest.raises(StoreError, match=r"c/x: .*shard-00000.tar has 2000 bytes; allowed: \d+"):
        store.read("c/x", [4])
    shard.unlink()
    with pytest.raises(StoreError, match=r"c/x: .*cannot be opened"):
        store.read("c/x", [0])
    video = open_reader(params_for, "video", project / "raw", "reader: video\n")
    with (project / "raw" / "c" / "x.mp4").open("ab") as file:
        file.write(b"more")
    with pytest.raises(StoreError, match="changed since `clipzoo scan`"):
        video.read("c/x", [0])


def test_indexes_of_other_kinds_are_refused(project, params_for):
    Path("datasets/mine.yaml").write_text("about: x\nformat: folder\n")
    with pytest.raises(StoreError, match=r"index.parquet: cannot be read .*run extract_frames"):
        open_store(params_for("mine"), "mine")
    index_path("mine").parent.mkdir(parents=True)
    parquet.write_table(pa.table({"video_id": ["a"]}), index_path("mine"))
    with pytest.raises(StoreError, match="contains no hash: damaged, or of another version"):
        open_store(params_for("mine"), "mine")
    write_index(pa.table({"video_id": ["a"]}), {}, index_path("mine"))
    with pytest.raises(StoreError, match="another version"):
        open_store(params_for("mine"), "mine")


def test_a_damaged_table_of_jpegs_is_refused(project, params_for):
    make_video(project / "raw" / "c" / "x.mp4", 5)
    open_reader(params_for, "mine", project / "raw")
    params, jpegs = params_for("mine"), Path("data/frames/mine/jpegs.npy")
    rows = np.load(jpegs)
    np.save(jpegs, rows[:4])
    with pytest.raises(StoreError, match=r"jpegs.npy: found 160 bytes.*\(4, 2\).* 168.*\(5, 2\)"):
        open_store(params, "mine")
    np.save(jpegs, rows.astype(np.int32))
    with pytest.raises(StoreError, match=r"jpegs.npy: found 168 bytes.*<i4.* needs 168.*<u4"):
        open_store(params, "mine")
    np.save(jpegs, rows)
    for content in (b"", b"short", jpegs.read_bytes()[:-8]):
        jpegs.write_bytes(content)
        with pytest.raises(StoreError, match=rf"jpegs.npy: found {len(content)} .*dvc checkout"):
            open_store(params, "mine")
    jpegs.unlink()
    with pytest.raises(StoreError, match=r"jpegs.npy: cannot be read .*dvc checkout"):
        open_store(params, "mine")


def test_frame_directories_with_gaps_are_refused(project, params_for):
    pictures = project / "raw" / "c" / "x"
    pictures.mkdir(parents=True)
    for i in (1, 2, 4):
        shutil.copy(__file__, pictures / f"img_{i:05d}.jpg")
    with pytest.raises(ValueError, match=r"img_00003.jpg is not among 3 frame files"):
        open_reader(params_for, "mine", project / "raw", "reader: directory\n")

"""The demo datasets' files: same bytes on every run, decodable, parsed by the official readers."""

import csv
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from clipzoo.config import ConfigError, load_params, replace
from clipzoo.data.ffmpeg import ffmpeg_path
from clipzoo.demo import annotation, world
from clipzoo.demo.annotation import Video, plan_videos

DEMO = load_params(Path(__file__).parents[2] / "params.yaml").demo


def decode(path: Path, width: int, height: int) -> np.ndarray:
    """Frames [T, H, W, 3] by ffmpeg itself."""
    command = [ffmpeg_path(), "-v", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24"]
    process = subprocess.run([*command, "pipe:1"], capture_output=True, check=True)
    return np.frombuffer(process.stdout, np.uint8).reshape(-1, height, width, 3)


def read_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def write(videos: list[Video], root: Path) -> None:
    with ThreadPoolExecutor(2) as executor:
        assert len(list(annotation.write_videos(videos, root, executor))) == len(videos)


@pytest.fixture(scope="module")
def few() -> list[Video]:
    """One video of each container and direction."""
    examples = {(v.path.rpartition(".")[2], v.action.reversed): v for v in plan("demo_shapes")}
    assert len(examples) == 6
    return list(examples.values())


def plan(dataset: str) -> list[Video]:
    return plan_videos(dataset, DEMO)


def test_bytes_are_the_same_on_every_run(few: list[Video], tmp_path: Path):
    for root in (tmp_path / "a", tmp_path / "b"):
        write(few, root)
    for video in few:
        first, second = ((tmp_path / root / video.path).read_bytes() for root in "ab")
        assert first == second, video.path


@pytest.mark.parametrize("container", list(annotation.CODECS))
def test_containers_decode_to_what_was_rendered(container: str, tmp_path: Path):
    action = world.ActionClass("red", "circle", "large")
    frames = world.render(world.sample_scene(action, np.random.default_rng(5), 12))
    path = tmp_path / f"x.{container}"
    annotation.encode(frames, path, 25)
    height, width = frames.shape[1:3]
    decoded = decode(path, width, height)
    assert decoded.shape == frames.shape
    # Compression blurs the noise; a frame is nearer to its own original than to the others.
    errors = np.abs(decoded[:, None].astype(float) - frames[None]).mean((2, 3, 4))
    assert errors.diagonal().max() < 8
    assert errors[0].argmin() == 0
    assert errors[-1].argmin() == len(frames) - 1


def test_reversed_classes_are_written_backwards(few: list[Video], tmp_path: Path):
    write(few, tmp_path)
    for video in few:
        rng = np.random.default_rng(video.seed)
        rng.choice(annotation.FRAME_RATES)
        num_frames = int(rng.integers(annotation.NUM_FRAMES[0], annotation.NUM_FRAMES[1] + 1))
        frames = world.render(world.sample_scene(video.action, rng, num_frames)).astype(float)
        decoded = decode(tmp_path / video.path, frames.shape[2], frames.shape[1]).astype(float)
        ahead, back = (np.abs(decoded - f).mean() for f in (frames, frames[::-1]))
        assert (back < ahead) == video.action.reversed, video.path


def test_videos_vary_and_say_nothing_of_their_class():
    videos = plan("demo_shapes")
    per_class = DEMO.train_videos + DEMO.val_videos
    assert len(videos) == per_class * len(world.SHAPES_CLASSES)
    assert len({v.seed for v in videos}) == len(videos)
    assert len({v.video_id for v in videos}) == len(videos)
    for action in world.SHAPES_CLASSES:
        containers = [v.path.rpartition(".")[2] for v in videos if v.action == action]
        assert set(containers) == set(annotation.CODECS)


def test_more_videos_leave_the_others_as_they_are():
    demo = replace(DEMO, {"train_videos": 45, "val_videos": 21})
    more = plan_videos("demo_shapes", demo)
    assert set(plan("demo_shapes")) < set(more)


def test_ucf101_files(tmp_path: Path):
    videos = plan("demo_shapes")
    annotation.write_annotations("demo_shapes", videos, tmp_path)
    index = {}
    for line in (tmp_path / "classInd.txt").read_text().splitlines():
        number, name = re.fullmatch(r"(\d+) ([A-Z]\w+)", line).groups()  # pyright: ignore
        index[name] = int(number)
    assert list(index.values()) == list(range(1, len(world.SHAPES_CLASSES) + 1))
    train = (tmp_path / "trainlist01.txt").read_text().splitlines()
    test = (tmp_path / "testlist01.txt").read_text().splitlines()
    assert len(train) == DEMO.train_videos * len(index)
    assert len(test) == DEMO.val_videos * len(index)
    pattern = r"(\w+)/v_\1_g\d\d_c\d\d\.(mp4|avi|webm)"
    for line in train:
        path, number = line.split(" ")
        assert index[re.fullmatch(pattern, path)[1]] == int(number)  # pyright: ignore
    assert all(re.fullmatch(pattern, line) for line in test)
    assert {line.split()[0] for line in train} | set(test) == {v.path for v in videos}
    assert not {line.split()[0] for line in train} & set(test)
    rows = read_csv(tmp_path / "labels.csv")
    for row, name in zip(rows, index, strict=True):
        assert index[name] == int(row["id"]) + 1
        assert row["name"].split()[1:] == [w.lower() for w in re.findall("[A-Z][a-z]+", name)]


def test_kinetics_file(tmp_path: Path):
    videos = plan("demo_unseen")
    annotation.write_annotations("demo_unseen", videos, tmp_path)
    rows = read_csv(tmp_path / "validate.csv")
    assert list(rows[0]) == ["label", "youtube_id", "time_start", "time_end", "split"]
    by_id = {v.video_id: v for v in videos}
    assert len(rows) == len(by_id) == DEMO.unseen_videos * len(world.UNSEEN_CLASSES)
    for row in rows:
        assert len(row["youtube_id"]) == 11
        start, end = int(row["time_start"]), int(row["time_end"])
        video = by_id[f"{row['youtube_id']}_{start:06d}_{end:06d}"]
        assert row["label"] == video.action.name
        assert end == start + 10


def test_manifest_lists_every_file(few: list[Video], tmp_path: Path):
    root = tmp_path / "demo_shapes"
    write(few, root)
    manifest = annotation.write_manifest(few, root)
    assert manifest == tmp_path / "demo_shapes.csv"
    rows = read_csv(manifest)
    assert [r["video_id"] for r in rows] == sorted(v.video_id for v in few)
    for row in rows:
        assert int(row["size"]) == (root / row["path"]).stat().st_size > 0
        assert row["path"].startswith(row["video_id"] + ".")


def test_unknown_dataset_lists_the_known():
    with pytest.raises(ConfigError, match="demo_shapes, demo_unseen"):
        plan_videos("demo_shape", DEMO)


def test_missing_encoder_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(annotation.CODECS, "mp4", "-c:v libnosuch")
    with pytest.raises(OSError, match=re.compile(r"x\.mp4.*libnosuch.*imageio-ffmpeg", re.DOTALL)):
        annotation.encode(np.zeros((2, 8, 8, 3), np.uint8), tmp_path / "x.mp4", 25)

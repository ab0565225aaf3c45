"""The files of a demo dataset: encoded videos, manifest, annotations in two official formats.

demo_shapes has UCF101's format (classInd.txt, trainlist01.txt, testlist01.txt) and a labels.csv of
readable names, demo_unseen that of Kinetics (validate.csv, videos named <id>_<start>_<end>).
"""

import subprocess
import zlib
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipzoo.config import ConfigError, DemoConfig
from clipzoo.data.ffmpeg import wheel_ffmpeg
from clipzoo.demo.world import DATASETS, WORLD_SEED, ActionClass, render, sample_scene
from clipzoo.files import named_disk_errors, replacing, write_csv

CODECS = {
    "mp4": "-c:v libx264 -preset veryfast -crf 24 -x264-params cpu-independent=1",
    "avi": "-c:v mpeg4 -q:v 4 -dct int -idct simple",
    "webm": "-c:v libvpx -deadline good -cpu-used 5 -crf 16 -b:v 1M",
}
"""File extension: ffmpeg's video encoder and its options, chosen so that every CPU writes the same
bytes.

libvpx is not used in realtime mode, whose output depends on the speed of the machine.
"""
FRAME_RATES = (12, 15, 24, 25, 30)
NUM_FRAMES = (16, 40)
"""Shortest and longest video."""


@dataclass(frozen=True)
class Video:
    """One video file of a demo dataset."""

    path: str
    """The file, relative to the dataset's raw root."""
    action: ActionClass
    subset: str
    """The subset that the video belongs to: train or val."""
    seed: tuple[int, ...]
    """Seed of everything in the video; the two classes of a pair never share one."""

    @property
    def video_id(self) -> str:
        """The path without its extension."""
        return self.path.rpartition(".")[0]


def plan_videos(dataset: str, demo: DemoConfig) -> list[Video]:
    """All videos of a demo dataset, sorted by path; ConfigError if there is none of this name."""
    if dataset not in DATASETS:
        raise ConfigError(f"data.demo: found {dataset!r}; allowed: {', '.join(DATASETS)}")
    counts, name = {"train": demo.train_videos, "val": demo.val_videos}, _ucf101_path
    if dataset == "demo_unseen":
        counts, name = {"val": demo.unseen_videos}, _kinetics_path
    videos = []
    for action in DATASETS[dataset]:
        for subset, count in counts.items():
            for i in range(count):
                # Seeded by class and number: more videos per class do not change the others.
                seed = (WORLD_SEED, zlib.crc32(f"{dataset} {action.name} {subset}".encode()), i)
                rng = np.random.default_rng([*seed, 1])
                videos.append(Video(name(action, subset, i, rng), action, subset, seed))
    return sorted(videos, key=lambda video: video.path)


def camel_case(action: ActionClass) -> str:
    """The class in UCF101's spelling: RedCircleBecomingLarge."""
    return "".join(word.capitalize() for word in action.name.split()[1:])


def _ucf101_path(action: ActionClass, subset: str, i: int, rng: np.random.Generator) -> str:
    """For example RedBarBecomingLarge/v_RedBarBecomingLarge_g51_c01.avi; groups have 4 videos."""
    name, group = camel_case(action), i // 4 + (1 if subset == "val" else 51)
    return f"{name}/v_{name}_g{group:02d}_c{i % 4 + 1:02d}.{rng.choice(list(CODECS))}"


def _kinetics_path(action: ActionClass, subset: str, i: int, rng: np.random.Generator) -> str:
    """For example Xk3_0aZ9-Qe_000017_000027.webm: the id of a YouTube video, and 10 s of it."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    youtube_id = "".join(rng.choice(list(letters), 11))
    start = int(rng.integers(0, 290))
    return f"{youtube_id}_{start:06d}_{start + 10:06d}.{rng.choice(list(CODECS))}"


def write_videos(videos: list[Video], root: Path, executor: Executor) -> Iterator[None]:
    """Render and encode every video under `root`; yields once for every finished video."""
    for video in videos:
        (root / video.path).parent.mkdir(parents=True, exist_ok=True)
    yield from executor.map(_write_video, videos, [root] * len(videos), chunksize=8)


def _write_video(video: Video, root: Path) -> None:
    rng = np.random.default_rng(video.seed)
    rate = int(rng.choice(FRAME_RATES))
    num_frames = int(rng.integers(NUM_FRAMES[0], NUM_FRAMES[1] + 1))
    frames = render(sample_scene(video.action, rng, num_frames))
    encode(frames[::-1] if video.action.reversed else frames, root / video.path, rate)


def encode(frames: NDArray[np.uint8], path: Path, frame_rate: int) -> None:
    """Write frames to a video file; the same frames give the same bytes, on every CPU.

    The ffmpeg is that of the imageio-ffmpeg wheel, whose version requirements.lock fixes: encoders
    change from version to version.

    Args:
        frames: [T, H, W, 3], uint8 RGB; H and W even.
        path: its extension chooses container and codec (`CODECS`).
        frame_rate: frames in a second.

    Raises:
        OSError: ffmpeg fails, for example because it was built without the encoder.
        DiskError: the disk is full.
    """
    height, width = frames.shape[1:3]
    # One thread and no creation time, version or random id in the file: same bytes on every run.
    command = [
        *(wheel_ffmpeg(), "-v", "error", "-nostdin", "-y"),
        *("-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{width}x{height}"),
        *("-framerate", str(frame_rate), "-i", "pipe:0", "-threads", "1"),
        *CODECS[path.suffix[1:]].split(),
        *("-flags:v", "+bitexact", "-fflags", "+bitexact", "-map_metadata", "-1", str(path)),
    ]
    process = subprocess.run(command, input=yuv420(frames), capture_output=True, check=False)
    if process.returncode:
        path.unlink(missing_ok=True)
        message = process.stderr.decode(errors="replace").strip()
        with named_disk_errors(path):
            raise OSError(
                f"{path}: ffmpeg failed ({message}); it needs the encoders libx264, mpeg4 and "
                "libvpx, which that of the imageio-ffmpeg wheel has: unset IMAGEIO_FFMPEG_EXE"
            )


def yuv420(frames: NDArray[np.uint8]) -> bytes:
    """Frames [T, H, W, 3] uint8 RGB as raw yuv420p (BT.601, limited range), in integers.

    For each frame its planes Y [H, W], U and V [H/2, W/2], uint8. ffmpeg's own conversion rounds
    differently on processors with AVX2.
    """
    num_frames, height, width, _ = frames.shape
    # [T, H, W, 3] -> [T, H/2, 2, W/2, 2, 3]
    blocks = frames.reshape(num_frames, height // 2, 2, width // 2, 2, 3)
    luma = _weighted(frames.astype(np.int32), (66, 129, 25), 8) + 16  # [T, H, W]
    sums = blocks.sum((2, 4), dtype=np.int32)  # [T, H/2, W/2, 3]: of four pixels, hence 10 bits
    planes = [luma, *(_weighted(sums, w, 10) + 128 for w in ((-38, -74, 112), (112, -94, -18)))]
    flat = [plane.reshape(num_frames, -1) for plane in planes]  # [T, H, W] -> [T, H W]
    return np.concatenate(flat, axis=1).astype(np.uint8).tobytes()


def _weighted(pixels: NDArray[np.int32], weights: tuple[int, int, int], bits: int) -> np.ndarray:
    """Weighted sums [...] of pixels [..., 3], divided by 2 ** bits and rounded (halves upwards)."""
    red, green, blue = (pixels[..., i] * weight for i, weight in enumerate(weights))
    return (red + green + blue + (1 << (bits - 1))) >> bits


def write_manifest(videos: list[Video], root: Path) -> Path:
    """Write `<root>.csv` (video_id, path, size in bytes) and return its path."""
    rows = [(v.video_id, v.path, (root / v.path).stat().st_size) for v in videos]
    path = root.with_name(root.name + ".csv")
    write_csv(("video_id", "path", "size"), sorted(rows), path)
    return path


def write_annotations(dataset: str, videos: list[Video], folder: Path) -> None:
    """Write the annotation files of a demo dataset into `folder`, in its official format."""
    folder.mkdir(parents=True, exist_ok=True)
    if dataset == "demo_unseen":
        rows = []
        for video in videos:
            # The id itself may contain underscores; the two times are the last two parts.
            youtube_id, start, end = video.video_id.rsplit("_", 2)
            rows.append((video.action.name, youtube_id, int(start), int(end), "validate"))
        header = ("label", "youtube_id", "time_start", "time_end", "split")
        write_csv(header, rows, folder / "validate.csv")
        return
    number = {action: i + 1 for i, action in enumerate(DATASETS[dataset])}
    index = [f"{i} {camel_case(action)}" for action, i in number.items()]
    train = [f"{v.path} {number[v.action]}" for v in videos if v.subset == "train"]
    test = [v.path for v in videos if v.subset == "val"]
    lists = {"classInd": index, "trainlist01": train, "testlist01": test}
    for name, lines in lists.items():
        with replacing(folder / f"{name}.txt", durable=False) as part:
            part.write_text("\n".join(lines) + "\n", encoding="utf-8")
    names = [(i - 1, action.name) for action, i in number.items()]
    write_csv(("id", "name"), names, folder / "labels.csv")

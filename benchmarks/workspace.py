"""A temporary project folder with videos in it, for the benchmarks."""

import contextlib
import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from clipzoo.commands.scan import scan
from clipzoo.config import Params, load_params, replace
from clipzoo.data.ffmpeg import ffmpeg_path
from clipzoo.data.store import Store, open_store
from clipzoo.frames.extraction import extract

ROOT = Path(__file__).parents[1]
NUM_VIDEOS, NUM_FRAMES = 6, 280
DATASET = "benchmark"


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Run with `folder` as the working directory."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def params_for(size: str, shard_videos: int = 8, extract_workers: int = 0) -> Params:
    """params.yaml with one dataset, and frames of `size`."""
    values = {
        "data.dataset": DATASET,
        "data.datasets": [DATASET],
        "data.demo": [],
        "data.zero_shot": [],
        "frames.size": int(size) if size.isdigit() else size,
        "frames.shard_videos": shard_videos,
        "runtime.extract_workers": extract_workers,
    }
    return replace(load_params(ROOT / "params.yaml"), values)


def render(
    folder: Path, count: int = NUM_VIDEOS, size: str = "340x256", frames: int = NUM_FRAMES
) -> Path:
    """Render videos of a zooming fractal with noise, about 14 KB per frame at 340x256."""
    (folder / "zoom").mkdir(parents=True)
    for i in range(count):
        picture = f"mandelbrot=size={size}:rate=30:start_scale={2 + i}"
        noise = f"noise=alls=7:allf=t:all_seed={i}"
        command = [ffmpeg_path(), "-v", "error", "-f", "lavfi", "-i", f"{picture},{noise}"]
        command += ["-frames:v", str(frames), "-c:v", "libx264", "-preset", "veryfast"]
        command += ["-crf", "18", "-pix_fmt", "yuv420p", str(folder / "zoom" / f"{i:03d}.mp4")]
        subprocess.run(command, check=True)
    return folder


def extracted(folder: Path, videos: Path | None, size: str) -> Store:
    """Extract the frames of `videos`, or of rendered ones, and open their store."""
    videos = videos.resolve() if videos else render(folder / "videos")
    (folder / "datasets").mkdir()
    params = params_for(size)
    with inside(folder), contextlib.redirect_stderr(io.StringIO()):
        scan(DATASET, videos)
        with ThreadPoolExecutor(1) as pool:
            summary = extract(params, DATASET, executor=pool)
        store = open_store(params, DATASET)
    store._directory = folder / store._directory  # pyright: ignore
    size_kb = summary.num_bytes / summary.num_frames / 1e3
    print(
        f"{summary.num_videos} videos, {summary.num_frames} frames of {size}, {size_kb:.1f} KB each"
    )
    return store


def unpacked(folder: Path) -> Path:
    """Unpack the same frames to loose files and return their folder."""
    loose = folder / "loose"
    for shard in (folder / "data/frames" / DATASET).glob("*.tar"):
        with tarfile.open(shard) as tar:
            tar.extractall(loose, filter="data")
    return loose

"""Extraction speed: the extract_frames stage against bare ffmpeg processes on all cores.

    python benchmarks/extraction.py [--videos FOLDER] [--rounds N]
    python benchmarks/extraction.py --short [--rounds N]

Both decode the same videos and make the same JPEGs with the same ffmpeg; the bare processes write
loose files, with one process per video and as many at once as there are cores. The two alternate;
the ratio of each round is one measurement. The time includes starting the worker processes.

With --short, the processor time of short videos, most of which may be ffmpeg's start, and whether
the JPEGs are the same bytes: one ffmpeg process for each video, as extraction does; one for all of
them; and PyAV in this process (where it is installed: `pip install av`), without any start.
"""

import argparse
import contextlib
import hashlib
import importlib
import importlib.util
import io
import os
import resource
import selectors
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from workspace import DATASET, inside, params_for, render

from clipzoo.commands.scan import scan
from clipzoo.data.decoding import (
    CHUNK_BYTES,
    SAFE_INPUT,
    Outcome,
    ending_with_us,
    jpeg_command,
    run_ffmpeg,
    split_jpegs,
)
from clipzoo.data.ffmpeg import ffmpeg_path
from clipzoo.frames.extraction import extract
from clipzoo.frames.manifest import read_manifest
from clipzoo.runtime.machine import usable_cores

SIZE = "340x256"
QUALITY = 3
SHORT_SECONDS = (1, 2, 3, 9)
RATE = 30
"""Frames a second of rendered videos."""
QUALITY_UNIT = 118
"""FF_QP2LAMBDA of ffmpeg, in which PyAV takes the quality of an encoder."""
COPIES = 8
"""Number of copies of each rendered video: enough for a few seconds of work."""


def bare(root: Path, target: Path, workers: int) -> float:
    """Seconds that bare ffmpeg processes take to write loose JPEGs."""
    paths = [root / video.path for video in read_manifest(Path(f"data/raw/{DATASET}.csv"))]

    def run(number: int) -> None:
        folder = target / str(number)
        folder.mkdir(parents=True)
        command = jpeg_command(paths[number], SIZE, QUALITY, None)
        command[command.index("image2pipe")] = "image2"
        command[-1] = str(folder / "%05d.jpg")
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)

    started = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(run, range(len(paths))))
    return time.perf_counter() - started


def ours(workers: int) -> float:
    """Seconds that the stage takes for the same videos."""
    params = params_for(SIZE, shard_videos=3, extract_workers=workers)
    started = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):
        extract(params, DATASET)
    return time.perf_counter() - started


def one_each(paths: Sequence[Path]) -> list[list[bytes]]:
    """The JPEGs of each video, by a process for each, as extraction does."""
    jpegs = []
    for path in paths:
        command = jpeg_command(path, SIZE, QUALITY, None, timed=True)
        jpegs.append(list(split_jpegs(run_ffmpeg(command, Outcome()))))
    return jpegs


def one_for_all(paths: Sequence[Path]) -> list[list[bytes]]:
    """The JPEGs of each video, by one process that has a pipe for each and decodes all at once."""
    command = jpeg_command(Path("VIDEO"), SIZE, QUALITY, None, timed=True)
    start, graph = command.index("-threads"), command[command.index("-filter_complex") + 1]
    output = command.index("-map")
    pipes = [os.pipe() for _ in paths]
    whole, ends = [*ending_with_us(), *command[:start]], []
    for path in paths:
        whole += [*SAFE_INPUT, "-threads", "1", "-i", f"file:{path}"]
    for i, (_, end) in enumerate(pipes):
        named = graph.replace("[0:V:0]", f"[{i}:V:0]").replace("[s", f"[v{i}s")
        whole += ["-filter_complex", named]
        ends += ["-map", command[output + 1].replace("[s", f"[v{i}s")]
        ends += [*command[output + 2 : -1], f"pipe:{end}"]
    process = subprocess.Popen(
        [*whole, *ends],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[end for _, end in pipes],
    )
    for _, end in pipes:
        os.close(end)
    chunks: dict[int, list[bytes]] = {start: [] for start, _ in pipes}
    with selectors.DefaultSelector() as selector:
        for start in chunks:
            selector.register(start, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                if chunk := os.read(key.fd, CHUNK_BYTES):
                    chunks[key.fd].append(chunk)
                else:
                    selector.unregister(key.fd)
                    os.close(key.fd)
    if process.wait():
        raise SystemExit(f"ffmpeg ended with code {process.returncode}")
    return [list(split_jpegs(chunks[start])) for start, _ in pipes]


def by_pyav(paths: Sequence[Path]) -> list[list[bytes]]:
    """The JPEGs of each video, by PyAV's own ffmpeg with the filters and options of the command."""
    av = importlib.import_module("av")
    return [list(_pyav_jpegs(av, path)) for path in paths]


def _pyav_jpegs(av: Any, path: Path) -> Iterator[bytes]:
    width, height = SIZE.split("x")
    scale = f"w={width}:h={height}:out_color_matrix=bt601:out_range=pc"
    filters = (
        ("scale", f"{scale}:flags=bicubic+accurate_rnd+bitexact"),
        *(("setsar", "1"), ("format", "pix_fmts=yuvj420p"), ("settb", "1/1000"), ("setpts", "N")),
        ("buffersink", None),
    )
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = int(width), int(height), "yuvj420p"
    encoder.time_base, encoder.sample_aspect_ratio = Fraction(1, 1000), Fraction(1, 1)
    encoder.thread_count = 1
    quality = {"qmin": str(QUALITY), "qmax": str(QUALITY)}
    quality["global_quality"] = str(QUALITY * QUALITY_UNIT)
    encoder.options = {"flags": "+bitexact+qscale", **quality}
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "NONE", 1
        graph = av.filter.Graph()
        last = graph.add_buffer(template=stream)
        for name, options in filters:
            step = graph.add(name, options)
            last.link_to(step)
            last = step
        graph.configure()
        for decoded in container.decode(stream):
            graph.push(decoded)
            frame = graph.pull()
            frame.pict_type = 0  # that of the video would be the encoder's
            for packet in encoder.encode(frame):
                yield bytes(packet)


def compare_short(folder: Path, rounds: int) -> None:
    """Print the processor time of each way, for each length."""
    whole = sorted((render(folder / "videos") / "zoom").iterdir())
    ways: dict[str, Callable[[Sequence[Path]], list[list[bytes]]]] = {
        "a process a video": one_each,
        f"one for {len(whole)} videos": one_for_all,
    }
    if importlib.util.find_spec("av"):
        ways["PyAV"] = by_pyav
    for seconds in SHORT_SECONDS:
        paths = [path.with_name(f"{seconds}s-{path.name}") for path in whole]
        for path, short in zip(whole, paths, strict=True):
            command = [ffmpeg_path(), "-v", "error", "-i", str(path), "-c", "copy"]
            subprocess.run(
                [*command, "-frames:v", str(int(seconds * RATE)), str(short)], check=True
            )
        times: dict[str, list[float]] = {name: [] for name in ways}
        hashes = {}
        for _ in range(rounds):
            for name, way in ways.items():
                began = _cpu_seconds()
                jpegs = way(paths)
                times[name].append(1e3 * (_cpu_seconds() - began) / len(paths))
                hashes[name] = [hashlib.sha256(b"".join(video)).digest() for video in jpegs]
        for name, measured in times.items():
            same = "the same" if hashes[name] == hashes["a process a video"] else "OTHER"
            print(f"{seconds} s, {name}: {np.median(measured):.1f} ms of CPU a video, {same} bytes")


def _cpu_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    users = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, users))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=Path, help="folder of class folders with real videos")
    parser.add_argument("--short", action="store_true", help="compare ways to read short videos")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.short:
        with tempfile.TemporaryDirectory() as name:
            compare_short(Path(name), arguments.rounds)
        return
    workers = usable_cores()
    with tempfile.TemporaryDirectory() as name, inside(Path(name)):
        Path("datasets").mkdir()
        root = arguments.videos or render(Path("videos").resolve())
        if arguments.videos is None:
            for path in sorted((root / "zoom").iterdir()):
                for copy in range(1, COPIES):
                    shutil.copy(path, path.with_stem(f"{path.stem}-{copy}"))
        scan(DATASET, root)
        ratios = []
        for _ in range(arguments.rounds):
            plain = bare(root, Path("loose"), workers)
            loose = sum(p.stat().st_size for p in Path("loose").rglob("*.jpg"))
            count = sum(1 for _ in Path("loose").rglob("*.jpg"))
            shutil.rmtree("loose")
            mine = ours(workers)
            stored = sum(p.stat().st_size for p in Path("data/frames").rglob("*.tar"))
            shutil.rmtree("data/frames")
            ratios.append(plain / mine)
            print(
                f"bare ffmpeg {plain:.1f} s, extract_frames {mine:.1f} s: ratio {plain / mine:.2f}"
                f" ({count / mine:.0f} frames/s; {loose / 1e6:.0f} MB loose, {stored / 1e6:.0f} MB)"
            )
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
    print(f"median ratio {np.median(ratios):.2f}, lowest {min(ratios):.2f}, on {workers} cores")
    print(f"largest memory of a worker or ffmpeg process: {peak:.0f} MB")


if __name__ == "__main__":
    main()

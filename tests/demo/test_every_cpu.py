"""The demo's videos and their frames are the same bytes on every x86-64 CPU.

A processor with fewer instructions is imitated by switching some off: in NumPy, in OpenBLAS, and in
ffmpeg and its encoders.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from numpy._core._multiarray_umath import __cpu_dispatch__  # pyright: ignore[reportMissingImports]

from clipzoo.data import decoding
from clipzoo.demo import annotation, world

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "rendered.json").read_text())
WITHOUT = {
    "avx512": "-avx512icl-avx512",
    "avx2": "sse4.2+ssse3+sse3+sse2+sse+mmx",
    "sse4": "sse2+sse+mmx",
}
"""What is switched off: the value of ffmpeg's -cpuflags."""
VPX_CAPS = {"avx512": "0x1ff", "avx2": "0x7f", "sse4": "0x7"}
HASHES = """
import hashlib, numpy as np
from clipzoo.demo import world
for shape in world.SHAPES:
    for end in world.CHANGES:
        rng = np.random.default_rng(7)
        frames = world.render(world.sample_scene(world.ActionClass("blue", shape, end), rng, 9))
        print(f"{shape} {end}", hashlib.sha256(frames).hexdigest())
"""


def hashes(**environment: str) -> dict[str, str]:
    """SHA-256 of a video of each shape and change, rendered in another process."""
    command = [sys.executable, "-c", HASHES]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return {
        key: value for key, _, value in (line.rpartition(" ") for line in done.stdout.splitlines())
    }


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NPY_DISABLE_CPU_FEATURES": " ".join(__cpu_dispatch__)},
        {"OPENBLAS_CORETYPE": "Nehalem", "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-AVX512F"},
    ],
    ids=["this-cpu", "numpy-baseline", "old-blas-and-libm"],
)
def test_rendered_frames_have_the_golden_hashes(environment: dict[str, str]):
    assert hashes(**environment) == GOLDEN


def rendered() -> np.ndarray:
    """[T, H, W, 3] uint8."""
    rng = np.random.default_rng(8)
    return world.render(world.sample_scene(world.ActionClass("cyan", "cross", "bright"), rng, 16))


@pytest.mark.parametrize("container", list(annotation.CODECS))
def test_encoded_videos_and_extracted_frames_are_the_same(
    container: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Encoding, then extraction, as on CPUs with fewer instructions."""
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    video = tmp_path / f"video.{container}"
    found = {}
    for missing in ("", *WITHOUT):
        flags = f'-cpuflags "{WITHOUT[missing]}"' if missing else ""
        script = tmp_path / f"ffmpeg{missing}"
        script.write_text(f'#!/bin/sh\nexec {ffmpeg} {flags} "$@"\n')
        script.chmod(0o755)
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(script))
        monkeypatch.setattr(decoding, "ffmpeg_path", lambda path=script: str(path))
        if missing:
            monkeypatch.setenv("VPX_SIMD_CAPS", VPX_CAPS[missing])
        annotation.encode(rendered(), video, 25)
        command = decoding.jpeg_command(video, "72", 3, None)
        jpegs = subprocess.run(command, capture_output=True, check=True).stdout
        assert len(jpegs) > 5_000
        found[missing] = [hashlib.sha256(b).hexdigest() for b in (video.read_bytes(), jpegs)]
    assert all(value == found[""] for value in found.values()), found

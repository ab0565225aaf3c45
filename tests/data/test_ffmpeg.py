"""Looking for ffmpeg: where there is none, and where it does not answer."""

import os
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from clipzoo.data.decoding import jpeg_command
from clipzoo.data.ffmpeg import ffmpeg_path, ffmpeg_version
from clipzoo.demo.annotation import encode


@pytest.fixture
def no_ffmpeg(tmp_path, monkeypatch):
    """A platform that the imageio-ffmpeg package has no binary for, and none on PATH."""
    look = imageio_ffmpeg._utils._get_ffmpeg_exe
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("IMAGEIO_FFMPEG_EXE", raising=False)
    monkeypatch.setattr(imageio_ffmpeg._utils, "FNAME_PER_PLATFORM", {})
    look.cache_clear()
    yield
    look.cache_clear()


def test_a_platform_without_ffmpeg(no_ffmpeg, tmp_path):
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    for use in (ffmpeg_version, lambda: encode(frames, tmp_path / "video.mp4", 25)):
        with pytest.raises(OSError, match=r"ffmpeg: found none .*; install ffmpeg .* PATH"):
            use()


@pytest.mark.parametrize("question", ["-version", "-h long", "-h filter=showinfo"])
def test_an_ffmpeg_that_is_killed_when_it_is_asked(question, tmp_path, monkeypatch):
    """An answer that is missing is not taken for a no, and is asked for again."""
    real, script = ffmpeg_path(), tmp_path / "ffmpeg"
    script.write_text(
        f'#!/bin/sh\ncase "$*" in *"{question}"*) [ -e again ] || kill -9 $$;; esac\n'
        f'exec {real} "$@"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)

    def ask() -> list[str]:
        return [ffmpeg_version(), *jpeg_command(Path("x.mp4"), "64", 3, None, timed=True)]

    with pytest.raises(OSError, match=f"{script} .*{question}: ended with code -9"):
        ask()
    Path("again").touch()
    assert ask()[0].startswith("ffmpeg version ")

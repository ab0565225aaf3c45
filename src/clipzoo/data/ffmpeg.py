"""The ffmpeg binary: the one on PATH, else the one of the imageio-ffmpeg wheel."""

import functools
import os
import shutil
import subprocess

import imageio_ffmpeg


def ffmpeg_path() -> str:
    """Path of the ffmpeg binary to run."""
    return shutil.which("ffmpeg") or imageio_ffmpeg.get_ffmpeg_exe()


def ffmpeg_version() -> str:
    """First line of `ffmpeg -version`, e.g. 'ffmpeg version 7.0.2 Copyright ...'.

    Raises:
        OSError: the binary cannot be run or prints nothing.
    """
    path = ffmpeg_path()
    # The time tells a new binary in the place of the old one, in workers that live for days.
    return _version_of(path, os.stat(path).st_mtime_ns)


@functools.cache
def _version_of(path: str, _time_ns: int) -> str:
    process = subprocess.run([path, "-version"], capture_output=True, check=False)
    line = process.stdout.decode("utf-8", "replace").partition("\n")[0].strip()
    if process.returncode or not line:
        raise OSError(
            f"{path} -version: ended with code {process.returncode} and printed {line!r}; "
            "install a working ffmpeg, or remove this one from PATH"
        )
    return line

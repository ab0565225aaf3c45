"""The ffmpeg binary: the user's own on PATH, else the one in the imageio-ffmpeg wheel."""

import functools
import shutil
import subprocess

import imageio_ffmpeg


def ffmpeg_path() -> str:
    """Path of the ffmpeg binary to run."""
    return shutil.which("ffmpeg") or imageio_ffmpeg.get_ffmpeg_exe()


def ffmpeg_version() -> str:
    """First line of `ffmpeg -version`, like 'ffmpeg version 7.0.2 Copyright ...'.

    Raises:
        OSError: the binary does not run, or says nothing.
    """
    return _version_of(ffmpeg_path())


@functools.cache
def _version_of(path: str) -> str:
    done = subprocess.run([path, "-version"], capture_output=True, check=False)
    line = done.stdout.decode("utf-8", "replace").partition("\n")[0].strip()
    if done.returncode or not line:
        raise OSError(
            f"{path} -version: ended with code {done.returncode} and printed {line!r}; "
            "install a working ffmpeg, or take this one off PATH"
        )
    return line

"""The ffmpeg binary: the one on PATH, else the one of the imageio-ffmpeg wheel."""

import functools
import os
import platform
import shutil
import subprocess


def ffmpeg_path() -> str:
    """Path of the ffmpeg binary to run; OSError if there is none."""
    return shutil.which("ffmpeg") or wheel_ffmpeg()


def wheel_ffmpeg() -> str:
    """Path of the wheel's binary; OSError if it has none for this platform, or it did not run."""
    import imageio_ffmpeg  # frames that are ready need none

    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise OSError(
            f"ffmpeg: found none that runs; the imageio-ffmpeg package for {platform.system()} "
            f"{platform.machine()} has none, or it failed or was killed when it was tried; install "
            "ffmpeg so that it is on PATH, set IMAGEIO_FFMPEG_EXE to one, or try again"
        ) from error


def ask_ffmpeg(*arguments: str) -> str:
    """What `ffmpeg arguments` prints, for questions about ffmpeg itself; OSError if the binary
    cannot be run, fails or prints nothing."""
    path = ffmpeg_path()
    # The time shows whether a new binary has replaced the old one; workers may live for days.
    return _ask(path, os.stat(path).st_mtime_ns, arguments)


@functools.cache
def _ask(path: str, _time_ns: int, arguments: tuple[str, ...]) -> str:
    process = subprocess.run([path, *arguments], capture_output=True, check=False)
    text = process.stdout.decode("utf-8", "replace").strip()
    if process.returncode or not text:
        raise OSError(
            f"{path} {' '.join(arguments)}: ended with code {process.returncode} and printed "
            f"{text[:80]!r}; try again if it was killed; else install a working ffmpeg, or remove "
            "this one from PATH"
        )
    return text


def ffmpeg_version() -> str:
    """The first line of `ffmpeg -version`, e.g. 'ffmpeg version 7.0.2 Copyright ...'; OSError as
    `ask_ffmpeg`."""
    return ask_ffmpeg("-version").partition("\n")[0].strip()

"""Where the ffmpeg binary is: the user's own on PATH, else the one in the imageio-ffmpeg wheel."""

import shutil

import imageio_ffmpeg


def ffmpeg_path() -> str:
    """Path of the ffmpeg binary to run."""
    return shutil.which("ffmpeg") or imageio_ffmpeg.get_ffmpeg_exe()

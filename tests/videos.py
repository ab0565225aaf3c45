"""Tiny videos, made by ffmpeg."""

import subprocess
from pathlib import Path

from clipzoo.data.ffmpeg import ffmpeg_path

CODECS = {
    ".mp4": ["-c:v", "libx264", "-preset", "ultrafast", "-g", "12", "-pix_fmt", "yuv420p"],
    ".avi": ["-c:v", "mpeg4", "-q:v", "3"],
    ".mkv": ["-c:v", "ffv1", "-pix_fmt", "yuv444p"],
    ".webm": ["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "1M"],
}


def make_video(path: Path, num_frames: int = 12, size: str = "96x64", fps: int = 10) -> Path:
    """A video of ffmpeg's moving test picture, in the codec that its extension stands for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = ("-f", "lavfi", "-i", f"testsrc2=size={size}:rate={fps}")
    exact = ("-vf", f"scale={size.replace('x', ':')},format=yuv444p")  # the source is even
    run_ffmpeg(*source, *exact, "-frames:v", num_frames, *CODECS[path.suffix], path)
    return path


def run_ffmpeg(*arguments: object) -> None:
    """Run ffmpeg; output files are overwritten."""
    command = [ffmpeg_path(), "-v", "error", "-nostdin", "-y", *map(str, arguments)]
    subprocess.run(command, check=True)

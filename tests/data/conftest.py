"""Tiny videos, and a project folder to run the data stages in."""

import dataclasses
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from clipzoo.config import Params, load_params
from clipzoo.data.ffmpeg import ffmpeg_path

ROOT = Path(__file__).parents[2]
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


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with params.yaml as the working directory."""
    (tmp_path / "datasets").mkdir()
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLIPZOO_DATA", raising=False)
    return tmp_path


ParamsFor = Callable[..., Params]


@pytest.fixture
def params_for(project: Path) -> ParamsFor:
    """params_for("mine", data={...}, frames={...}): the defaults with one dataset, and changes."""

    def build(dataset: str, **changes: dict[str, object]) -> Params:
        params = load_params(ROOT / "params.yaml")
        sections: dict[str, object] = {
            "data": {"dataset": dataset, "datasets": [dataset], "demo": [], "zero_shot": []},
            "frames": {"size": "48"},
        }
        for name, values in changes.items():
            sections[name] = {**sections.get(name, {}), **values}  # pyright: ignore
        replaced = {
            name: dataclasses.replace(getattr(params, name), **values)  # pyright: ignore
            for name, values in sections.items()
        }
        return dataclasses.replace(params, **replaced)

    return build

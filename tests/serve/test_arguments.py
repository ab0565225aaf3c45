"""What Python callers give to a model is checked."""

from pathlib import Path
from typing import Any

import pytest
import torch

import clipzoo
import colors
from clipzoo.config import ConfigError
from clipzoo.serve.model import VideoModel
from clipzoo.serve.space import PACKAGES, requirements
from colors import make_colored


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 frames."""
    return make_colored(tmp_path_factory.mktemp("video") / "x.mp4", [("red", 1), ("blue", 1)])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("juggling", "found 'juggling'; allowed: a list of texts"),
        ([1], r"found \[1\]; allowed: a list of texts"),
        ([], "found none; allowed: one or more"),
    ],
)
def test_texts_are_a_list(video: Path, value: Any, message: str):
    model = colors.model(kind="open")
    with pytest.raises(ConfigError, match=f"class_names: {message}"):
        model.predict(video, value)
    with pytest.raises(ConfigError, match=f"class_names: {message}"):
        model.windows(video, value, every=1)
    with pytest.raises(ConfigError, match=f"texts: {message}"):
        model.embed_text(value)


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ((0, 1), "views: clips: found 0; allowed: .* 1$"),
        ((1_000_000, 1), "views: clips: found 1000000; allowed: .* 1000$"),
        ((1, 2), "views: crops: found 2; allowed: 1, 3, 5, 10$"),
        ((1.5, 1), "views: clips: found 1.5"),
    ],
)
def test_views(video: Path, views: Any, message: str):
    model = colors.model()
    with pytest.raises(ConfigError, match=message):
        model.predict(video, views=views)
    with pytest.raises(ConfigError, match=message):
        model.windows(video, every=1, views=views)  # before the first window


def test_indices_of_frames(video: Path):
    model = colors.model()
    assert model.read_frames(video, []) == []
    assert len(model.read_frames(video, [19, 0, 19])) == 3
    for wrong in (20, 99_999, -1):
        message = rf"indices: found {wrong}; allowed: 0 to 19, .*x\.mp4"
        with pytest.raises(ConfigError, match=message):
            model.read_frames(video, [0, wrong])


def test_devices(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert VideoModel(colors.folder(), "auto").device.type == "cpu"
    for name in ("tpu", "cuda", "cuda:0", "CPU"):
        message = rf"device: found '{name}'; allowed here: auto, cpu \("
        with pytest.raises(ConfigError, match=message):
            VideoModel(colors.folder(), name)
        with pytest.raises(ConfigError, match=message):
            clipzoo.load("hf:owner/name", name)  # before it is downloaded
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"allowed here: auto, cpu, cuda, cuda:0, cuda:1$"):
        VideoModel(colors.folder(), "cuda:2")


def test_a_space_requires_what_clipzoo_does():
    """Lower bounds, so that Gradio's own requirements can be met."""
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert len(requirements()) == len(PACKAGES)
    for line in requirements():
        assert f'    "{line}",\n' in text.partition("[project.optional")[0]
        assert ">=" in line

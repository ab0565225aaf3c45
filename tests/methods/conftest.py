"""What the tests of released files share."""

from pathlib import Path

import pytest
from torch import nn

from clipzoo.models.clip import save_clip
from tiny import demo_towers


@pytest.fixture
def clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """The CLIP of models/clip.safetensors in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    model = demo_towers(0)
    save_clip(model, "models/clip.safetensors", arch="ViT-demo-16", input_px=32, source="a test")
    return model

"""Which weights files are OpenAI's, with QuickGELU towers."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from clipzoo.models.clip import build_clip
from clipzoo.models.openai import is_openai


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return build_clip("ViT-demo-16", 32).state_dict()


def halved(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.half() for name, value in state.items()}


def saved(content: object, path: Path) -> bool:
    torch.save(content, path)
    return is_openai(path)


def test_sizes_among_the_parameters_or_mixed_precision_mark_openai(
    state: dict[str, Tensor], tmp_path: Path
):
    path = tmp_path / "clip.pt"
    assert saved(halved(state) | {"input_resolution": torch.tensor(32)}, path)
    assert saved(halved(state) | {"logit_scale": state["logit_scale"]}, path)
    assert not saved(state, path)
    assert not saved(halved(state), path)
    assert not saved({"state_dict": state}, path)

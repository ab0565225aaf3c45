"""A folder with the recipes, and a stand-in for DVC."""

import shutil
import subprocess
from pathlib import Path

import pytest
from runs import Dvc

from clipzoo.commands import use

ROOT = Path(__file__).parents[2]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the recipes and a params.yaml that holds the recipe demo."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    use.use("demo")
    return tmp_path


@pytest.fixture
def dvc(monkeypatch: pytest.MonkeyPatch) -> Dvc:
    stand_in = Dvc()
    monkeypatch.setattr(subprocess, "run", stand_in)
    return stand_in

"""A folder with the recipes, and a stand-in for DVC."""

import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from runs import Dvc

from clipzoo.commands import use

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def of_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the recipes and a params.yaml that holds the recipe demo; not to be changed."""
    folder = tmp_path_factory.mktemp("of_demo")
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    shutil.copy(ROOT / "params.yaml", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        use.use("demo")
    return folder


@pytest.fixture
def here(of_demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, in which the test runs."""
    shutil.copytree(of_demo, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def dvc(monkeypatch: pytest.MonkeyPatch) -> Dvc:
    stand_in, run = Dvc(), subprocess.run

    def call(*args: Any, **options: Any) -> subprocess.CompletedProcess:
        """In a thread beside this test, tests/stages/conftest.py may be making the demo."""
        ours = threading.current_thread() is threading.main_thread()
        return (stand_in if ours else run)(*args, **options)

    monkeypatch.setattr(subprocess, "run", call)
    return stand_in

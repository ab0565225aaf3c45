"""The demo at a tiny size, run by DVC and through the stage scripts in temporary folders."""

import os
import runpy
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock
from ruamel.yaml import YAML

from clipzoo.config import load_params
from clipzoo.serve.folder import ModelFolder, model_of_run

ROOT = Path(__file__).parent.parent.parent

COPIED = (
    "src/",
    "stages/",
    "datasets/",
    "recipes/",
    "params.yaml",
    "dvc.yaml",
    "data/given_files/",
    ".dvc",
    ".gitignore",
)
TINY = {
    "demo.train_videos": 2,
    "demo.val_videos": 1,
    "demo.unseen_videos": 1,
    "demo.pretrain_steps": 3,
    "demo.pretrain_batch": 8,
    "frames.size": 36,
    "frames.shard_videos": 20,
    "model.input_px": 32,
    "model.num_segments": 4,
    "text4vis.head_layers": 1,
    "augment.short_side_px": 36,
    "test.short_side_px": 36,
    "train.epochs": 6,
    "train.warmup_epochs": 1,
    "train.batch_size": 24,
    "train.val_every": 3,
    "train.checkpoint_every": 2,
    "runtime.processes": 1,
}


def arguments(stage: str, args: Sequence[str]) -> list[str]:
    """Of a stage's script: the first is a dataset, or a recipe, as in dvc.yaml."""
    return ["--recipe" if stage == "fuse" else "--dataset", *args] if args else []


@dataclass
class Workspace:
    """A folder in which stages run as `dvc repro` would run them."""

    path: Path
    first_repro: str = ""

    def git(self, *args: str) -> None:
        subprocess.run(["git", *args], cwd=self.path, env=self.environment(), check=True)

    def dvc(self, *args: str, module: str = "dvc") -> str:
        """Run a dvc command that must succeed, or one of clipzoo; returns what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", module, *args],
            cwd=self.path,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert done.returncode == 0, f"{module} {args}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def set(self, **values: object) -> None:
        """Change params.yaml; `__` stands for the dot of a key."""
        yaml = YAML()
        params = yaml.load(self.path / "params.yaml")
        for key, value in values.items():
            *sections, last = key.split("__")
            section = params
            for name in sections:
                section = section.setdefault(name, {})  # a method's may be missing
            section[last] = value
        yaml.dump(params, self.path / "params.yaml")

    def command(self, stage: str, *args: str) -> list[str]:
        return [sys.executable, f"stages/{stage}.py", *arguments(stage, args)]

    def environment(self, **more: str) -> dict[str, str]:
        """This environment with what DVC needs, and nothing that a user set for own runs."""
        own = {k: v for k, v in os.environ.items() if k not in ("CLIPZOO_DATA", "NNODES", "RANK")}
        git = {
            f"GIT_{who}_{what}": "test@example.org" if what == "EMAIL" else "test"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        }
        return {
            **own,
            **git,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{own['PATH']}",
            "PYTHONPATH": "src",
            "DVC_SITE_CACHE_DIR": str(self.path.parent / "dvc-site-cache"),
            **more,
        }

    def start(self, stage: str, *args: str, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            self.command(stage, *args),
            cwd=self.path,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, stage: str, *args: str) -> str:
        """Run a stage that must succeed; returns what it printed."""
        process = self.start(stage, *args)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, f"{stage} {args}\n{out}\n{err}"
        return out

    def run_here(self, stage: str, *args: str) -> None:
        """A stage's main in this process: no torchrun, and no seconds of imports."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.path)
            patch.setattr(sys, "argv", [f"stages/{stage}.py", *arguments(stage, args)])
            runpy.run_path(f"stages/{stage}.py")["main"]()


def new_workspace(path: Path) -> Workspace:
    """The repository's code and data files in a folder of its own, with tiny parameters."""
    workspace = copy_of_code(path)
    workspace.set(**{key.replace(".", "__"): value for key, value in TINY.items()})
    return workspace


def copy_of_code(path: Path) -> Workspace:
    """The repository's code and data files in a folder of its own."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if name.startswith(COPIED) and (ROOT / name).is_file():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, path / name)
    return Workspace(path)


@pytest.fixture
def fresh_workspace(tmp_path) -> Workspace:
    """Nothing has been run in it yet."""
    return new_workspace(tmp_path / "run")


@pytest.fixture
def workspaces(tmp_path) -> tuple[Workspace, Workspace]:
    """Two in which nothing has been run yet."""
    return new_workspace(tmp_path / "a" / "run"), new_workspace(tmp_path / "b" / "run")


@pytest.fixture(scope="session")
def demo(tmp_path_factory, worker_id) -> Workspace:
    """The whole pipeline, run once by `dvc repro` in a fresh repository; nothing is to be changed.

    The first worker of xdist that needs it makes it for all.
    """
    base = tmp_path_factory.getbasetemp()
    return make_demo((base if worker_id == "master" else base.parent) / "demo")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need the demo come last, when it is ready."""
    items.sort(key=lambda item: "demo" in getattr(item, "fixturenames", ()))


def pytest_collection_finish(session: pytest.Session) -> None:
    """The first worker makes the demo during its other tests, for which all would wait a minute."""
    worker = getattr(session.config, "workerinput", {}).get("workerid")
    needed = any("demo" in getattr(item, "fixturenames", ()) for item in session.items)
    if worker == "gw0" and needed:
        factory: pytest.TempPathFactory = session.config._tmp_path_factory  # pyright: ignore[reportAttributeAccessIssue]
        folder = factory.getbasetemp().parent / "demo"
        threading.Thread(target=make_demo, args=(folder,), daemon=True).start()


def make_demo(folder: Path) -> Workspace:
    """The demo in `folder`/repository, made if it is not there yet."""
    output = folder / "repro.txt"
    with FileLock(f"{folder}.lock"):
        workspace = Workspace(folder / "repository")
        if not output.is_file():
            workspace = new_workspace(workspace.path)
            workspace.git("init", "-q")
            workspace.git("add", ".")
            workspace.git("commit", "-q", "-m", "start")
            output.write_text(workspace.dvc("repro", module="clipzoo"))
    workspace.first_repro = output.read_text()
    return workspace


@pytest.fixture
def copy_of_demo(demo, tmp_path) -> Workspace:
    """The demo's prepared inputs under a folder of its own, without what train and later wrote."""
    workspace = copy_of_code(tmp_path / "run")
    (workspace.path / "params.yaml").write_text((demo.path / "params.yaml").read_text())
    (workspace.path / "models").mkdir()
    shutil.copy(demo.path / "models/clip.safetensors", workspace.path / "models")
    shutil.copytree(demo.path / "data/text", workspace.path / "data/text")
    for name in ("data/annotations", "data/frames", "data/raw", "lists"):
        (workspace.path / name).symlink_to(demo.path / name)
    return workspace


@pytest.fixture
def here(demo, monkeypatch) -> Path:
    """The folder of a finished demo, in which the test runs."""
    monkeypatch.chdir(demo.path)
    return demo.path


@pytest.fixture
def of_run(here) -> ModelFolder:
    """The model of that demo."""
    return model_of_run(load_params())

"""One run, one params.yaml; and nothing that changes it beside a run."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from clipzoo.runtime.ending import PART
from clipzoo.commands import repro
from clipzoo.config import ConfigError
from clipzoo.runtime.lock import DVC_DIR, LockError, only_one, require_idle
from clipzoo.runtime.one_run import RUNS_DIR, VARIABLE, check_params, same_params

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.delenv(VARIABLE, raising=False)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


def change(old: str, new: str) -> None:
    text = Path("params.yaml").read_text()
    assert text.count(old) == 1
    Path("params.yaml").write_text(text.replace(old, new))


def run_and_change() -> None:
    with same_params():
        change("  epochs: ", "  epochs: 3 # ")
        with pytest.raises(ConfigError, match=r"train\.epochs"):
            check_params()  # as a process of the stage does


def test_a_stage_during_which_params_change_fails_by_their_names():
    with pytest.raises(ConfigError, match=r"changed since .*train\.epochs: \d+ -> 3"):
        run_and_change()
    assert VARIABLE not in os.environ


def test_what_changes_no_number_may_change():
    with same_params():
        change("  workers: 0", "  workers: 3")
        change("seed: 1024", "# more words\nseed: 1024")


def test_stages_of_one_dvc_compare_and_another_begins_again(monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(Path.cwd()))
    with same_params():
        pass
    change("  epochs: ", "  epochs: 3 # ")
    with pytest.raises(ConfigError, match="changed since this run began"), same_params():
        raise AssertionError("the stage has run")
    (record,) = RUNS_DIR.iterdir()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    node = os.uname().nodename
    ended = record.rename(RUNS_DIR / f"{node}-{gone.pid}-12.00.json")  # of a process that has ended
    with same_params():
        assert not ended.exists()


def test_repro_notes_the_settings_before_dvc_looks_at_any_stage(monkeypatch):
    def dvc(arguments: list[str]) -> int:
        """DVC: a shell edits the file, and a stage of this process runs."""
        change("  epochs: ", "  epochs: 3 # ")
        monkeypatch.setenv("DVC_ROOT", str(Path.cwd()))
        mine = psutil.Process
        monkeypatch.setattr("psutil.Process", lambda: SimpleNamespace(parents=lambda: [mine()]))
        with same_params():
            return 0

    monkeypatch.setattr("dvc.cli.main", dvc)
    replaced = ("dvc.ui.ui.write", "dvc.stage.run.StageCmdFailedError", "dvc.stage.run.cmd_run")
    for name in replaced:
        monkeypatch.setattr(name, lambda *_: None)
    monkeypatch.setattr("sys.argv", ["clipzoo", "repro", "--no-note"])
    monkeypatch.setenv(PART, "1")
    with pytest.raises(ConfigError, match="changed since this run began"):
        repro._run(Namespace(no_note=True))


def idle_error() -> str:
    with pytest.raises(LockError) as caught, only_one("use or zoo"):
        require_idle("use or zoo", "and `use` would change its params.yaml")
    return str(caught.value)


def test_params_are_not_changed_beside_a_stage():
    with only_one("use or zoo"):
        require_idle("use or zoo", "")
    with only_one("train"):
        assert f"train runs here (process {os.getpid()}" in idle_error()
    with only_one("use or zoo"):  # the text of the ended lock is still there
        require_idle("use or zoo", "")


def test_params_are_not_changed_beside_dvc():
    DVC_DIR.mkdir(parents=True)
    note = {"pid": os.getpid(), "cmd": "/usr/bin/dvc repro"}
    rwlock = DVC_DIR / "rwlock"
    rwlock.write_text(json.dumps({"write": {"models/x": note}, "read": {}}))
    assert f"`dvc repro` (process {os.getpid()}) runs here, and `use`" in idle_error()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    rwlock.write_text(json.dumps({"write": {"models/x": note | {"pid": ended.pid}}, "read": {}}))
    for text in (rwlock.read_text(), "", "[]", '{"write": {"x": 3}}'):
        rwlock.write_text(text)
        with only_one("use or zoo"):
            require_idle("use or zoo", "")
    with (DVC_DIR / "lock").open("w") as file:  # between two stages
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "DVC runs here" in idle_error()

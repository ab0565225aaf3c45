"""The resume point: damaged in every way, of another version, and on a full disk."""

import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from clipzoo.files import DiskError
from clipzoo.train.state import (
    PREVIOUS_FILE,
    STATE_FILE,
    Progress,
    StateError,
    load_state,
    save_state,
)

CPU = torch.device("cpu")
WIDTH = 60


class Training:
    """A model that has taken some steps."""

    def __init__(self, steps: int, width: int = WIDTH) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(width, width)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1)
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)
        self.progress = Progress()
        for step in range(steps):
            self.model(torch.ones(1, width)).sum().backward()
            self.optimizer.step()
            self.progress.step += 1
            self.progress.history.append({"step": step, "loss": 1 / 3})
        self.progress.average = {"weight": self.model.weight.detach().clone()}

    def save(self, folder: Path) -> None:
        save_state(folder, self.progress, self.model, self.optimizer, self.scaler)

    def load(self, folder: Path) -> Progress:
        return load_state(folder, self.model, self.optimizer, self.scaler, CPU)

    def tensors(self) -> list[torch.Tensor]:
        moments = [value for state in self.optimizer.state.values() for value in state.values()]
        return [*self.model.state_dict().values(), *self.progress.average.values(), *moments]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds the states after one step and after two."""
    for steps in (1, 2):
        Training(steps).save(tmp_path)
    return tmp_path


def assert_loads(folder: Path, steps: int) -> None:
    """A fresh training gets the state after `steps` steps, or none for 0."""
    expected, found = Training(steps), Training(0)
    found.progress = found.load(folder)
    assert found.progress.step == len(found.progress.history) == steps
    if not steps:
        expected.progress.average.clear()
    for tensor, other in zip(found.tensors(), expected.tensors(), strict=True):
        assert torch.equal(tensor, other)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_state_is_loaded_and_the_one_before_kept(folder, capsys):
    assert_loads(folder, 2)
    assert names(folder) == ["previous.pt", "state.pt"]
    (folder / STATE_FILE).unlink()  # a kill between the two renames
    assert_loads(folder, 1)
    (folder / PREVIOUS_FILE).unlink()
    assert_loads(folder, 0)
    assert capsys.readouterr().out == "", "nothing was damaged"


@pytest.mark.parametrize("kept", [0, 1, 100, -1, -3000])
def test_a_torn_state_gives_way_to_the_one_before(kept, folder, capsys):
    path = folder / STATE_FILE
    path.write_bytes(path.read_bytes()[:kept])
    assert_loads(folder, 1)
    out = capsys.readouterr().out
    assert f"{path}: is damaged (" in out
    assert "training continues from previous.pt" in out
    assert names(folder) == ["previous.pt"], "the damaged one never takes the place of a good one"


def test_training_starts_over_if_both_are_damaged(folder, capsys):
    (folder / STATE_FILE).write_bytes(b"")
    (folder / PREVIOUS_FILE).write_bytes(np.random.default_rng(0).bytes(5000))
    assert_loads(folder, 0)
    out = capsys.readouterr().out
    assert f"{STATE_FILE}: is damaged (" in out
    assert f"{PREVIOUS_FILE}: is damaged (" in out
    assert out.endswith("; training starts from scratch\n")
    assert names(folder) == []


def test_a_changed_byte_is_found_wherever_it_matters(folder):
    """Most bytes are of tensors; of the others, some mean nothing."""
    path, rng, fallbacks = folder / STATE_FILE, np.random.default_rng(0), 0
    content, previous = path.read_bytes(), (folder / PREVIOUS_FILE).read_bytes()
    places = [*rng.integers(0, len(content), 16), *(len(content) - rng.integers(1, 2500, 12))]
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        (folder / PREVIOUS_FILE).write_bytes(previous)
        training = Training(0)
        steps = training.load(folder).step
        fallbacks += steps == 1
        expected = Training(steps).model.state_dict()
        for name, value in training.model.state_dict().items():
            assert torch.equal(value, expected[name]), f"byte {place}"
    assert fallbacks > 15


def test_a_state_of_another_version_is_kept(folder):
    with pytest.raises(StateError, match=r"state\.pt: does not fit .*, or remove "):
        Training(0, WIDTH + 1).load(folder)
    state = torch.load(folder / STATE_FILE, weights_only=True)
    moved = {**state, "model": dict(reversed(state["model"].items()))}
    torch.save(moved, folder / STATE_FILE)  # the optimizer numbers its moments
    with pytest.raises(StateError, match=r"state\.pt: does not fit \(.* in another order\)"):
        Training(0).load(folder)
    del state["progress"]["history"], state["scaler"]
    torch.save(state, folder / PREVIOUS_FILE)
    (folder / STATE_FILE).unlink()
    with pytest.raises(StateError, match=r"previous\.pt: does not fit \('scaler'\)"):
        Training(0).load(folder)
    assert names(folder) == ["previous.pt"]


def test_a_full_disk_leaves_the_states_that_were_there(folder, limit_file_size):
    limit_file_size(8192)
    # 3 weights, 3 biases of float32 (of them and of both moments), and the average of the weights
    needed = 4 * (4 * WIDTH**2 + 3 * WIDTH) + 8
    with pytest.raises(DiskError) as caught:
        Training(3).save(folder)
    assert f"{folder / STATE_FILE}: cannot be written (File too large)" in str(caught.value)
    assert f"it needs {needed / 1e6:.1f} MB, and " in str(caught.value)
    assert names(folder) == ["previous.pt", "state.pt"]
    assert_loads(folder, 2)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_the_mode_is_that_of_the_umask(umask, mode, tmp_path, set_umask):
    set_umask(umask)
    Training(1).save(tmp_path)
    assert stat.S_IMODE((tmp_path / STATE_FILE).stat().st_mode) == mode

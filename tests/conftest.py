"""A project folder to run the data stages in, and limits of the process that a test sets."""

import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clipzoo.config import Params, flatten, load_params, replace

ROOT = Path(__file__).parents[1]

# What a script runs in the background ignores Ctrl-C, and so does all that it starts.
IN_MAIN_THREAD = threading.current_thread() is threading.main_thread()
if IN_MAIN_THREAD and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
        values: dict[str, object] = {
            "data.dataset": dataset,
            "data.datasets": [dataset],
            "data.demo": [],
            "data.zero_shot": [],
            "frames.size": 48,
        }
        return replace(load_params(ROOT / "params.yaml"), values | flatten(changes))

    return build


@pytest.fixture
def set_umask() -> Iterator[Callable[[int], int]]:
    """`os.umask` for the time of a test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.fixture
def limit_file_size() -> Iterator[Callable[[int], None]]:
    """Files may not grow above a number of bytes for the rest of a test: like a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)

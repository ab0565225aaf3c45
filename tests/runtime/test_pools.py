"""Pools of processes where /dev/shm cannot be written."""

import errno
import os
import shutil
import subprocess
import sys
import threading

import pytest

from clipzoo.runtime import pools
from clipzoo.runtime.pools import process_pool


@pytest.mark.parametrize("error", [OSError(errno.EROFS, "Read-only file system"), ImportError("x")])
def test_without_shared_memory_threads_do_the_work_and_a_note_says_so(error, monkeypatch, capsys):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(pools, "ProcessPoolExecutor", fail)
    with process_pool(2) as pool:
        assert list(pool.map(abs, [-1, 2])) == [1, 2]
        assert pool.submit(os.getpid).result() == os.getpid()
        assert pool.submit(threading.current_thread).result() != threading.current_thread()
    err = capsys.readouterr().err
    for words in ("/dev/shm", str(getattr(error, "strerror", None) or error), "2 threads"):
        assert words in err


def test_other_errors_of_a_pool_stay(monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(pools, "ProcessPoolExecutor", fail)
    with pytest.raises(OSError, match="Too many"), process_pool(2):
        pass


POOL = """
import os
from clipzoo.runtime.pools import process_pool
with process_pool(1) as pool:
    print(pool.submit(os.getpid).result() == os.getpid())
"""


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("unshare"), reason="mounts a /dev/shm")
@pytest.mark.parametrize("options", ["size=4k,ro", "size=4k"])
def test_a_real_dev_shm_that_is_read_only_or_full(options: str):
    mounted = f"mount -t tmpfs -o {options} none /dev/shm"
    fill = "" if "ro" in options else "; head -c 9000 /dev/zero >/dev/shm/x 2>/dev/null"
    inner = f'{mounted} || exit 77{fill}; exec "$0" -c "$1"'
    command = ["unshare", "-m", "bash", "-c", inner, sys.executable, POOL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode in (1, 77) and "Operation not permitted" in done.stderr:
        pytest.skip("no rights to mount")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True\n"
    assert "note: /dev/shm: " in done.stderr

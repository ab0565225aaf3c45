"""The exit code of a program is the one that it has chosen, whatever threads do at its end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clipzoo.data.index import INDEX_COLUMNS

PARITY = str(Path(__file__).parents[1] / "parity")
AT_THE_END = """
import atexit, sys, threading, time
from clipzoo.runtime.ending import ending

class TornDown:
    def __del__(self):
        print("torn down")

keep = TornDown()
atexit.register(print, "exit function")
with ending():
    threading.Thread(target=lambda: (time.sleep(0.1), print("thread"))).start()
    print("block", end="; ")
    {last}
"""


def run(program: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, **options
    )


@pytest.mark.parametrize(
    ("last", "code", "error"),
    [
        ("pass", 0, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit('no such file')", 1, "no such file\n"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
    ],
)
def test_a_program_ends_in_order_and_without_a_teardown(last: str, code: int, error: str):
    done = run(AT_THE_END.format(last=last))
    assert done.returncode == code
    assert done.stdout == "block; thread\nexit function\n"
    assert done.stderr.endswith(error)
    assert ("Traceback" in done.stderr) == (last == "1 / 0")


def test_output_that_cannot_be_written_is_an_error():
    read, write = os.pipe()
    os.close(read)
    program = "from clipzoo.runtime.ending import ending\nwith ending():\n    print('text')"
    buffered = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, stdout=write, env=buffered, timeout=60, check=False)
    os.close(write)
    assert done.returncode == 120


STAGE = """
from clipzoo.runtime.launch import run_stage

class TornDown:
    def __del__(self):
        print("torn down")

keep = TornDown()

def main():
    {last}

run_stage(main)
"""


@pytest.mark.parametrize(
    ("last", "code", "error"),
    [
        ("print('done')", 0, ""),
        ("raise ValueError('key: found 1')", 1, "error: key: found 1\n"),
        ("assert 0, 'a bug'", 1, "AssertionError: a bug\n"),
    ],
)
def test_a_stage_ends_without_a_teardown(tmp_path, last: str, code: int, error: str):
    done = run(STAGE.format(last=last), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, "" if code else "done\n")
    assert done.stderr.endswith(error)


@pytest.mark.slow
@pytest.mark.parametrize("command", [["-m", "clipzoo", "fuse", "a", "b"], [PARITY, "a"]])
def test_commands_end_without_a_teardown(tmp_path, command):
    """`-m` cannot keep an object: the teardown of another module shows it."""
    (tmp_path / "sitecustomize.py").write_text(STAGE.split("\n\n")[1] + "\nkeep = TornDown()\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "torn down" not in done.stdout


COUNT_THREADS = """
import os, sys
from pathlib import Path
import numpy as np
import pyarrow as pa
from clipzoo.data import index

names = list(index.INDEX_COLUMNS)
columns = {name: pa.array(["v"] if kind == pa.string() else [0]).cast(kind)
           for name, kind in index.INDEX_COLUMNS.items()}
table, path = pa.table(columns), Path(sys.argv[1])
part = index.make_part(table, np.zeros((0, 2), np.uint32))
threads = lambda: len(os.listdir("/proc/self/task"))
before = threads()
for _ in range(3):
    index.write_index(table, {0: index.ShardState("", 0, 0)}, path)
    index.read_index(path), index.read_index(path, names[:2]), index.read_states(path)
    index.write_index(part, {0: index.ShardState("", 0, 0)}, path)
    index.read_part(path)
print(threads() - before)
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts Linux's threads")
def test_the_index_is_read_without_the_threads_of_arrow(tmp_path):
    """One of them would free the content, which is Python's, while Python ends: SIGABRT."""
    assert len(INDEX_COLUMNS) > 2
    arguments = [sys.executable, "-c", COUNT_THREADS, str(tmp_path / "index.parquet")]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "0\n"

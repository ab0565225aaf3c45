"""Freed memory stays with the process."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import resource, sys
from clipzoo.runtime.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()

def touch():
    bytearray(2**26)

touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(action: str) -> int:
    environment = {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    command = [sys.executable, "-c", SCRIPT, action]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return int(result.stdout)


def test_a_block_that_was_freed_is_not_cleared_by_the_kernel_again():
    assert page_faults("keep") < 1000 < page_faults("default")

"""The console command `clipzoo`."""

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from clipzoo import __main__ as program

ROOT = Path(__file__).parents[1]
OTHER = "import sys\nprint('the copy', *sys.argv[1:])\n"


def test_the_console_command_is_declared():
    text = (ROOT / "pyproject.toml").read_text()
    (value,) = re.findall(r'^\[project\.scripts\]\nclipzoo = "(.*)"$', text, re.MULTILINE)
    entry = importlib.metadata.EntryPoint("clipzoo", value, "console_scripts")
    assert entry.load() is program.console


@pytest.mark.parametrize(
    "arguments", [["-m", "clipzoo"], ["-c", "from clipzoo import __main__ as m; m.console()"]]
)
def test_in_a_copy_of_the_repository_the_copy_runs(tmp_path: Path, arguments: list[str]):
    """As a queued experiment, or another checkout: not the code that is installed here."""
    package = tmp_path / "src/clipzoo"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(OTHER)
    done = subprocess.run(
        [sys.executable, *arguments, "zoo", "demo"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout == "the copy zoo demo\n"

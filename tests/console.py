"""The command `clipzoo`, run in the process of a test."""

import sys

import pytest

from clipzoo import __main__


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run a command; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["clipzoo", *map(str, arguments)])
    try:
        __main__.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0

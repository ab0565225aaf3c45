"""When the progress bar is printed."""

import sys

import pytest

from clipzoo.runtime.progress import progress_bar


def test_without_a_terminal_the_first_update_is_printed_and_the_next_are_not(
    capsys: pytest.CaptureFixture[str],
):
    assert not sys.stderr.isatty()
    bar = progress_bar("encode", 9, "video", initial=2)
    assert "2/9" in capsys.readouterr().err
    bar.update()
    first = capsys.readouterr().err
    assert "3/9" in first
    assert "video/s]" in first or "s/video]" in first
    bar.update()
    assert not capsys.readouterr().err
    bar.close()
    assert "4/9" in capsys.readouterr().err


def test_a_disabled_bar_prints_nothing(capsys: pytest.CaptureFixture[str]):
    with progress_bar("encode", 9, "video", disable=True) as bar:
        bar.update()
    assert not capsys.readouterr().err

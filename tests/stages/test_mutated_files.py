"""1,800 damaged files of every group: each is read as what it was, or refused by one clear error.

What may be read as something else says so in `readers.GROUPS`. Everything is seeded, so a case can
be run again by its number: `CASE = 17`.
"""

import contextlib
import io
import os
import random
import shutil
import signal
import threading
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from damages import KINDS, SPECIAL, WHOLE
from readers import GROUPS, Group, digest, prepare

SEED = 20
CASE: int | None = None
"""Only this case of each group; None = all."""
LIMIT_SECONDS = 20
MOST_CHARACTERS = 20_000
"""Of a message: not the whole of a damaged file."""
QUICK = ("dataset", "kinetics-json", "index", "class-text", "compared-videos", "given-scores")


class Hang(BaseException):
    """A reader did not come to an end."""


@pytest.fixture(scope="module")
def folder(demo, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("mutated")
    prepare(demo.path, path)
    return path


@contextlib.contextmanager
def time_limit(path: Path) -> Iterator[None]:
    """Raise Hang after LIMIT_SECONDS; a read of a named pipe, which no signal ends, gets its end of
    file a little later."""

    def stop(*_: object) -> None:
        raise Hang

    def feed() -> None:
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))

    before = signal.signal(signal.SIGALRM, stop)
    timer = threading.Timer(LIMIT_SECONDS + 1, feed)
    timer.start()
    signal.alarm(LIMIT_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        timer.cancel()
        signal.signal(signal.SIGALRM, before)


def fault(group: Group, path: Path, expected: str) -> str:
    """What is wrong with how a damaged file was read; '' = nothing.

    Args:
        expected: digest of what must be read if the file is not refused; '' = anything.
    """
    try:
        with time_limit(path), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with contextlib.redirect_stdout(io.StringIO()):
                value = group.read(path)
    except Hang:
        return f"hangs for {LIMIT_SECONDS} s"
    except SystemExit as error:
        return f"ends with {error.code}"
    except (ValueError, OSError) as error:
        return fault_of_message(group, path, str(error))
    except Exception as error:
        where = "".join(traceback.format_tb(error.__traceback__)[-2:])
        return f"{type(error).__name__}: {str(error)[:300]}\n{where}"
    return "another value is read" if expected and digest(value) != expected else ""


def fault_of_message(group: Group, path: Path, text: str) -> str:
    if not any(name in text for name in (str(path), *group.named)):
        return f"names no file: {text[:300]!r}"
    if "\x1b" in text:
        return f"has a terminal's escape code: {text[:300]!r}"
    return "" if len(text) < MOST_CHARACTERS else f"has {len(text)} characters: {text[:300]!r}"


def findings(name: str, numbers: range) -> list[str]:
    """The cases of a group that go wrong."""
    group, found = GROUPS[name], []
    whole = {path: (path.read_bytes(), path.stat().st_mode) for path in map(Path, group.files)}
    expected = {path: digest(group.read(path)) for path in whole}
    every = [*SPECIAL, *KINDS[group.kind]]
    for number in numbers if CASE is None else [CASE]:
        rng = random.Random(f"{SEED} {name} {number}")
        path = list(whole)[number % len(whole)]
        damage = every[number // len(whole) % len(every)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            damage(path, rng)
        try:
            free = group.free or damage in WHOLE
            if text := fault(group, path, "" if free else expected[path]):
                called = getattr(damage, "__name__", damage)
                found.append(f"case {number}, {called}, {path}: {text}")
        finally:
            restore(whole)
    return found


def restore(whole: dict[Path, tuple[bytes, int]]) -> None:
    for path, (content, mode) in whole.items():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        path.chmod(mode)


def test_there_are_1800_cases():
    assert sum(group.num for group in GROUPS.values()) >= 1800


@pytest.mark.slow
@pytest.mark.parametrize("name", GROUPS)
def test_a_damaged_file_is_read_as_it_was_or_refused_by_name(folder, monkeypatch, capsys, name):
    monkeypatch.chdir(folder)
    found = findings(name, range(GROUPS[name].num))
    assert not found, f"{len(found)} of {GROUPS[name].num}:\n" + "\n".join(found)


@pytest.mark.parametrize("name", QUICK)
def test_a_few_damages_of_some_groups(folder, monkeypatch, capsys, name):
    monkeypatch.chdir(folder)
    found = findings(name, range(0, GROUPS[name].num, 8))
    assert not found, "\n".join(found)

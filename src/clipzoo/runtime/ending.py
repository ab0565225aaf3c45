"""End a program with the exit code that it has chosen; after Ctrl-C, without a traceback.

While Python tears itself down, a thread that asks for its lock is stopped by pthread_exit. That
unwinds the thread's stack, and if a C++ function on it must not throw (a destructor of Arrow, for
example), `std::terminate` kills the whole process with SIGABRT: "terminate called without an active
exception", code 134, although the stage has done its work. Hence the teardown is left out.

Imports nothing but the standard library: commands and stages import it first (`force-to-top` in
pyproject.toml), because Ctrl-C may be pressed while the other imports run.
"""

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

NOT_FLUSHED = 120
"""Exit code of Python where the last of its output cannot be written."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, which is also what a shell shows for a program that the signal ended."""
PART = "CLIPZOO_PART"
"""Environment variable of what a command runs, since the command itself reports Ctrl-C."""

_is_part = PART in os.environ


def was_interrupted(code: int) -> bool:
    """Whether a program's exit code, as `subprocess` returns it, says that Ctrl-C ended it.

    A shell ends with the code of the program that it ran (bash), or of the same signal (dash).
    """
    return code in (INTERRUPTED, -signal.SIGINT)


def run_command(command: Sequence[str], **options: Any) -> int:
    """Run a command and return its exit code; `options` are passed to `subprocess.run`.

    Ctrl-C reaches the command too: this process waits until the command has ended, and then raises
    KeyboardInterrupt.
    """
    pressed: list[int] = []
    handler = signal.getsignal(signal.SIGINT)
    if handler is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    environment = {**options.pop("env", os.environ), PART: "1"}
    try:
        code = subprocess.run(command, check=False, env=environment, **options).returncode
    finally:
        signal.signal(signal.SIGINT, handler)
    if pressed or was_interrupted(code):
        raise KeyboardInterrupt
    return code


def _end_interrupted(*_: object) -> NoReturn:
    """End this process at once, after Ctrl-C."""
    with contextlib.suppress(OSError, ValueError):  # nobody may be reading the output any more
        sys.stdout.flush()
        if not _is_part:
            print("\ninterrupted; run the same command again", file=sys.stderr, flush=True)
    os._exit(INTERRUPTED)


def _on_interrupt(_number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, but not within an import: some modules catch whatever is raised."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            _end_interrupted()
        frame = frame.f_back
    raise KeyboardInterrupt


def _replace(handler: object, by: Callable[[int, FrameType | None], None]) -> None:
    """Let `by` handle Ctrl-C if `handler` does so now; only the main thread can change that."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread and signal.getsignal(signal.SIGINT) is handler:
        signal.signal(signal.SIGINT, by)


_replace(signal.default_int_handler, _on_interrupt)


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """In this context Ctrl-C ends this process without waiting for what it has started."""
    _replace(_on_interrupt, _end_interrupted)
    try:
        yield
    finally:
        _replace(_end_interrupted, _on_interrupt)


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """End this process after a block, with the exit code that Python would choose.

    An error in the block is printed as Python prints it, except for Ctrl-C.
    """
    code = 0
    try:
        yield
    except SystemExit as stopped:
        code = stopped.code
    except KeyboardInterrupt:
        _end_interrupted()
    except Exception:
        traceback.print_exc()
        code = 1
    if code is not None and not isinstance(code, int):  # a message, as in sys.exit("no such file")
        print(code, file=sys.stderr)
        code = 1
    with ending_at_once():
        end(code or 0)


def end(code: int) -> None:
    """End this process with `code`, after everything that Python does at an exit but its teardown.

    Threads that are not daemons are joined, functions of `atexit` are called, output is flushed.
    """
    threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # a pipe that nobody reads, a full disk; a closed stream
            code = code or NOT_FLUSHED
    os._exit(code)

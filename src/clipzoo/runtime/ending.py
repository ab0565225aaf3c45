"""End a program with the exit code that it has chosen.

While Python tears itself down, a thread that asks for its lock is stopped by pthread_exit. That
unwinds the thread's stack, and where a function of C++ on it may not throw (a destructor of Arrow,
for example), `std::terminate` ends the whole process with SIGABRT: "terminate called without an
active exception", code 134, after a stage has done its work. Hence the teardown is left out.

Imports nothing but the standard library: commands and stages import it first.
"""

import atexit
import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Iterator

NOT_FLUSHED = 120
"""Exit code of Python where the last of its output cannot be written."""


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """End this process after a block, with the exit code that Python would choose.

    Errors of the block are printed as Python prints them. KeyboardInterrupt alone is left to
    Python, which ends the process by the signal itself.
    """
    code = 0
    try:
        yield
    except SystemExit as stopped:
        code = stopped.code
    except Exception:
        traceback.print_exc()
        code = 1
    if code is not None and not isinstance(code, int):  # a message, as in sys.exit("no such file")
        print(code, file=sys.stderr)
        code = 1
    end(code or 0)


def end(code: int) -> None:
    """End this process with `code`, after all that Python does at an exit except its teardown.

    Threads that are not daemons are joined, functions of `atexit` are called, output is flushed.
    """
    threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # a pipe that nobody reads, a full disk; closed before
            code = code or NOT_FLUSHED
    os._exit(code)

"""Locks against two processes that would write the same files.

DVC keeps two `dvc repro` apart. But a stage outlives a DVC that is killed, and the next `dvc repro`
would start it a second time, next to the first.

The lock is the system's (flock), on a file in .state/locks/ that names its holder. It ends with the
process, however that ends, so the file that a dead process has left never blocks.
"""

import errno
import fcntl
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from clipzoo.files import named_disk_errors, process_exists
from clipzoo.paths import STATE_DIR

LOCK_DIR = STATE_DIR / "locks"
DVC_DIR = Path(".dvc/tmp")
WITHOUT_LOCKS = {errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL}
"""Error numbers of flock on a network file system without locks."""


class LockError(ValueError):
    """Another process does the same work; the message names it."""


@contextmanager
def only_one(name: str) -> Iterator[int]:
    """Be the only process in this folder (on any machine) that runs `name` in a block.

    `name` is the work, for example a stage and its arguments. Yields the lock's file descriptor: a
    process that inherits it holds the lock too.

    Raises:
        LockError: another process holds the lock.
        OSError: the lock's file cannot be written.
    """
    path = _lock_file(name)
    with named_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise LockError(_describe(name, path, file.read())) from error
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise
            print(
                f"note: {path}: this file system has no locks ({error.strerror}); start nothing "
                "twice at the same time",
                file=sys.stderr,
            )
        since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        with named_disk_errors(path):
            file.truncate(0)
            file.write(f"{os.getpid()},{os.uname().nodename},{since}\n")
            file.flush()
        yield file.fileno()


def _lock_file(name: str) -> Path:
    return LOCK_DIR / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}.lock"


def _describe(name: str, path: Path, holder: str) -> str:
    """The message for a lock that is held, according to the text in its file."""
    pid, machine, since = (*holder.strip().split(",", 2), "", "")[:3]
    if not pid.isdecimal():  # the holder has the lock, but has not yet written its name
        return f"{name} has just been started by another process ({path}); wait for that one"
    here = machine == os.uname().nodename
    who, end = f"process {pid} on {machine}", f"end it (`kill {pid}`)"
    if not here:
        end += f" there, or, if that machine is lost, remove {path}"
    elif not process_exists(int(pid)):
        who = f"a process that process {pid} has left behind"
        end = f"end it (`fuser {path}` finds it)"
    return (
        f"{name} has been running since {since}: {who} holds {path}. Both would write the same "
        f"files: wait for it, or {end}; then run this again"
    )


def require_idle(name: str, reason: str) -> None:
    """Raise LockError, with a reason, if a stage or DVC runs in this folder.

    The lock `name`, which the caller holds, is left out.
    """
    for path in sorted(LOCK_DIR.glob("*.lock")):
        if path != _lock_file(name) and (holder := _holder(path)):
            raise LockError(f"{path.stem} runs here ({holder}), {reason}; wait for it, or end it")
    if running := _dvc_commands():
        raise LockError(f"{running} runs here, {reason}; wait for it, or end it")


def _holder(path: Path) -> str:
    """Who holds a lock, according to the text in its file; '' = nobody does."""
    pid, machine, _ = (*path.read_text(encoding="utf-8").strip().split(",", 2), "", "")[:3]
    ended = machine == os.uname().nodename and not (pid.isdecimal() and process_exists(int(pid)))
    # A lock is tried only if its holder may be alive: a stage that starts at the same moment would
    # mistake the trial for another stage.
    return f"process {pid} on {machine}" if pid and not ended and _is_held(path) else ""


def _is_held(path: Path) -> bool:
    """Whether a process has locked a file."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a file system without locks
            return False
    return False


def _dvc_commands() -> str:
    """The DVC commands that run here: '`dvc repro` (process 12)'; '' = none.

    While a stage runs, DVC notes its process in rwlock; at other times it holds the file `lock`.
    """
    try:
        noted = json.loads((DVC_DIR / "rwlock").read_text(encoding="utf-8"))
        writers = {entry["pid"]: entry["cmd"] for entry in noted.get("write", {}).values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # of another version of DVC
        writers = {}
    if alive := {pid: cmd for pid, cmd in writers.items() if process_exists(pid)}:
        return ", ".join(f"`{Path(cmd).name}` (process {pid})" for pid, cmd in alive.items())
    path = DVC_DIR / "lock"
    return "DVC" if path.is_file() and _is_held(path) else ""

"""Atomic writes, csv and JSON; and errors that list every fault of a file.

This module imports nothing from clipzoo.
"""

import csv
import difflib
import errno
import glob
import hashlib
import io
import json
import os
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

SHOWN = 20
"""The largest number of faults that one error lists."""

SYNC_THREADS = 16
"""How many files `wait_for_disk` waits for at once."""

MEMORY_TEXTS = ("DefaultCPUAllocator: can't alloc", "unable to mmap", "memory (os error 12)")
"""Parts of the messages of torch, mmap and safetensors when memory runs out."""


class ListError(ValueError):
    """A list, annotation or manifest file is invalid; the message names every bad line."""


Fault = Callable[[str], Exception]
"""The class of an error, or a function that makes an error of a message."""


class NumberError(ValueError):
    """A value to write is not a finite number; the message names the file."""


class DiskError(OSError):
    """A file cannot be written because the disk is full or a limit is reached; the message names
    the file and the space."""


@contextmanager
def replacing(
    path: str | Path, *, num_bytes: int | None = None, durable: bool = True, sweep: bool = True
) -> Iterator[Path]:
    """Yield a path to write to; rename that file to `path` when the block ends without an error.

    So `path` is always either the old file or the complete new one. Its folder is created if
    missing. On any error (disk full, interrupt) the partial file is removed; that of a killed
    process is removed by the next one that writes `path`. Files that DVC links from its cache are
    read-only, but can be replaced.

    Args:
        num_bytes: the size of the file, for the message of a full disk; None = unknown.
        durable: wait for the disk before and after the rename, so that a power failure, too, leaves
            the old or the complete new file. Takes about 10 ms.
        sweep: remove what killed processes left of this file, for which its folder is listed.
            Without it, writing many files of one folder takes time linear in their number.

    Yields:
        A path in the same folder that no other process uses.

    Raises:
        DiskError: the disk is full.
    """
    path = Path(path)
    # The machine is in the name, because machines that share a folder may have equal process ids.
    prefix = f"{path.name}.{os.uname().nodename}."
    part = path.with_name(f"{prefix}{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for other in path.parent.glob(f"{glob.escape(prefix)}*.part") if sweep else ():
            pid = other.name[len(prefix) : -len(".part")]
            if pid.isdecimal() and not process_exists(int(pid)):
                _remove(other)
        yield part
        if durable:
            _sync(part)
        part.replace(path)
    except BaseException as error:
        written = part.stat().st_size if part.is_file() else 0
        with suppress(OSError):
            _remove(part)
        _raise_disk_error(error, path, num_bytes, written)
        raise
    if durable:
        _sync(path.parent)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """`replacing` for a folder, which is not durable.

    A process that is killed meanwhile leaves the old folder, or none, never a mixture of both.
    """
    with replacing(path, durable=False) as part:
        part.mkdir()
        yield part
        shutil.rmtree(path, ignore_errors=True)  # a rename replaces only an empty folder


@contextmanager
def named_disk_errors(path: str | Path) -> Iterator[None]:
    """Raise DiskError if the disk is full in a block that writes `path`, a file or folder."""
    try:
        yield
    except Exception as error:
        _raise_disk_error(error, Path(path), None, 0)
        raise


def process_exists(pid: int) -> bool:
    """Whether this machine has a process of this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        pass
    return True


def _remove(part: Path) -> None:
    if part.is_dir():
        shutil.rmtree(part)
    else:
        part.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems cannot do this for a folder, and need not.
        if error.errno != errno.EINVAL or not path.is_dir():
            raise
    finally:
        os.close(handle)


def wait_for_disk(paths: Collection[Path]) -> None:
    """Wait until the contents of files, and then their names, are on the disk.

    They are waited for at the same time, because a file system writes what several processes or
    threads wait for together: 2,000 files took 0.3 s instead of 7 s one after the other.
    """
    with ThreadPoolExecutor(SYNC_THREADS) as pool:
        list(pool.map(_sync, paths))
    for folder in {path.parent for path in paths}:
        _sync(folder)


def _raise_disk_error(
    error: BaseException, path: Path, num_bytes: int | None, written: int
) -> None:
    """Raise DiskError if a full disk caused `error`; `written` bytes have been removed again."""
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    cause, code = error, None
    while cause is not None and code is None:
        # Errors of safetensors and ffmpeg have only the text.
        number, text = getattr(cause, "errno", None), str(cause)
        code = next((c for c in codes if c == number or os.strerror(c) in text), None)
        cause = cause.__cause__ or cause.__context__
    if code is None:
        return
    needed = "" if num_bytes is None else f"it needs {_megabytes(num_bytes)}, and "
    if num_bytes is None and written:
        needed = f"it needs more than the {_megabytes(written)} that were written, and "
    folder = path.absolute()
    while not folder.exists():
        folder = folder.parent
    space = os.statvfs(folder)
    free = f"{_megabytes(space.f_bavail * space.f_frsize)} are free"
    if space.f_files and not space.f_favail:
        free += " (but no inode: there are too many files)"
    advice = {
        errno.ENOSPC: "free some space there",
        errno.EDQUOT: "free some of your quota there (`quota -s`)",
        errno.EFBIG: "raise the limit on the size of files (`ulimit -f`)",
    }
    raise DiskError(
        f"{path}: cannot be written ({os.strerror(code)}): {needed}{free}; {advice[code]} and run "
        "the same command again"
    ) from error


def is_of_memory(error: Exception) -> bool:
    """Whether an error of Python, torch or safetensors says that this machine's memory ran out."""
    return isinstance(error, MemoryError) or any(text in str(error) for text in MEMORY_TEXTS)


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"


def write_json(values: Mapping[str, object], path: str | Path) -> None:
    """Write a mapping as indented JSON, keeping the order of its keys; NumberError if a number is
    not finite."""
    try:
        text = json.dumps(dict(values), indent=2, allow_nan=False, ensure_ascii=False)
    except ValueError as error:
        raise NumberError(f"{path}: a value is not finite: {dict(values)}") from error
    with replacing(path) as part:
        part.write_text(text + "\n", encoding="utf-8")


def file_sha256(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def json_sha256(values: Mapping[str, object]) -> str:
    """The SHA-256 of a mapping as JSON, which does not depend on the order of its keys."""
    return hashlib.sha256(json.dumps(dict(values), sort_keys=True).encode()).hexdigest()


def write_metrics(path: str | Path, metrics: Mapping[str, float | int | str]) -> None:
    """Write a metrics file: flat JSON, keeping the order of the keys, with numbers rounded to 1e-6.

    More digits than that are noise of the last sum, which differs between processors.

    Raises:
        NumberError: a value is neither a finite number nor a string.
    """
    for key, value in metrics.items():
        if not isinstance(value, (int, float, str)):
            raise NumberError(f"{path}: {key} is a {type(value).__name__}; allowed: number, string")
    write_json({k: round(v, 6) if isinstance(v, float) else v for k, v in metrics.items()}, path)


def write_csv(columns: Sequence[str], rows: Iterable[Sequence[object]], path: str | Path) -> None:
    """Write a csv file with a header, in UTF-8 with Unix line endings."""
    # Not durable: there may be many, and DVC notices a file that is damaged and writes it again.
    with (
        replacing(path, durable=False) as part,
        part.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def require_regular(path: str | Path, error: Fault = ListError) -> None:
    """Raise `error` unless a path is a regular file, or a link to one.

    To open a named pipe, for example, would be to wait for its other end forever.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as cause:
        raise error(f"{path}: cannot be read ({getattr(cause, 'strerror', cause)})") from cause
    if not stat.S_ISREG(mode):
        raise error(f"{path}: is {file_kind(mode)}; allowed: a regular file")


def file_kind(mode: int) -> str:
    """What a path is, for messages, according to its `os.stat(path).st_mode`."""
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    kinds |= {stat.S_IFBLK: "a device", stat.S_IFCHR: "a device", stat.S_IFREG: "a regular file"}
    return kinds.get(stat.S_IFMT(mode), "a special file")


def read_text(path: str | Path, error: Fault = ListError) -> str:
    """The text of a file; raises `error` if it is missing, not regular or not UTF-8.

    A byte order mark, with which Excel begins its csv files, is left out.
    """
    require_regular(path, error)
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as cause:
        raise error(f"{path}: cannot be read ({cause.strerror})") from cause
    except UnicodeDecodeError as cause:
        raise error(f"{path}: is not UTF-8 ({cause})") from cause


def read_json(path: str | Path, error: Fault = ListError) -> object:
    """The content of a JSON file.

    Raises:
        error: as `read_text`; or it is not JSON, or has a key twice, or text that is not Unicode.
    """
    text = read_text(path, error)
    try:
        values = json.loads(text, object_pairs_hook=_with_keys_once)
        if "\\ud" in text.lower():
            json.dumps(values, ensure_ascii=False).encode()  # fails for half of a character
        return values
    except (ValueError, RecursionError) as cause:
        raise error(f"{path}: is not JSON ({cause})") from cause


def _with_keys_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = sorted(key for key, count in counts.items() if count > 1)
        raise ValueError(f"keys that are set twice: {', '.join(map(repr, twice[:5]))}; keep one")
    return values


def csv_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of every line of a csv file; an empty line has no fields.

    Raises:
        ListError: as `read_text`, or a line has a NUL byte or a field that is too long.
    """
    text = read_text(path)
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ListError(f"{path}:{line}: found a NUL byte; allowed: text; write the file again")
    # io.StringIO ends lines where csv does; str.splitlines also ends them at other characters.
    reader = csv.reader(io.StringIO(text, newline=""))
    first = 1
    try:
        for fields in reader:
            yield reader.line_num, fields
            first = reader.line_num + 1
    except csv.Error as error:
        raise ListError(
            f"{path}:{first}: {error}; allowed: {csv.field_size_limit()} characters in a field; a "
            'quote (") that is not closed joins all later lines to one field'
        ) from error


def read_rows(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> list[list[str]]:
    """The rows of a csv file with a header, each [line number, values of `columns` + `optional`].

    The columns may be in any order. Values of missing optional columns are ''. Empty lines are
    skipped.

    Raises:
        ListError: as `csv_lines`; or a column is missing or unknown, or lines have a wrong number
            of fields.
    """
    lines = csv_lines(path)
    _, header = next(lines, (1, []))
    allowed = (*columns, *optional)
    if not set(columns) <= set(header) <= set(allowed) or len(set(header)) != len(header):
        more = f" and optionally {','.join(optional)}" if optional else ""
        found = ",".join(header)[:200]
        raise ListError(f"{path}:1: found header {found!r}; allowed: {','.join(columns)}{more}")
    rows, faults = [], []
    for line, fields in lines:
        if len(fields) == len(header):
            named = dict(zip(header, fields, strict=True))
            rows.append([str(line), *(named.get(name, "") for name in allowed)])
        elif fields:
            needed = f"{len(header)} ({','.join(header)})"
            faults.append(f"{path}:{line}: found {len(fields)} fields; allowed: {needed}")
    raise_all(f"{path}: {len(faults)} bad lines", faults)
    return rows


def near(value: object, allowed: Iterable[object]) -> str:
    """A hint for an error message: " (did you mean x or y?)", or "" if nothing is close."""
    words = dict.fromkeys(str(a) for a in allowed)  # each once
    close = difflib.get_close_matches(str(value), words, n=2)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


JOINERS = "\u200c\u200d"
"""Two invisible characters that the words of some scripts need."""


def shown(text: str, kept: str = "") -> str:
    """Text of others in which characters that nobody sees, or that a terminal obeys, are escaped.

    Those in `kept` stay, such as ends of lines.

    Example: a name with the code that clears the screen becomes `\\x1b[2Jname`.
    """
    return "".join(
        letter
        if letter.isprintable() or letter in JOINERS + kept
        else letter.encode("unicode_escape").decode()
        for letter in text
    )


def few(items: Sequence[str], most: int = 3, separator: str = ", ") -> str:
    """The first items, for a message that also says how many there are: "a, b, c, ..."."""
    return separator.join([*map(shown, items[:most]), *["..."] * (len(items) > most)])


def raise_all(title: str, faults: Sequence[str], error: Fault = ListError) -> None:
    """Raise one error that lists the first SHOWN faults; do nothing if there are none."""
    if faults:
        more = [f"... and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
        raise error("\n  ".join([title, *faults[:SHOWN], *more]))

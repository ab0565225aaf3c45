"""Atomic writes, csv and JSON; and errors that list every fault of a file.

Imports nothing from clipzoo.
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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

SHOWN = 20
"""Largest number of faults that one error lists."""

MEMORY_TEXTS = ("DefaultCPUAllocator: can't alloc", "unable to mmap", "memory (os error 12)")
"""What errors of torch, of mmap and of safetensors say where memory runs out."""


class ListError(ValueError):
    """A list, annotation or manifest file is invalid; the message names every bad line."""


Fault = Callable[[str], Exception]
"""The class of an error, or what makes one of a message."""


class NumberError(ValueError):
    """A value to write is not a finite number; the message names the file."""


class DiskError(OSError):
    """A file cannot be written because the disk is full or a limit is reached; the message names
    the file and the space."""


@contextmanager
def replacing(
    path: str | Path, *, num_bytes: int | None = None, durable: bool = True
) -> Iterator[Path]:
    """Yield a path to write to; rename that file to `path` when the block ends without an error.

    So `path` is always either the old file or the complete new one. On any error (disk full,
    interrupt) the partial file is removed; that of a killed process is removed by the next one
    that writes `path`. Files that DVC links from its cache are read-only, but can be replaced.

    Args:
        path: the file; its folder is created if missing.
        num_bytes: size of the file, for the message of a full disk; None = unknown.
        durable: wait for the disk before and after the rename, so that a power failure leaves the
            old or the complete new file too. Takes about 10 ms.

    Yields:
        a path in the same folder that no other process uses.

    Raises:
        DiskError: the disk is full.
    """
    path = Path(path)
    # The machine is named too, because machines that share a folder may have equal process ids.
    prefix = f"{path.name}.{os.uname().nodename}."
    part = path.with_name(f"{prefix}{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_overs(path.parent, prefix)
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
    """Yield a new folder to write to; it becomes `path` when the block ends without an error.

    A process that is killed meanwhile leaves the old folder, or none, never a mixture of both. Not
    durable, unlike files.

    Raises:
        DiskError: the disk is full.
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
    except PermissionError:  # of another user
        pass
    return True


def _remove_left_overs(folder: Path, prefix: str) -> None:
    """Remove the partial files `<prefix><pid>.part` of this machine's dead processes."""
    for part in folder.glob(f"{glob.escape(prefix)}*.part"):
        pid = part.name[len(prefix) : -len(".part")]
        if pid.isdecimal() and not process_exists(int(pid)):
            _remove(part)


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


def _raise_disk_error(
    error: BaseException, path: Path, num_bytes: int | None, written: int
) -> None:
    """Raise DiskError if `error` is one of a full disk; `written` bytes have been removed again."""
    code = _disk_code(error)
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


def _disk_code(error: BaseException | None) -> int | None:
    """The error number of a full disk behind an error or one of its causes, or None."""
    while error is not None:
        for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            # Errors of safetensors and ffmpeg have the text alone.
            if getattr(error, "errno", None) == code or os.strerror(code) in str(error):
                return code
        error = error.__cause__ or error.__context__
    return None


def is_of_memory(error: Exception) -> bool:
    """Whether this machine's memory ran out: errors of Python, torch and safetensors."""
    return isinstance(error, MemoryError) or any(text in str(error) for text in MEMORY_TEXTS)


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"


def write_json(values: Mapping[str, object], path: str | Path) -> None:
    """Write a mapping as indented JSON, keeping the order of its keys.

    Raises:
        NumberError: a number is not finite.
    """
    try:
        text = json.dumps(dict(values), indent=2, allow_nan=False, ensure_ascii=False)
    except ValueError as error:
        raise NumberError(f"{path}: a value is not finite: {dict(values)}") from error
    with replacing(path) as part:
        part.write_text(text + "\n", encoding="utf-8")


def file_sha256(path: str | Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()


def json_sha256(values: Mapping[str, object]) -> str:
    """SHA-256 of a mapping's values as JSON, whatever the order of its keys."""
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
    # Not durable: there may be many, and DVC would notice one that changed and write it again.
    with (
        replacing(path, durable=False) as part,
        part.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def require_regular(path: str | Path, error: Fault = ListError) -> None:
    """Raise `error` unless a path is a regular file, or a link to one.

    Whoever opens a named pipe waits for its other end forever.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as cause:
        raise error(f"{path}: cannot be read ({getattr(cause, 'strerror', cause)})") from cause
    if not stat.S_ISREG(mode):
        raise error(f"{path}: is {file_kind(mode)}; allowed: a regular file")


def file_kind(mode: int) -> str:
    """What a path is, for messages.

    Args:
        mode: `st_mode` of os.stat.
    """
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    kinds |= {stat.S_IFBLK: "a device", stat.S_IFCHR: "a device", stat.S_IFREG: "a regular file"}
    return kinds.get(stat.S_IFMT(mode), "a special file")


def read_text(path: str | Path, error: Fault = ListError) -> str:
    """The text of a UTF-8 file; raises `error` if it is missing, not regular or not UTF-8."""
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
        error: as `read_text`; or it is not JSON, or has a key twice or text that is not Unicode.
    """
    text = read_text(path, error)
    try:
        values = json.loads(text, object_pairs_hook=_with_keys_once)
        if "\\ud" in text.lower():
            json.dumps(values, ensure_ascii=False).encode()  # halves of a character fail here
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
    # io.StringIO ends lines as csv does; splitlines would do so at other characters too.
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
    """Rows of a csv file with a header, each as [line number, values of `columns` + `optional`].

    Missing optional columns give empty values. Empty lines are skipped.

    Raises:
        ListError: as `csv_lines`; or a column is missing or unknown, or lines have a wrong number
            of fields.
    """
    lines = csv_lines(path)
    _, header = next(lines, (1, []))
    allowed = (*columns, *optional)
    if not set(columns) <= set(header) <= set(allowed) or len(set(header)) != len(header):
        allowed_text = ",".join(columns)
        if optional:
            allowed_text += f" and optionally {','.join(optional)}"
        found = ",".join(header)[:200]
        raise ListError(f"{path}:1: found header {found!r}; allowed: {allowed_text}")
    rows, faults = [], []
    for line, fields in lines:
        if not fields:
            continue
        if len(fields) != len(header):
            faults.append(
                f"{path}:{line}: found {len(fields)} fields; "
                f"allowed: {len(header)} ({','.join(header)})"
            )
            continue
        named = dict(zip(header, fields, strict=True))
        rows.append([str(line), *(named.get(name, "") for name in allowed)])
    raise_all(f"{path}: {len(faults)} bad lines", faults)
    return rows


def near(value: object, allowed: Iterable[object]) -> str:
    """Hint for an error message: " (did you mean x or y?)", or "" if nothing is close."""
    close = difflib.get_close_matches(str(value), [str(a) for a in allowed], n=2)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


JOINERS = "\u200c\u200d"
"""Some scripts spell words with these two."""


def shown(text: str, kept: str = "") -> str:
    """Text in which characters that nobody sees, or that a terminal obeys, are escaped.

    Args:
        text: text of a file that others wrote.
        kept: characters that stay, such as ends of lines.

    Example: a name with the code that clears the screen becomes `\\x1b[2Jname`.
    """
    return "".join(
        letter
        if letter.isprintable() or letter in JOINERS + kept
        else letter.encode("unicode_escape").decode()
        for letter in text
    )


def few(items: Sequence[str], most: int = 3, separator: str = ", ") -> str:
    """The first items, as `shown`, for a message that gives their number: "a, b, c, ..."."""
    return separator.join([*map(shown, items[:most]), *["..."] * (len(items) > most)])


def raise_all(title: str, faults: Sequence[str], error: Fault = ListError) -> None:
    """Raise one error that lists the faults (the first 20); do nothing if there are none."""
    if faults:
        more = [f"... and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
        raise error("\n  ".join([title, *faults[:SHOWN], *more]))

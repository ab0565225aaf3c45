"""Whether the files of raw videos are those in their manifest."""

import stat
from pathlib import Path

from clipzoo.data.index import StoreError
from clipzoo.files import file_kind


class SourceError(StoreError):
    """A raw video is not the one in the manifest, which has its size."""


def check_size(path: Path, size: int) -> None:
    """Raise StoreError unless a path is a regular file, or a link to one, of `size` bytes.

    It is a SourceError if there is another file.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):  # a decoder would wait for a named pipe forever
        raise SourceError(f"{path}: is {file_kind(status.st_mode)}; allowed: a regular file")
    if status.st_size != size:
        raise SourceError(
            f"{path}: has {status.st_size} bytes, its manifest says {size}: it changed since "
            "`clipzoo scan`; scan again"
        )

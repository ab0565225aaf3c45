"""A request's body, read into a file within limits of size and time."""

import io
import socket
import time
from pathlib import Path

IDLE_SECONDS = 20.0
"""A client that sends nothing for this time is given up."""
HEADER_SECONDS = 20.0
"""The time for a request's line and headers."""
SLOWEST_BYTES = 64 * 1024
"""An upload may take HEADER_SECONDS and a second for each of these."""
DRAIN_SECONDS = 5.0
"""How long a refused body is read and dropped, so that the client reads why it was refused."""
BLOCK_BYTES = 1 << 20


class UploadError(ValueError):
    """A body is refused; `status` is that of the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class TimedReader(io.RawIOBase):
    """What a client sends, until a deadline: a timeout of each read alone would let a client that
    sends a byte now and then stay forever."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection = connection
        self.allow(seconds)

    def allow(self, seconds: float) -> None:
        """Move the deadline to `seconds` from now."""
        self._deadline = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # a writable buffer, which has no type before Python 3.12
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("too slow")
        self._connection.settimeout(min(left, IDLE_SECONDS))
        return self._connection.recv_into(buffer)


def body_length(length: str | None, encoding: str | None, max_bytes: int) -> int:
    """The size of a body (bytes) according to its headers Content-Length and Transfer-Encoding.

    Raises:
        UploadError: there is none, or it is larger than `max_bytes`.
    """
    if encoding is not None or length is None:
        raise UploadError(411, "the request has no Content-Length; send the file as the body")
    # Digits alone: int() would take "+1", "1_0" and digits of other scripts.
    if not (length.isascii() and length.isdigit() and len(length) < 20):
        raise UploadError(400, f"Content-Length: found {length[:40]!r}; allowed: a number of bytes")
    if (size := int(length)) > max_bytes:
        raise UploadError(
            413,
            f"the file has {size / 1e6:,.1f} MB; allowed: {max_bytes / 1e6:,.1f} MB; cut or "
            "compress the video, or start the server with a larger --max-mb",
        )
    if size == 0:
        raise UploadError(400, "the file is empty; choose a video")
    return size


def receive(reader: io.BufferedIOBase, timed: TimedReader, size: int, path: Path) -> None:
    """Write a body of `size` bytes to a file.

    Raises:
        UploadError: it is too slow.
        ConnectionError: the client left.
        OSError: the disk is full.
    """
    timed.allow(HEADER_SECONDS + size / SLOWEST_BYTES)
    left = size
    with path.open("xb") as file:
        while left:
            try:
                block = reader.read1(min(left, BLOCK_BYTES))
            except TimeoutError as error:
                raise UploadError(
                    408,
                    f"the upload is too slow: {size - left:,} of {size:,} bytes arrived; nothing "
                    f"for {IDLE_SECONDS:.0f} s, or less than {SLOWEST_BYTES // 1024} KiB a second",
                ) from error
            if not block:
                raise ConnectionError(f"the client left after {size - left:,} of {size:,} bytes")
            file.write(block)
            left -= len(block)


def drain(connection: socket.socket) -> None:
    """Read and drop what a client still sends, for a while, after the answer.

    To close a connection with bytes that nobody read resets it, and the client may lose the answer.
    """
    deadline = time.monotonic() + DRAIN_SECONDS
    try:
        connection.shutdown(socket.SHUT_WR)
        while (left := deadline - time.monotonic()) > 0:
            connection.settimeout(left)
            if not connection.recv(BLOCK_BYTES):
                return
    except OSError:
        return  # it left

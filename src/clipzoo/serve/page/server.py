"""The page's server: the standard library's, with what a browser and hostile clients need."""

import ipaddress
import re
import shutil
import socket
import socketserver
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

from clipzoo.config import ConfigError
from clipzoo.files import shown
from clipzoo.serve.page.handler import Handler
from clipzoo.serve.page.turns import Turns

if TYPE_CHECKING:
    from clipzoo.serve.model import VideoModel

MOST_CONNECTIONS = 64
MOST_PREDICTIONS = 8
"""Predictions that run or wait, each with a file on the disk."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a page is served."""

    host: str
    """The name or address to listen at."""
    port: int
    """0 = any free one."""
    max_bytes: int
    """The largest file."""
    options: Sequence[str] = ()
    """Words of the command line that name the model and the device."""


class PageServer(ThreadingHTTPServer):
    """Listens once it is made; `serve_forever` answers, for which it needs its `model`. Use it in a
    `with` block, which removes the temporary files.

    Raises:
        ConfigError: the host or port cannot be listened at.
    """

    daemon_threads = True
    request_queue_size = MOST_CONNECTIONS
    model: "VideoModel"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.turns = Turns(MOST_PREDICTIONS)
        self._connections = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self._closed = False
        if not settings.host:  # would be every address
            raise ConfigError("--host: found ''; allowed: an address, or 0.0.0.0 for all of them")
        try:
            found = socket.getaddrinfo(
                settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            self.address_family, *_, address = found[0]
            super().__init__(address[:2], Handler)  # pyright: ignore[reportArgumentType]
        except (OSError, UnicodeError) as error:
            raise _address_error(settings, error) from error
        self.folder = Path(tempfile.mkdtemp(prefix="clipzoo-serve-"))

    def server_bind(self) -> None:
        # HTTPServer's own looks the host's name up, which may take seconds without a network.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.settings.host, self.server_address[1]

    def server_close(self) -> None:
        super().server_close()
        self._closed = True
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def address(self) -> str:
        """Where a browser finds the page."""
        host = str(self.server_address[0])
        if ipaddress.ip_address(host.partition("%")[0]).is_unspecified:
            host = socket.gethostname()
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}/"

    @property
    def is_local(self) -> bool:
        """Whether this machine alone reaches it."""
        return ipaddress.ip_address(str(self.server_address[0]).partition("%")[0]).is_loopback

    def allows_host(self, header: str | None) -> bool:
        """Whether a request's Host header names this server.

        A page of another site can make its own name lead to this address (DNS rebinding); the
        browser then sends that name. An address cannot be made to lead elsewhere. Any port is
        allowed, because a tunnel (`ssh -L`) has one of its own.
        """
        match = re.fullmatch(r"(\[[0-9a-f:.]+\]|[^:\[\]/@]+)(:\d{1,5})?", (header or "").lower())
        if match is None:
            return False
        name = match[1].strip("[]")
        names = {"localhost", self.settings.host.lower()}
        if not self.is_local:
            names.add(socket.gethostname().lower())
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return name in names
        return address.is_loopback or not self.is_local

    def process_request(self, request, client_address) -> None:
        if not self._connections.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except Exception:  # no thread was started; after Ctrl-C there may be one, which releases it
            self._connections.release()
            raise

    def process_request_thread(self, request, client_address) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request, client_address) -> None:
        """A client that left is no error; anything else is our own, and its traceback is shown."""
        if not self._closed and not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            traceback.print_exc()


def _address_error(settings: Settings, error: OSError | UnicodeError) -> ConfigError:
    """What to do about a host and port at which nothing can listen."""
    reason = getattr(error, "strerror", None) or str(error)
    if isinstance(error, (socket.gaierror, UnicodeError)):
        return ConfigError(
            f"--host: found {shown(settings.host)!r}, which is not an address of this machine "
            f"({reason}); allowed: 127.0.0.1, ::1, or an address of a network interface"
        )
    return ConfigError(
        f"--host {settings.host} --port {settings.port}: cannot be listened at ({reason}); give "
        "another port, or 0 for any that is free"
    )


@contextmanager
def serving(model: "VideoModel", settings: Settings) -> Iterator[PageServer]:
    """A server that answers in a thread during the block."""
    with PageServer(settings) as server:
        server.model = model
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()

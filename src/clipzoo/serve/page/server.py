"""The page's server: the standard library's, with what a browser and hostile clients need.

    GET /, /page.css, /page.js    the page
    GET /about                    the model and the limits, JSON
    POST /predict?name=&classes=  the body is the video; the answer is JSON lines (`answers`)

HTTP/1.0: each connection has one request, and an answer ends where its connection does. The last
line of a complete answer has the key `done` or `error`.
"""

import io
import ipaddress
import json
import re
import shutil
import socket
import socketserver
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from clipzoo.config import ConfigError
from clipzoo.files import named_disk_errors, shown
from clipzoo.serve.page.answers import LONG_SECONDS, TOP, Request, answer, asked_classes
from clipzoo.serve.page.turns import BusyError, Turns
from clipzoo.serve.page.upload import (
    HEADER_SECONDS,
    TimedReader,
    UploadError,
    body_length,
    drain,
    receive,
)

if TYPE_CHECKING:
    from clipzoo.serve.model import VideoModel

FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
MOST_CONNECTIONS = 64
MOST_PREDICTIONS = 8
"""Predictions that run or wait, each with a file on the disk."""
WRITE_SECONDS = 30.0
"""A client that reads nothing for this time is given up."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""The page may load its own two files and nothing else, and no text can become a script or HTML."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


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
    """Listens once it is made; `serve_forever` answers. Use it in a `with` block, which removes the
    temporary files.

    Raises:
        ConfigError: the host or port cannot be listened at.
    """

    daemon_threads = True
    request_queue_size = MOST_CONNECTIONS

    def __init__(self, model: "VideoModel", settings: Settings) -> None:
        self.model, self.settings = model, settings
        self.turns = Turns(MOST_PREDICTIONS)
        self._connections = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self._closed = False
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
        except BaseException:
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


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: PageServer  # pyright: ignore[reportIncompatibleVariableOverride]
    server_version, sys_version = "clipzoo", ""
    error_content_type = "application/json"

    def setup(self) -> None:
        super().setup()
        self._timed = TimedReader(self.connection, HEADER_SECONDS)
        self.rfile.close()
        self.rfile = io.BufferedReader(self._timed)

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if not self._is_for_us():
            return
        if path in FILES:
            name, kind = FILES[path]
            content = resources.files("clipzoo.serve.page").joinpath(name).read_bytes()
            self._reply(200, content, kind)
        elif path == "/about":
            self._reply(200, _json(self._about()))
        else:
            self.send_error(404, f"there is no {shown(path[:80])}; the page is at /")

    def do_POST(self) -> None:
        if not self._is_for_us(posted=True):
            return
        url = urlsplit(self.path)
        if url.path != "/predict":
            self.send_error(404, f"there is no {shown(url.path[:80])}; POST a video to /predict")
            return
        query = {key: values[0] for key, values in parse_qs(url.query, True).items()}
        name = re.sub(r"[/\\]", "_", query.get("name", ""))[:200] or "video"
        names = asked_classes(query.get("classes"), self.server.model.class_names)
        suffix = re.fullmatch(r".*(\.[a-z0-9]{1,5})", name.lower())
        folder = Path(tempfile.mkdtemp(dir=self.server.folder))
        path = folder / f"video{suffix[1] if suffix else ''}"
        try:
            with self.server.turns.admitted():
                self._receive(path)
                self._predict(Request(path=path, name=name, class_names=names))
        except BusyError as error:
            self.send_error(503, str(error))
        except UploadError as error:
            self.send_error(error.status, str(error))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _receive(self, path: Path) -> None:
        headers, most = self.headers, self.server.settings.max_bytes
        size = body_length(headers["Content-Length"], headers["Transfer-Encoding"], most)
        try:
            with named_disk_errors(path):
                receive(self.rfile, self._timed, size, path)
        except (ConnectionError, TimeoutError):
            raise
        except OSError as error:
            raise UploadError(507, str(error)) from error

    def _predict(self, request: Request) -> None:
        self._begin(200, "application/x-ndjson")
        tell, start = self._tell, time.monotonic()
        try:
            with self.server.turns.turn(lambda before: tell({"waiting": before})):
                waited = time.monotonic() - start
                tell({"running": True})
                options = self.server.settings.options
                with closing(answer(self.server.model, request, options)) as lines:
                    for line in lines:
                        tell(line)
            seconds = time.monotonic() - start - waited
            tell({"done": {"seconds": seconds, "waited": waited}})
            outcome = f"{seconds:.1f} s"
        except ConnectionError:
            outcome = "the client left"
        except (ValueError, OSError) as error:
            outcome = str(error).replace(str(request.path), request.name)
            tell({"error": outcome})
        except Exception:
            outcome = "an error of this program; its terminal shows it"
            traceback.print_exc()
            tell({"error": outcome})
        title = "" if outcome.startswith(request.name) else f"{request.name}: "
        print(shown(title + outcome), file=sys.stderr, flush=True)

    def _tell(self, line: dict[str, Any]) -> None:
        """Write a line of an answer; ConnectionError if the client has left."""
        self.connection.settimeout(0)
        try:
            if self.connection.recv(1, socket.MSG_PEEK) == b"":
                raise ConnectionError("the client left")
        except BlockingIOError:
            pass  # it is there and says nothing
        self.connection.settimeout(WRITE_SECONDS)
        try:
            self.wfile.write(_json(line) + b"\n")
        except TimeoutError as error:
            raise ConnectionError("the client reads nothing") from error

    def _about(self) -> dict[str, Any]:
        model = self.server.model
        return {
            "recipe": model.config.recipe,
            "arch": model.config.clip.arch,
            "class_names": model.class_names,
            "is_open": model.is_open,
            "max_bytes": self.server.settings.max_bytes,
            "long_seconds": LONG_SECONDS,
            "top": TOP,
        }

    def _is_for_us(self, *, posted: bool = False) -> bool:
        """Whether a request comes from our page or a program; otherwise it is refused."""
        host, origin = self.headers["Host"], self.headers["Origin"]
        if not self.server.allows_host(host):
            self.send_error(
                421,
                f"Host: found {shown(str(host)[:80])!r}; allowed: localhost, or the address that "
                "the server printed",
            )
            return False
        # Browsers send an Origin with every POST; programs send none.
        if posted and origin is not None and origin.lower() != f"http://{host}".lower():
            self.send_error(403, f"Origin: found {shown(origin[:80])!r}; allowed: this page")
            return False
        return True

    def _begin(self, status: int, kind: str) -> None:
        self.connection.settimeout(WRITE_SECONDS)
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()

    def _reply(self, status: int, content: bytes, kind: str = "application/json") -> None:
        self._begin(status, kind)
        self.wfile.write(content)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer with `{"error": message}`, and read what the client is still sending."""
        try:
            self._reply(code, _json({"error": message or "not allowed"}))
        finally:
            drain(self.connection)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: what was predicted is printed, and what clients send is not."""


def _json(value: object) -> bytes:
    return json.dumps(value, allow_nan=False).encode("ascii")


@contextmanager
def serving(model: "VideoModel", settings: Settings) -> Iterator[PageServer]:
    """A server that answers in a thread during the block."""
    with PageServer(model, settings) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()

"""One request of the page, or of a program.

    GET /, /page.css, /page.js    the page
    GET /about                    the model and the limits, JSON
    POST /predict?name=&classes=  the body is the video; the answer is JSON lines (`answers`)

HTTP/1.0: each connection has one request, and an answer ends where its connection does. The last
line of a complete answer has the key `done` or `error`.
"""

import io
import json
import re
import secrets
import shutil
import sys
import time
import traceback
from contextlib import closing, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from clipzoo.files import is_of_memory, named_disk_errors, shown
from clipzoo.serve.page.answers import Request, answer, asked_classes
from clipzoo.serve.page.leaving import ending_decoders, has_left
from clipzoo.serve.page.turns import BusyError
from clipzoo.serve.page.upload import (
    HEADER_SECONDS,
    SLOWEST_BYTES,
    TimedReader,
    UploadError,
    body_length,
    drain,
    receive,
)

if TYPE_CHECKING:
    from clipzoo.serve.page.server import PageServer

FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
WRITE_SECONDS = 30.0
"""A client may take this time to read a line, and a second for each SLOWEST_BYTES."""
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


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: "PageServer"  # pyright: ignore[reportIncompatibleVariableOverride]
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
        name = re.sub(r"[/\\\x00-\x1f\x7f]", "_", query.get("name", ""))[:200] or "video"
        names = asked_classes(query.get("classes"), self.server.model.class_names)
        suffix = re.fullmatch(r".*(\.[a-z0-9]{1,5})", name.lower())  # ffmpeg looks at it
        token = secrets.token_hex(8)  # is in no message but as the name of this file
        path = self.server.folder / token / f"{token}{suffix[1] if suffix else ''}"
        try:
            with self.server.turns.admitted():
                self._receive(path)
                self._predict(Request(path=path, name=name, class_names=names))
        except BusyError as error:
            self.send_error(503, str(error))
        except UploadError as error:
            self.send_error(error.status, str(error))
        finally:
            shutil.rmtree(path.parent, ignore_errors=True)

    def _receive(self, path: Path) -> None:
        headers, most = self.headers, self.server.settings.max_bytes
        size = body_length(headers["Content-Length"], headers["Transfer-Encoding"], most)
        try:
            with named_disk_errors(path.parent):
                path.parent.mkdir()
                receive(self.rfile, self._timed, size, path)
        except (ConnectionError, TimeoutError):
            raise
        except OSError as error:
            raise UploadError(507, str(error)) from error

    def _predict(self, request: Request) -> None:
        self._begin(200, "application/x-ndjson")
        start, pictures = time.monotonic(), {}
        try:
            with self.server.turns.turn(lambda before: self._tell({"waiting": before})):
                waited = time.monotonic() - start
                self._tell({"running": True})
                lines = answer(self.server.model, request, self.server.settings.options)
                with ending_decoders(self.connection, request.path), closing(lines):
                    for line in lines:
                        if "pictures" in line:  # these may take long to send: others may begin
                            pictures = line
                        else:
                            self._tell(line)
            seconds = time.monotonic() - start - waited
            self._tell(pictures)
            self._tell({"done": {"seconds": seconds, "waited": waited}})
            outcome = f"{seconds:.1f} s"
        except Exception as error:
            outcome = self._failed(error, request)
        title = "" if outcome.startswith(request.name) else f"{request.name}: "
        print(shown(title + outcome), file=sys.stderr, flush=True)

    def _failed(self, error: Exception, request: Request) -> str:
        """Why there is no prediction, which the client is told if it is still there."""
        if isinstance(error, ConnectionError) or has_left(self.connection):
            return "the client left"
        if isinstance(error, (ValueError, OSError)):
            path = request.path
            names = "|".join(re.escape(text) for text in (str(path), path.name))
            text = re.sub(names, lambda _: request.name, str(error))
        elif is_of_memory(error):
            text = f"there is not enough memory ({error})"
        else:
            text = "an error of this program; its terminal shows it"
            traceback.print_exception(error)
        with suppress(ConnectionError):
            self._tell({"error": text})
        return text

    def _tell(self, line: dict[str, Any]) -> None:
        """Write a line of an answer; ConnectionError if the client has left."""
        if has_left(self.connection):
            raise ConnectionError("the client left")
        content = _json(line) + b"\n"
        self.connection.settimeout(WRITE_SECONDS + len(content) / SLOWEST_BYTES)
        try:
            self.wfile.write(content)
        except TimeoutError as error:
            raise ConnectionError("the client reads too slowly") from error

    def _about(self) -> dict[str, Any]:
        model = self.server.model
        return {
            "recipe": model.config.recipe,
            "arch": model.config.clip.arch,
            "class_names": model.class_names,
            "is_open": model.is_open,
            "max_bytes": self.server.settings.max_bytes,
        }

    def _is_for_us(self, *, posted: bool = False) -> bool:
        """Whether a request comes from our page or a program; otherwise it is refused."""
        host, origin = self.headers["Host"], self.headers["Origin"]
        if not self.server.allows_host(host):
            self.send_error(
                421,
                f"Host: found {'none' if host is None else repr(shown(host[:80]))}; allowed: "
                "localhost, or the address that the server printed",
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
        if code == HTTPStatus.REQUEST_URI_TOO_LONG:
            message = (
                "the address of the request is too long; allowed: class names of 60,000 characters "
                "as sent, about 3,000 English names"
            )
        try:
            self._reply(code, _json({"error": message or "not allowed"}))
        finally:
            drain(self.connection)

    def version_string(self) -> str:
        return "clipzoo"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: what was predicted is printed, and what clients send is not."""


def _json(value: object) -> bytes:
    return json.dumps(value, allow_nan=False).encode("ascii")

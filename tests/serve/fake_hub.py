"""A model hub on this machine: repositories are folders, and each has one commit.

Only what huggingface_hub asks for when it downloads: the headers of a file, then the file.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"
BRANCHES = ("main", "v1", COMMIT)


class FakeHub:
    """A hub that serves the folders ROOT/OWNER/NAME.

    Args:
        root: the folder with the repositories.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.asked = root, list[str]()
        self.url = ""

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for the path of a request."""
        self.asked.append(path)
        owner, name, kind, revision, *rest = (path.strip("/").split("/") + [""] * 4)[:8]
        repository, file = self.root / owner / name, "/".join(filter(None, rest))
        if owner == "gated":
            return 403, {"X-Error-Code": "GatedRepo"}, b""
        if kind != "resolve" or not repository.is_dir():
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        if revision not in BRANCHES:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        if not (repository / file).is_file():
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, b""
        body = (repository / file).read_bytes()
        etag = hashlib.sha256(body).hexdigest()
        return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, body


@contextmanager
def serving(root: Path) -> Iterator[FakeHub]:
    """A hub that answers on a free port of this machine."""
    hub = FakeHub(root)

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            status, headers, body = hub.answer(self.path)
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_GET = do_HEAD

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def use_hub(monkeypatch: pytest.MonkeyPatch, url: str, cache: Path) -> None:
    """Point huggingface_hub to a hub and an empty cache, for the time of a test."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

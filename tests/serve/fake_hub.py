"""A model hub on this machine: repositories are folders, and each has one commit.

Only what huggingface_hub asks for: of a download the headers of a file, then the file; of an upload
a repository, whether the card's front matter is valid, which files are large (none) and a commit.
"""

import base64
import hashlib
import json
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
        self.commits: list[str] = []
        """Their titles."""
        self.refuses_token = ""
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

    def take(self, path: str, token: str, body: bytes) -> tuple[int, dict[str, object]]:
        """Status and content for a POST."""
        self.asked.append(path)
        if not token or token == self.refuses_token:
            return 401, {"error": "Invalid username or password."}
        content = [json.loads(line) for line in body.splitlines()]
        if path == "/api/repos/create":
            name, owner = content[0]["name"], content[0]["organization"]
            self._folder(content[0].get("type", "model"), f"{owner}/{name}").mkdir(
                parents=True, exist_ok=True
            )
            return 200, {"url": f"{self.url}/{owner}/{name}", "id": f"{owner}/{name}"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        _, kind, owner, name, action, *_ = path.strip("/").split("/")
        if action == "preupload":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in content[0]["files"]
            ]
            return 200, {"files": files}
        folder = self._folder(kind.removesuffix("s"), f"{owner}/{name}")
        for line in content:
            if line["key"] == "header":
                self.commits.append(line["value"]["summary"])
            else:
                file = folder / line["value"]["path"]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(base64.b64decode(line["value"]["content"]))
        return 200, {
            "success": True,
            "commitUrl": f"{self.url}/{owner}/{name}/commit/{COMMIT}",
            "commitOid": COMMIT,
        }

    def _folder(self, kind: str, repository: str) -> Path:
        return self.root / ("" if kind == "model" else f"{kind}s") / repository


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

        def do_POST(self) -> None:
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            sent = self.rfile.read(int(self.headers["Content-Length"]))
            status, content = hub.take(self.path.partition("?")[0], token, sent)
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

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

"""A page in Chromium, with a record of all that it requests and of all that goes wrong in it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

# Chromium's sandbox does not start for root, nor in most containers.
OPTIONS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
LOOPBACK = ("127.0.0.1", "localhost", "::1")
REQUIRED = "CLIPZOO_CHROMIUM"
"""Environment variable: `required` makes a test fail, not skip, where Chromium is missing."""


@dataclass
class Record:
    """What happened in a page since it was opened."""

    requests: list[str] = field(default_factory=list)
    """The addresses that it asked for, whether or not an answer came."""
    errors: list[str] = field(default_factory=list)
    """Errors of its scripts, and errors and warnings of the console, which has those of the network
    and of the Content-Security-Policy too."""

    def outside(self) -> list[str]:
        """Requests that leave this machine; those of a file or of data in the page do not."""
        parts = [(address, urlsplit(address)) for address in self.requests]
        inside = ("file", "data", "blob", "about")
        return [a for a, p in parts if p.scheme not in inside and p.hostname not in LOOPBACK]


def chromium_path() -> str:
    """Where Chromium is; skips the test if there is none, or fails it where that is required."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None and os.environ.get(REQUIRED) == "required":
        pytest.fail(f"{REQUIRED}=required, but there is no chromium on PATH")
    if path is None:
        pytest.skip("there is no chromium on PATH (Debian: apt-get install chromium)")
    return path


@contextmanager
def open_page(width_px: int = 1400, height_px: int = 900) -> Iterator["tuple[Page, Record]"]:
    """An empty page of Chromium and its Record: `with open_page() as (page, record)`."""
    path = chromium_path()  # before the import, which takes a second
    from playwright.sync_api import sync_playwright

    record = Record()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=OPTIONS)
        try:
            page = browser.new_page(viewport={"width": width_px, "height": height_px})
            page.on("request", lambda request: record.requests.append(request.url))
            page.on("pageerror", lambda error: record.errors.append(f"script: {error}"))
            page.on(
                "console",
                lambda message: (
                    record.errors.append(f"console: {message.text}")
                    if message.type in ("error", "warning")
                    else None
                ),
            )
            yield page, record
        finally:
            browser.close()

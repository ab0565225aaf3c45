"""`clipzoo serve` as Chromium shows it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fake_model import FakeModel

from browser import REQUIRED, Record, chromium_path, open_page
from clipzoo.serve.page.server import PageServer, Settings, serving
from videos import make_video

if TYPE_CHECKING:
    from playwright.sync_api import Page

SETTINGS = Settings(host="127.0.0.1", port=0, max_bytes=2_000_000)
SCRIPT = "<script>alert(1)</script>"
MARKUP = '<img src=x onerror="alert(1)">'
NARROW_PX, WIDE_PX = 400, 1400


@contextmanager
def opened(model: Any, width_px: int = WIDE_PX) -> Iterator["tuple[Page, Record, PageServer]"]:
    """The page of a model, ready for a video; at the end, that it did nothing wrong."""
    with serving(model, SETTINGS) as server, open_page(width_px) as (page, record):
        # A page that shows a dialog (`alert`) stands still until it is closed.
        page.on("dialog", lambda dialog: dialog.dismiss())
        page.on("dialog", lambda dialog: record.errors.append(f"dialog: {dialog.message}"))
        page.goto(server.address)
        page.locator("#hint", has_text="up to 2.0 MB").wait_for()
        yield page, record, server
        assert record.errors == []
        assert record.outside() == []
        for path in ("page.css", "page.js", "about"):
            assert f"{server.address}{path}" in record.requests


def predict(page: "Page", path: Path) -> None:
    """Choose a file, press the button, and wait for the end."""
    page.get_by_label("Video").set_input_files(path)
    page.get_by_role("button", name="Predict").click()
    page.locator("#predict[aria-disabled=false]").wait_for()


def rows(page: "Page") -> list[list[str]]:
    found = page.locator("#rows tr").all()
    return [[cell.inner_text().strip() for cell in row.locator("td").all()] for row in found]


def test_videos_of_all_kinds_and_a_broken_one(tmp_path):
    """Two of which a browser cannot play."""
    videos = [make_video(tmp_path / f"a video{suffix}", 12) for suffix in (".mp4", ".avi", ".mkv")]
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(videos[0].read_bytes()[:900])
    with opened(FakeModel()) as (page, record, server):
        for path in videos:
            predict(page, path)
            assert page.locator("h2").inner_text() == path.name
            assert rows(page)[0] == ["yoga", "0.571", "0.500"]
            assert page.locator("#pictures img").count() == 8
            shown = "img => img.complete && img.naturalHeight"  # frames have 48 lines
            heights = [image.evaluate(shown) for image in page.locator("#pictures img").all()]
            assert heights == [48] * 8
            assert page.locator("#commands").inner_text() == (
                f"clipzoo predict 'a video{path.suffix}' --top 10"
            )
            assert page.get_by_role("status").inner_text().startswith("Done in ")
            assert page.get_by_role("alert").inner_text() == ""
        bars = [bar.bounding_box() for bar in page.locator(".bar").all()]
        widths = [box["width"] for box in bars if box]
        assert widths[0] == pytest.approx(2 * widths[1], rel=0.02)
        predict(page, broken)
        assert page.get_by_role("alert").inner_text().startswith("broken.mp4: ")
        assert not page.locator("table").first.is_visible()  # of the video before
        assert len([url for url in record.requests if "/predict" in url]) == 4
        assert list(server.folder.iterdir()) == []


def test_class_names_are_text_and_a_second_click_sends_nothing(tmp_path):
    path, model = make_video(tmp_path / f"{'x' * 60}<b>.mp4"), FakeModel()
    with opened(model) as (page, record, _):
        names = page.get_by_label("Class names, one a line")
        assert names.input_value() == "yoga\narchery\nknitting"
        names.fill(f"{SCRIPT}\n\n {MARKUP}\nyoga")
        model.gate.clear()
        page.get_by_label("Video").set_input_files(path)
        button = page.get_by_role("button", name="Predict")
        button.focus()
        page.keyboard.press("Enter")
        page.locator("#status", has_text="Predicting").wait_for()
        button.click(force=True)  # playwright would wait until it is enabled
        page.locator("#status", has_text="already on its way").wait_for()
        model.gate.set()
        page.locator("#predict[aria-disabled=false]").wait_for()
        assert [row[0] for row in rows(page)] == [SCRIPT, MARKUP, "yoga"]
        assert page.locator("#rows td > *:not(.score)").count() == 0  # no element of a name
        assert page.locator("h2").inner_text() == path.name
        sent = [url for url in record.requests if "/predict" in url]
        assert len(sent) == len(model.asked) == 1
        page.get_by_role("button", name="The model's own classes").click()
        assert names.input_value() == "yoga\narchery\nknitting"


@pytest.mark.slow
def test_one_who_waits_is_told_and_can_leave(tmp_path):
    path, model = make_video(tmp_path / "a.mp4"), FakeModel()
    with opened(model) as (page, _, server):
        model.gate.clear()
        page.get_by_label("Video").set_input_files(path)
        page.get_by_role("button", name="Predict").click()
        page.locator("#status", has_text="Predicting").wait_for()
        with page.context.expect_page() as other_page:
            page.evaluate(
                "address => { window.open(address, '_blank', 'noopener') }", server.address
            )
        other = other_page.value
        other.locator("#hint", has_text="up to").wait_for()
        other.get_by_label("Video").set_input_files(path)
        other.get_by_role("button", name="Predict").click()
        other.locator("#status", has_text="Waiting: 1 prediction is first.").wait_for()
        other.get_by_role("button", name="Cancel").click()
        other.locator("#status", has_text="Cancelled.").wait_for()
        model.gate.set()
        page.locator("#status", has_text="Done in").wait_for()
        assert len(model.asked) == 1


@pytest.mark.slow
def test_what_cannot_be_sent_is_said_before(tmp_path):
    large, model = tmp_path / "large.mp4", FakeModel(is_open=False)
    large.write_bytes(b"\0" * 2_000_001)
    with opened(model, NARROW_PX) as (page, record, _):
        names = page.get_by_label("Class names, one a line")
        assert names.get_attribute("readonly") is not None  # the model is closed
        assert "closed" in page.locator("#classes-note").inner_text()
        page.get_by_role("button", name="Predict").click()
        assert "choose a file first" in page.get_by_role("alert").inner_text()
        page.get_by_label("Video").set_input_files(large)
        page.get_by_role("button", name="Predict").click()
        assert "allowed: 2.0 MB" in page.get_by_role("alert").inner_text()
        assert not [url for url in record.requests if "/predict" in url]
        # A server that is restarted with a smaller limit says it itself.
        page.evaluate("about.max_bytes = 1e9")
        page.get_by_role("button", name="Predict").click()
        page.locator("#error", has_text="start the server with a larger --max-mb").wait_for()
        record.errors.remove(
            "console: Failed to load resource: the server responded with a status of 413 "
            "(Request Entity Too Large)"
        )


@pytest.mark.slow
def test_a_file_is_dropped(tmp_path):
    content = list(make_video(tmp_path / "a.mp4").read_bytes())
    drop = """content => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(content)], "dropped.mp4"));
        for (const name of ["dragover", "drop"])
            document.body.dispatchEvent(
                new DragEvent(name, {dataTransfer: data, bubbles: true, cancelable: true}));
    }"""
    with opened(FakeModel()) as (page, _, _):
        page.evaluate(drop, content)
        assert page.locator("#hint").inner_text().startswith("dropped.mp4, ")
        page.get_by_role("button", name="Predict").click()
        page.locator("#predict[aria-disabled=false]").wait_for()
        assert page.locator("h2").inner_text() == "dropped.mp4"
        assert len(rows(page)) == 3


@pytest.mark.parametrize("width_px", [NARROW_PX, pytest.param(WIDE_PX, marks=pytest.mark.slow)])
def test_a_video_of_three_minutes_has_a_curve(tmp_path, width_px):
    path = make_video(tmp_path / "long.mp4", 900, "32x32", 5)
    names = [f"a class with the long name number {i}" for i in range(6)]
    with opened(FakeModel(class_names=[*names, "w" * 80]), width_px) as (page, _, _):
        predict(page, path)
        assert page.locator("#curve-title").inner_text() == "Over time, in windows of 3 s"
        lines = page.locator("#curve polyline").all()
        assert len(lines) == 5
        points = [(line.get_attribute("points") or "").split() for line in lines]
        assert [len(of_line) for of_line in points] == [60] * 5
        texts = page.locator("#curve text").all_text_contents()
        assert texts[:4] == ["0", "0.5", "1", "0:00"]
        assert "2:00" in texts
        page.get_by_text("As a table").click()
        assert page.locator("#windows tr").count() == 60
        first = page.locator("#windows tr").first.inner_text().split()
        assert first[:3] == ["0:00", "to", "0:03"]
        assert page.locator("#commands").inner_text().splitlines()[1:] == [
            "clipzoo predict long.mp4 --every 3"
        ]
        wider = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wider <= 0  # nothing is cut off, and nothing scrolls sideways
        unnamed = page.evaluate(
            """[...document.querySelectorAll("input, textarea, button, progress, svg, img")]
                .filter(e => !(e.labels && e.labels.length) && !e.textContent.trim()
                    && !["aria-label", "alt", "aria-hidden"].some(n => e.getAttribute(n)))
                .map(e => e.outerHTML)"""
        )
        assert unnamed == []


@pytest.mark.slow
def test_the_page_says_when_the_server_is_gone(tmp_path):
    path = make_video(tmp_path / "a.mp4")
    model: Any = FakeModel()
    with serving(model, SETTINGS) as server, open_page() as (page, record):
        page.goto(server.address)
        page.locator("#hint", has_text="up to").wait_for()
        server.shutdown()
        server.socket.close()
        predict(page, path)
        assert "cannot be reached" in page.get_by_role("alert").inner_text()
        assert json.dumps(record.errors).count("ERR_CONNECTION_REFUSED") == len(record.errors) == 1


def test_without_chromium_a_test_skips_or_fails(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv(REQUIRED, raising=False)
    with pytest.raises(pytest.skip.Exception, match="there is no chromium"):
        chromium_path()
    monkeypatch.setenv(REQUIRED, "required")
    with pytest.raises(pytest.fail.Exception, match="there is no chromium"):
        chromium_path()

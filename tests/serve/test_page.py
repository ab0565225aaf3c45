"""`clipzoo serve`: the server as programs, browsers and hostile clients meet it."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_model import FakeModel

from clipzoo import __main__
from clipzoo.config import ConfigError
from clipzoo.serve.page import answers, handler, leaving, server, turns, upload
from clipzoo.serve.page.server import PageServer, Settings, serving
from videos import make_video

SETTINGS = Settings(host="127.0.0.1", port=0, max_bytes=2_000_000)


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()


@pytest.fixture
def page(model) -> Iterator[PageServer]:
    with serving(model, SETTINGS) as served:
        yield served
    assert not served.folder.exists()


@pytest.fixture(scope="session")
def video(tmp_path_factory) -> bytes:
    return make_video(tmp_path_factory.mktemp("videos") / "a.mp4").read_bytes()


def ask(
    page: PageServer, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Status, headers and content of one answer; `_` in the name of a header stands for `-`."""
    connection = http.client.HTTPConnection("127.0.0.1", page.server_port, timeout=30)
    sent = {key.replace("_", "-"): value for key, value in headers.items()}
    try:
        connection.request(method, path, body, sent)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def predict(page: PageServer, body: bytes, query: str = "name=a.mp4", **headers: str) -> list[dict]:
    status, _, content = ask(page, "POST", f"/predict?{query}", body, **headers)
    assert status == 200, content
    return [json.loads(line) for line in content.splitlines()]


def merged(lines: list[dict]) -> dict[str, Any]:
    return {key: value for line in lines for key, value in line.items()}


def error(page: PageServer, *arguments: Any, **headers: str) -> tuple[int, str]:
    status, found, content = ask(page, *arguments, **headers)
    assert found["Content-Type"] == "application/json; charset=utf-8"
    return status, json.loads(content)["error"]


def leftovers(page: PageServer) -> list[Path]:
    """Temporary files, once the server has had time to remove them."""
    deadline = time.monotonic() + 30
    while (found := list(page.folder.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


@contextmanager
def raw_connection(page: PageServer, text: str) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", page.server_port), timeout=30) as connection:
        connection.sendall(text.replace("\n", "\r\n").encode())
        yield connection


def head(page: PageServer, length: int) -> str:
    host = f"127.0.0.1:{page.server_port}"
    return f"POST /predict?name=a.mp4 HTTP/1.1\nHost: {host}\nContent-Length: {length}\n\n"


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_prediction_has_scores_frames_and_the_command(page, model, video):
    found = merged(predict(page, video, "name=my%20video.mp4"))
    assert found["prediction"]["labels"] == ["yoga", "archery", "knitting"]
    assert found["prediction"]["probabilities"] == pytest.approx([4 / 7, 2 / 7, 1 / 7])
    assert found["prediction"]["num_frames"] == len(found["pictures"]) == 8
    assert found["pictures"][0]["jpeg"].startswith("/9j/")  # ff d8 ff
    assert found["pictures"][-1]["seconds"] == pytest.approx(1.1)
    assert found["commands"] == ["clipzoo predict 'my video.mp4' --top 10"]
    assert found["done"]["seconds"] > 0
    assert "curve" not in found
    assert leftovers(page) == []
    (path, names), *_ = model.asked
    assert names is None
    assert path.suffix == ".mp4"


def test_classes_of_the_request_are_the_ones_that_compete(page, model, video):
    query = "name=a.mp4&classes=%3Cb%3E%0A%0A%20juggling%20balls%20%0Aa%2C%20b"
    found = merged(predict(page, video, query))
    names = ["<b>", "juggling balls", "a, b"]
    assert (model.asked[0][1], found["prediction"]["labels"]) == (names, names)
    assert found["commands"] == [
        r"printf '%s\n' '<b>' 'juggling balls' 'a, b' > classes.txt",
        "clipzoo predict a.mp4 --classes classes.txt --top 10",
    ]
    predict(page, video, "classes=yoga%0Aarchery%0Aknitting")
    assert model.asked[1][1] is None  # its own, which the trained model scores


def test_a_name_cannot_leave_the_folder_or_break_a_line(page, model, video, capfd):
    found = merged(predict(page, video, "name=..%2F..%2Fa%0Ab%1B%5B2J%5C%F0%9F%8E%A5.mp4"))
    assert found["commands"] == ["clipzoo predict '.._.._a_b_[2J_\N{MOVIE CAMERA}.mp4' --top 10"]
    assert model.asked[0][0].is_relative_to(page.folder)
    wait_until(lambda: not list(page.folder.iterdir()))
    assert "\x1b" not in capfd.readouterr().err


def test_a_long_video_has_a_curve(page, tmp_path):
    long = make_video(tmp_path / "long.mp4", 250, "32x32")  # 25 s
    lines = predict(page, long.read_bytes(), "name=long.mp4")
    found = merged(lines)
    assert sum("progress" in line for line in lines) == 12
    curve = found["curve"]
    assert (curve["every"], curve["starts"][:3], curve["ends"][-1]) == (2, [0, 2, 4], 24)
    series = {one["label"]: one["probabilities"] for one in curve["series"]}
    assert series["archery"][:4] == pytest.approx([2 / 7, 4 / 7, 1 / 7, 2 / 7])
    assert curve["best"][1] == ["archery", pytest.approx(4 / 7)]
    assert found["commands"][1] == "clipzoo predict long.mp4 --every 2"


def test_the_curve_shows_the_classes_with_the_highest_peaks():
    rows = [{"a": 0.5, "b": 0.1, "c": 0.4}, {"a": 0.5, "b": 0.3, "c": 0.2}]
    windows: list[Any] = [
        SimpleNamespace(labels=list(r), probabilities=list(r.values()), start=i, end=i + 1)
        for i, r in enumerate(rows)
    ]
    found = answers.curve(windows)
    assert [one["label"] for one in found["series"]] == ["a", "c", "b"]
    assert found["series"][2]["probabilities"] == [0.1, 0.3]


@pytest.mark.parametrize(
    ("duration", "seconds"), [(20.1, 2), (120, 2), (121, 3), (180, 3), (7200, 120)]
)
def test_windows_of_a_long_video(duration, seconds):
    assert answers.window_seconds(duration) == seconds


def test_pictures_are_spread_evenly():
    assert answers.evenly(5, 3) == [0, 2, 4]
    assert answers.evenly(2, 64) == [0, 1]
    assert len(answers.evenly(320, 64)) == 64


def test_a_name_that_begins_with_a_dash_is_no_option_of_the_command():
    request = answers.Request(path=Path("v"), name="--top", class_names=["a", "b"])
    assert answers.command_lines(request, ["--model", "m"], None) == [
        "clipzoo predict ./--top --model m --class 'a, b' --top 10"
    ]
    request = replace(request, class_names=["-a", "b"])
    assert answers.command_lines(request, [], None)[0] == r"printf '%s\n' -a b > classes.txt"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"not a video at all" * 20, "a.m3u8: "),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "is not a video but a playlist"),
    ],
)
def test_a_file_that_is_not_a_video_is_an_error_with_its_name(page, body, message):
    text = predict(page, body, "name=a.m3u8")[-1]["error"]
    assert message in text
    assert "a.m3u8" in text
    assert str(page.folder) not in text
    assert leftovers(page) == []


def test_an_error_that_names_the_file_alone_has_its_real_name(page, model, video):
    def fail(path: Path, *_: object, **__: object) -> None:
        raise ValueError(f"{path.name}: the video {path} is broken")

    model.predict = fail
    found = predict(page, video, "name=my%20video.mp4")[-1]["error"]
    assert found == "my video.mp4: the video my video.mp4 is broken"


def test_empty_class_names_are_not_the_models_own(page, model, video):
    predict(page, video, "classes=%20%0A")
    assert model.asked[0][1] == []  # which a model refuses


def test_the_errors_of_a_model_are_shown(page, model, video):
    model.is_open = False
    assert "the model is closed" in predict(page, video, "classes=a%0Ab")[-1]["error"]
    model.is_open = True
    model.config.frames = None  # an error of ours: its traceback is for the terminal
    assert predict(page, video)[-1]["error"].startswith("an error of this program")


def test_a_cut_video_is_refused(page, video):
    assert "a.mp4" in predict(page, video[: len(video) // 2])[-1]["error"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("GET", "/secret"), 404, "there is no /secret"),
        (("GET", "/../server.py"), 404, "there is no"),
        (("POST", "/about", b"x"), 404, "POST a video to /predict"),
        (("POST", "/predict", b""), 400, "the file is empty"),
        (("POST", "/predict", b"x" * 2_000_001), 413, "allowed: 2.0 MB"),
        (("PUT", "/predict", b"x"), 501, "Unsupported method"),
    ],
)
def test_wrong_requests_are_refused(page, arguments, status, message):
    found = error(page, *arguments)
    assert found[0] == status
    assert message in found[1]
    assert leftovers(page) == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Content-Length: -1", 400),
        ("Content-Length: 1_0", 400),
        ("Content-Length: \u0661", 400),
        ("Content-Length: 99999999999999999999", 400),
        ("Content-Length: 999999999999", 413),
        ("Transfer-Encoding: chunked", 411),
        ("Transfer-Encoding: chunked\nContent-Length: 5", 411),
        ("A: b", 411),
        ("a" * 70_000, 431),
    ],
)
def test_sizes_are_read_with_care(page, headers, status):
    start = f"POST /predict HTTP/1.1\nHost: localhost\n{headers}\n\nvideo"
    with raw_connection(page, start) as connection:
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100).startswith(b"HTTP/1.0 %d " % status)
    assert leftovers(page) == []


def test_too_many_class_names_are_refused(page, video):
    status, text = error(page, "POST", f"/predict?classes={'a' * 70_000}", video)
    assert status == 414
    assert "allowed: class names of 60,000 characters as sent" in text


@pytest.mark.parametrize(
    ("host", "is_allowed"),
    [
        ("127.0.0.1:{port}", True),
        ("LOCALHOST", True),
        ("localhost:1234", True),  # through a tunnel
        ("[::1]:{port}", True),
        ("evil.example", False),
        ("evil.example:{port}", False),
        ("127.0.0.1.evil.example", False),
        ("192.168.1.5:{port}", False),
        ("localhost@evil.example", False),
        ("", False),
    ],
)
def test_a_host_of_another_name_is_refused(page, model, video, host, is_allowed):
    host = host.format(port=page.server_port)
    for method, path, body in (("GET", "/about", None), ("POST", "/predict", video)):
        status, _, content = ask(page, method, path, body, Host=host)
        assert status == (200 if is_allowed else 421)
        assert is_allowed or "Host: found" in json.loads(content)["error"]
    assert len(model.asked) == is_allowed


def test_a_request_without_a_host_is_refused(page):
    with raw_connection(page, "GET /about HTTP/1.0\n\n") as connection:
        assert b"Host: found none; allowed: localhost" in connection.makefile("rb").read()


def test_a_page_of_another_origin_cannot_predict(page, model, video):
    for origin in ("https://evil.example", "null", f"https://127.0.0.1:{page.server_port}"):
        status, text = error(page, "POST", "/predict", video, Origin=origin)
        assert (status, "Origin: found" in text) == (403, True)
    assert model.asked == []
    predict(page, video, Origin=f"http://127.0.0.1:{page.server_port}")


def test_a_server_for_others_is_reached_by_its_addresses(model):
    settings = replace(SETTINGS, host="0.0.0.0")
    with serving(model, settings) as page:
        assert not page.is_local
        for host in ("192.168.1.5", "[fe80::1]:80", "0.0.0.0", socket.gethostname()):
            assert ask(page, "GET", "/about", Host=host)[0] == 200
        assert ask(page, "GET", "/about", Host="evil.example")[0] == 421


def test_the_page_may_load_nothing_but_its_own_files(page):
    for path, kind in (
        ("/", "text/html"),
        ("/page.js", "text/javascript"),
        ("/page.css", "text/css"),
    ):
        status, headers, content = ask(page, "GET", path)
        assert (status, headers["Content-Type"]) == (200, f"{kind}; charset=utf-8")
        assert headers["Content-Security-Policy"].startswith(
            "default-src 'none'; script-src 'self'"
        )
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert not re.search(
            rb"innerHTML|insertAdjacentHTML|document\.write|https?://(?!www\.w3)", content
        )
        assert not re.search(rb"<script>|<style|\son\w+=|\sstyle=", content)


def test_the_page_is_told_of_the_model(page):
    found = json.loads(ask(page, "GET", "/about")[2])
    assert found["class_names"] == ["yoga", "archery", "knitting"]
    assert (found["recipe"], found["is_open"], found["max_bytes"]) == ("demo/fake", True, 2_000_000)


def test_predictions_run_one_after_the_other_and_say_so(page, model, video, monkeypatch):
    monkeypatch.setattr(turns, "TELL_SECONDS", 0.02)
    model.gate.clear()
    answered: dict[int, list[dict]] = {}
    threads = []
    for number in range(3):
        threads.append(in_thread(lambda n=number: answered.update({n: predict(page, video)})))
        if number == 0:
            assert model.started.acquire(timeout=10)
        else:
            wait_until(lambda n=number: len(page.turns._queue) == n + 1)
    model.gate.set()
    for thread in threads:
        thread.join(30)
    waits = [[line["waiting"] for line in answered[n] if "waiting" in line] for n in range(3)]
    assert waits[0] == []
    assert set(waits[1]) == {1}
    assert waits[2][0] == 2
    assert model.at_once == [1, 1, 1]
    assert all("done" in lines[-1] for lines in answered.values())


def wait_until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_no_more_wait_than_there_is_room_for(page, model, video):
    page.turns.most = 1
    model.gate.clear()
    first = in_thread(lambda: predict(page, video))
    assert model.started.acquire(timeout=10)
    assert error(page, "POST", "/predict", video)[0] == 503
    model.gate.set()
    first.join(30)
    assert "done" in predict(page, video)[-1]


def test_one_who_leaves_gives_the_turn_to_the_next(page, model, video, monkeypatch):
    monkeypatch.setattr(turns, "TELL_SECONDS", 0.02)
    model.gate.clear()
    first = in_thread(lambda: predict(page, video))
    assert model.started.acquire(timeout=10)
    with raw_connection(page, head(page, len(video))) as second:
        second.sendall(video)
        wait_until(lambda: len(page.turns._queue) == 2)
    wait_until(lambda: len(page.turns._queue) == 1)  # it left while it waited
    model.gate.set()
    first.join(30)
    assert len(model.asked) == 1
    assert leftovers(page) == []


def test_one_who_leaves_ends_the_decoding(page, model, video, monkeypatch, capfd):
    """Of a video of hours, for example, whose prediction has begun."""
    monkeypatch.setattr(leaving, "LOOK_SECONDS", 0.02)
    codes: list[int] = []

    def decode(path: Path, *_: object, **__: object) -> None:
        program = [sys.executable, "-c", "import time; time.sleep(60)", f"file:{path}"]
        other = subprocess.Popen([*program[:3], "file:other"])
        try:
            model.started.release()
            codes.append(subprocess.run(program, check=False).returncode)
            codes.append(other.poll() or 0)
        finally:
            other.kill()
            other.wait()
        raise MemoryError("ffmpeg was killed by SIGKILL")

    model.predict = decode
    with raw_connection(page, head(page, len(video))) as connection:
        connection.sendall(video)
        assert model.started.acquire(timeout=10)
    wait_until(lambda: page.turns._queue == [])
    assert codes == [-signal.SIGKILL, 0]
    assert leftovers(page) == []
    assert "the client left" in capfd.readouterr().err


def test_a_client_that_leaves_during_the_upload_leaves_no_file(page, model, video, capfd):
    with raw_connection(page, head(page, len(video))) as connection:
        connection.sendall(video[:100])
        wait_until(lambda: any(path.is_file() for path in page.folder.rglob("*")))
    assert leftovers(page) == []
    assert model.asked == []
    assert "Traceback" not in capfd.readouterr().err


def test_a_slow_upload_is_ended(page, model, monkeypatch):
    monkeypatch.setattr(upload, "IDLE_SECONDS", 0.1)
    with raw_connection(page, head(page, 1000)) as connection:
        connection.sendall(b"x")
        assert connection.recv(100).startswith(b"HTTP/1.0 408 ")
    assert leftovers(page) == []


def test_a_slow_drip_is_ended_too(page, monkeypatch):
    """Each byte comes in time, but all of them would take forever."""
    monkeypatch.setattr(upload, "HEADER_SECONDS", 0.3)
    start = time.monotonic()
    with raw_connection(page, head(page, 1000)) as connection:
        connection.settimeout(0.02)
        content = b""
        while not content:
            connection.sendall(b"x")
            try:
                content = connection.recv(100)
            except TimeoutError:
                assert time.monotonic() < start + 10
    assert content.startswith(b"HTTP/1.0 408 ")


def test_headers_that_never_end_hold_no_connection(page, monkeypatch):
    monkeypatch.setattr(handler, "HEADER_SECONDS", 0.2)
    with raw_connection(page, "GET / HTTP/1.1\nHost: loc") as connection:
        assert connection.recv(100) == b""


def test_connections_are_bounded(model, monkeypatch):
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 1)
    with serving(model, SETTINGS) as page:
        with raw_connection(page, "GET /") as first:
            wait_until(lambda: page._connections._value == 0)
            with socket.create_connection(("127.0.0.1", page.server_port), 30) as second:
                assert second.recv(10) == b""
            first.close()
        wait_until(lambda: page._connections._value == 1)
        assert ask(page, "GET", "/about")[0] == 200


def test_a_full_disk_is_said(page, video, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(handler, "receive", full)
    status, text = error(page, "POST", "/predict", video)
    assert (status, "No space left" in text) == (507, True)
    assert leftovers(page) == []


def test_a_port_in_use_and_a_foreign_address_are_refused(page):
    with pytest.raises(ConfigError, match=rf"--port {page.server_port}: .* another port, or 0"):
        PageServer(replace(SETTINGS, port=page.server_port))
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1"):
        PageServer(replace(SETTINGS, host="192.0.2.1"))
    with pytest.raises(ConfigError, match=r"--host: found 'a\.\.b'"):
        PageServer(replace(SETTINGS, host="a..b"))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["clipzoo", "serve", *arguments])
    try:
        __main__.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "70000"], "--port: found 70000; allowed: 0 to 65535"),
        (["--port", "-1"], "--port: found -1"),
        (["--port", "http"], "--port: invalid int value"),
        (["--max-mb", "0"], "--max-mb: found 0; allowed: above 0"),
        (["--max-mb", "nan"], "--max-mb: found nan"),
        (["--max-mb", "1e9"], "--max-mb: found 1e+09"),
        (["--model", "nowhere"], "nowhere/config.json"),
        (["--host", ""], "--host: found ''"),
        (["--host", "a b"], "--host: found 'a b'"),
        (["--device", "tpu"], "--device: invalid choice: 'tpu'"),
        (["video.mp4"], "unrecognized arguments: video.mp4"),
    ],
)
def test_wrong_arguments_are_errors(project, monkeypatch, capsys, arguments, message):
    assert run(monkeypatch, "--port", "0", *arguments) in (1, 2)
    assert message in capsys.readouterr().err


PROGRAM = """
import sys
from fake_model import FakeModel
from clipzoo.runtime.ending import ending
from clipzoo import __main__
from clipzoo.commands import serve

serve.open_model = lambda folder, device: FakeModel()
sys.argv = ["clipzoo", "serve", "--port", "0", *sys.argv[1:]]
with ending():
    __main__.main()
"""


@pytest.mark.parametrize(
    ("number", "code", "arguments"),
    [
        (signal.SIGINT, 130, ("--host", "0.0.0.0")),
        pytest.param(signal.SIGTERM, 143, (), marks=pytest.mark.slow),
    ],
)
def test_it_ends_without_a_traceback_and_without_files(tmp_path, video, number, code, arguments):
    """While an upload is on its way."""
    paths = [str(Path(__file__).parent), str(Path(server.__file__).parents[3])]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TMPDIR": str(tmp_path)},
    )
    with process:
        assert process.stdout
        assert process.stderr
        line = process.stdout.readline()
        match = re.fullmatch(r"serving demo/fake at http://[^ /]+:(\d+)/; Ctrl-C ends it\n", line)
        assert match
        with socket.create_connection(("127.0.0.1", int(match[1]))) as connection:
            start = "POST /predict HTTP/1.1\nHost: localhost\nContent-Length: 99\n\nx"
            connection.sendall(start.replace("\n", "\r\n").encode())
            wait_until(lambda: any(path.is_file() for path in tmp_path.rglob("*")))
            process.send_signal(number)
            assert process.wait(20) == code
        messages = process.stderr.read()
    assert "Traceback" not in messages
    assert "run the same command again" not in messages
    assert messages.endswith("\nstopped\n") == (number == signal.SIGINT)
    assert ("warning: --host 0.0.0.0" in messages) == bool(arguments)
    assert list(tmp_path.iterdir()) == []

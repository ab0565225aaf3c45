"""Videos of strangers: files that are none, that make a decoder fetch, wait or hang, odd names."""

import http.server
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from clipzoo.commands.scan import scan
from clipzoo.data import decoding
from clipzoo.data.decoding import Outcome, VideoError, frames_command, jpeg_command, run_ffmpeg
from clipzoo.data.ffmpeg import ffmpeg_path
from clipzoo.data.index import StoreError, read_part
from clipzoo.data.raw_files import check_size
from clipzoo.data.store import open_store
from clipzoo.data.video import Kept, check_container, play_by_decord, read_by_decord, read_by_ffmpeg
from clipzoo.files import ListError
from clipzoo.frames.comparison import thumbnails_command
from clipzoo.frames.extraction import extract
from videos import make_video
from videos import run_ffmpeg as make_with_ffmpeg

DASH = """<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S"
profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet mimeType="video/mp4">
<Representation id="1" bandwidth="1" codecs="avc1.4d401e" width="96" height="64"><BaseURL>{url}
</BaseURL></Representation></AdaptationSet></Period></MPD>"""
SVG = """<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"
width="96" height="64"><image xlink:href="{url}" width="96" height="64"/></svg>"""
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n"
HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}\n#EXT-X-ENDLIST\n"
SCRIPTS = {
    "dash": DASH,
    "hls": HLS,
    "concat": "ffconcat version 1.0\nfile '{url}'\n",
    "svg": SVG,
    "sdp": SDP,
}


@pytest.fixture
def server() -> Iterator[tuple[int, list[str]]]:
    """A web server on this machine: its port, and the paths that it was asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield web.server_port, asked
        web.shutdown()


def by_ffmpeg(command: list[str]) -> bytes:
    outcome = Outcome()
    output = b"".join(run_ffmpeg(command, outcome))
    if outcome.damage:
        raise VideoError(outcome.damage)
    return output


DECODERS = {
    "jpegs": lambda path: by_ffmpeg(jpeg_command(path, "48", 3, None)),
    "thumbnails": lambda path: by_ffmpeg(thumbnails_command(path, None)),
    "ffmpeg": lambda path: read_by_ffmpeg(path, [0], size=(32, 32)),
    "decord": lambda path: read_by_decord(path, [0], size=(32, 32), kept=Kept(3)),
    "playing": lambda path: list(play_by_decord(path, Kept(3))),
}
"""Every way in which the project opens a video."""


def hostile_files(folder: Path, port: int) -> list[Path]:
    """Scripts that name an address, scripts that name a local video, and a mov that does."""
    folder.mkdir()
    secret = make_video(folder / "secret.mp4", 12)
    paths = []
    for name, text in SCRIPTS.items():
        for kind, url in (("web", f"http://127.0.0.1:{port}/{name}"), ("local", secret.name)):
            path = folder / f"{name}-{kind}.mp4"
            path.write_text(text.replace("{url}", url).replace("{port}", str(port)))
            paths.append(path)
    paths.append(folder / "reference.mp4")
    paths[-1].write_bytes(with_reference(make_video(folder / "own.mp4", 2).read_bytes(), secret))
    return paths


def with_reference(content: bytes, target: Path) -> bytes:
    """A mp4 whose frames are in another file, by a data reference (`alis`) to its name."""
    name = target.name.encode()
    path = b"\0\x02" + len(name).to_bytes(2, "big") + name + bytes(len(name) % 2)
    volume, file = bytes(28), bytes([len(name)]) + name.ljust(63, b"\0")
    alias = bytes(10) + volume + bytes(12) + file + bytes(16) + b"\0\x01\0\x01" + bytes(16)
    entry = b"alis" + bytes(4) + alias + path + b"\xff\xff\0\0"
    entry = (len(entry) + 4).to_bytes(4, "big") + entry
    own = b"\0\0\0\x0curl \0\0\0\x01"
    assert content.count(own) == 1
    assert content.index(b"mdat") < content.index(b"moov"), "offsets of frames stay as they are"
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        at = content.index(box) - 4
        size = int.from_bytes(content[at : at + 4], "big") + len(entry) - len(own)
        content = content[:at] + size.to_bytes(4, "big") + content[at + 4 :]
    return content.replace(own, entry)


@pytest.mark.parametrize("decoder", DECODERS)
def test_no_decoder_follows_a_file_to_an_address_or_another_file(tmp_path, server, decoder):
    port, asked = server
    for path in hostile_files(tmp_path / "v", port):
        with pytest.raises((VideoError, StoreError)):
            DECODERS[decoder](path)
    assert asked == []


@pytest.mark.parametrize("reader", ["shards", "video"])
def test_scripts_named_like_videos_are_listed_with_what_is_allowed(
    project, params_for, server, reader
):
    port, asked = server
    files = [path for path in hostile_files(project / "v", port) if "-" in path.name]
    (project / "raw" / "a").mkdir(parents=True)
    for path in (*files, project / "v" / "secret.mp4"):
        path.rename(project / "raw" / "a" / path.name)
    Path("datasets/mine.yaml").write_text(f"about: x\nformat: folder\nreader: {reader}\n")
    scan("mine", project / "raw")
    with (
        ThreadPoolExecutor(2) as pool,
        pytest.raises(StoreError, match="10 videos of mine cannot be read") as caught,
    ):
        extract(params_for("mine"), "mine", executor=pool)
    assert "a/concat-local: " in str(caught.value)
    assert "allowed: containers of one video (asf" in str(caught.value)
    assert asked == []


@pytest.mark.parametrize(
    ("codec", "name"),
    [
        *(("libx264", f"x.{suffix}") for suffix in ("mp4", "mov", "mkv", "flv", "ts", "m2ts")),
        *(("mpeg4", f"x.{suffix}") for suffix in ("avi", "3gp", "m4v")),
        *(("mpeg2video", f"x.{suffix}") for suffix in ("mpg", "mpeg", "mts")),
        *(("wmv2", "x.wmv"), ("libvpx", "x.webm"), ("libtheora", "x.ogv")),
    ],
)
def test_every_allowed_container_is_read(tmp_path, codec, name):
    path = tmp_path / name
    source = ("-f", "lavfi", "-i", "testsrc2=size=176x144:rate=25", "-frames:v", "5")
    make_with_ffmpeg(*source, "-c:v", codec, "-pix_fmt", "yuv420p", path)
    assert len(by_ffmpeg(frames_command(path, None, (4, 2)))) == 5 * 4 * 2 * 3
    check_container(path)


NAMES = (
    *("-i.mp4", "concat:x.mp4", "http:x.mp4", "pipe:0.mp4", "a%03d.mp4", 'it\'s "x".mp4'),
    *("[0:v]; $(touch pwned) &.mp4", "a|b,c\\:d.mp4", "*?.mp4", " blank .mp4"),
)


@pytest.mark.parametrize("decoder", ["jpegs", "ffmpeg", "decord"])
def test_any_name_is_taken_as_a_name(tmp_path, monkeypatch, decoder):
    monkeypatch.chdir(make_video(tmp_path / "own.mp4", 3).parent)
    expected = DECODERS[decoder](Path("own.mp4"))
    for name in NAMES:
        Path(name).write_bytes(Path("own.mp4").read_bytes())
        assert np.array_equal(DECODERS[decoder](Path(name)), expected), name
        Path(name).unlink()
    assert not Path("pwned").exists()


def test_videos_of_any_name_are_extracted_and_read(project, params_for):
    make_video(project / "own.mp4", 3)
    names = [name for name in NAMES if "\\" not in name]
    for name in names:
        (project / "raw" / "-c").mkdir(parents=True, exist_ok=True)
        (project / "raw" / "-c" / name).write_bytes((project / "own.mp4").read_bytes())
    scan("mine", project / "raw")
    with ThreadPoolExecutor(2) as pool:
        extract(params_for("mine"), "mine", executor=pool)
    store = open_store(params_for("mine"), "mine")
    assert sorted(store.videos) == sorted(f"-c/{Path(name).stem}" for name in names)
    first, *others = [store.read(video_id, [0, 1, 2]) for video_id in store.videos]
    assert all(other == first for other in others)


def irregular_files(folder: Path) -> dict[str, str]:
    """Put one thing of each kind that is no file into a folder; {name: word of its fault}."""
    folder.mkdir(parents=True)
    os.mkfifo(folder / "pipe.mp4")
    (folder / "broken.mp4").symlink_to(folder / "gone.mp4")
    (folder / "loop.mkv").symlink_to(folder / "loop.mkv")
    (folder / "null.avi").symlink_to("/dev/null")
    (folder / "folder.webm").mkdir()
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(folder / "socket.mp4"))
    return {
        "pipe.mp4": "is a named pipe; allowed: a regular file",
        "broken.mp4": f"is a broken link, to '{folder / 'gone.mp4'}'",
        "loop.mkv": "is unreadable (Too many levels of symbolic links)",
        "null.avi": "is a device",
        "folder.webm": "is a folder",
        "socket.mp4": "is a socket",
    }


def test_scan_lists_everything_that_is_no_regular_file(project):
    video = make_video(project / "elsewhere" / "x.mp4", 1)
    faults = irregular_files(project / "v" / "a")
    os.mkfifo(project / "v" / "a" / "notes.txt")  # not named like a video: as good as absent
    (project / "v" / "a" / "link.mp4").symlink_to(video)
    for name in ("y.mp4", "y.avi"):
        (project / "v" / "a" / name).write_bytes(b"x")
    with pytest.raises(ListError, match="7 faults; fix, rename or remove them") as caught:
        scan("mine", project / "v")
    for name, fault in faults.items():
        assert f"\n  a/{name}: {fault}" in str(caught.value)
    assert "a/y.avi and a/y.mp4 have the same id" in str(caught.value)
    for path in (*(project / "v" / "a" / name for name in faults), project / "v" / "a" / "y.avi"):
        path.rmdir() if path.is_dir() else path.unlink()
    assert scan("mine", project / "v").num_videos == 2


def test_what_became_a_named_pipe_after_the_scan_is_refused(project, params_for):
    """Opening it would wait for ever."""
    make_video(project / "v" / "a" / "x.mp4", 1)
    (project / "v" / "a" / "y.mp4").write_bytes(b"")
    scan("mine", project / "v")
    (project / "v" / "a" / "y.mp4").unlink()
    os.mkfifo(project / "v" / "a" / "y.mp4")
    with (
        ThreadPoolExecutor(1) as pool,
        pytest.raises(StoreError, match=r"y: .*y.mp4: is a named pipe; allowed: a regular file"),
    ):
        extract(params_for("mine"), "mine", executor=pool)
    with pytest.raises(StoreError, match="null: is a device"):
        check_size(Path("/dev/null"), 0)


def test_a_named_pipe_among_frame_files_is_a_fault(project):
    Path("datasets/mine.yaml").write_text("about: x\nformat: folder\nreader: directory\n")
    (project / "v" / "a" / "x").mkdir(parents=True)
    (project / "v" / "a" / "x" / "img_00001.jpg").write_bytes(b"x")
    os.mkfifo(project / "v" / "a" / "x" / "img_00002.jpg")
    with pytest.raises(ListError, match=r"a/x/img_00002.jpg: is a named pipe"):
        scan("mine", project / "v")


def use_ffmpeg(folder: Path, monkeypatch, decode: str) -> Path:
    """Put an ffmpeg on PATH that runs `decode` in place of decoding; returns its file of pids."""
    binary, pids = folder / "bin" / "ffmpeg", folder / "pids"
    binary.parent.mkdir()
    binary.write_text(
        '#!/bin/sh\ncase "$*" in -version|*-h*long|*filter=showinfo)'
        f' exec {ffmpeg_path()} "$@";; esac\n'
        f"echo $$ >> {pids}\n{decode}\n"
    )
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", f"{binary.parent}{os.pathsep}{os.environ['PATH']}")
    return pids


def is_running(pid: str) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_decoder_that_is_killed_is_not_a_broken_video(project, params_for, monkeypatch):
    """The kernel kills it where memory runs out."""
    make_video(project / "v" / "a" / "x.mp4", 2)
    scan("mine", project / "v")
    use_ffmpeg(project, monkeypatch, "kill -9 $$")
    with ThreadPoolExecutor(1) as pool, pytest.raises(StoreError, match=r"x\.mp4: .*SIGKILL") as e:
        extract(params_for("mine"), "mine", executor=pool)
    assert "broken" not in str(e.value)


@pytest.mark.parametrize(
    ("decode", "error"),
    [
        ("exec sleep 100", "gave no new frame for 0.3 s"),
        ("while :; do echo '[warning] again' >&2; sleep 0.02; done", "gave no new frame for 0.3 s"),
        ("exec 1>&- 2>&-; exec sleep 100", "(did not end within|gave no new frame for) 0.3 s"),
    ],
)
def test_a_decoder_that_makes_no_progress_is_ended_and_named(
    project, params_for, monkeypatch, decode, error
):
    make_video(project / "v" / "a" / "x.mp4", 2)
    scan("mine", project / "v")
    pids = use_ffmpeg(project, monkeypatch, decode)
    monkeypatch.setattr(decoding, "STALLED_SECONDS", 0.3)
    message, began = f"a/x: broken: ffmpeg {error}", time.monotonic()
    with ThreadPoolExecutor(1) as pool, pytest.raises(StoreError, match=message):
        extract(params_for("mine"), "mine", executor=pool)
    assert time.monotonic() - began < 60  # it was not waited for
    assert not pids.exists() or not any(is_running(pid) for pid in pids.read_text().split())


def test_a_decoder_that_is_slow_but_makes_progress_is_not_ended(tmp_path, monkeypatch):
    """Its last output counts, not its start: between two outputs a clock goes on by an hour."""
    use_ffmpeg(tmp_path, monkeypatch, "for i in 1 2 3; do printf x; sleep 0.2; done")
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(decoding, "time", clock)
    outcome, output = Outcome(), b""
    for chunk in run_ffmpeg(["ffmpeg", "-i", "file:x", "pipe:"], outcome):
        output += chunk
        clock.now += 3600
    assert output == b"xxx"
    assert clock.now >= 2 * 3600
    assert outcome.damage == ""


def start_stage(project: Path, workers: int, *, limit_bytes: int = 0) -> subprocess.Popen[str]:
    """The stage's work, in a process of its own with `workers` worker processes."""
    code = (
        "import resource, sys\n"
        "from clipzoo.config import load_params, replace\n"
        "from clipzoo.frames.extraction import extract\n"
        "if __name__ == '__main__':\n"
        f"    if {limit_bytes}:\n"
        f"        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, {limit_bytes}))\n"
        "    values = {'frames.shard_videos': 1, 'frames.size': 48, 'data.demo': []}\n"
        f"    p = replace(load_params(), {{**values, 'runtime.extract_workers': {workers}}})\n"
        "    try:\n"
        "        extract(p, 'mine')\n"
        "    except (ValueError, OSError) as error:\n"
        "        sys.exit(f'error: {error}')\n"
    )
    (project / "stage.py").write_text(code)
    return subprocess.Popen(
        [sys.executable, project / "stage.py"], stderr=subprocess.PIPE, text=True
    )


def await_true(condition, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def test_nothing_outlives_a_stage_that_is_killed(project, monkeypatch):
    """Not even an ffmpeg that hangs, and so never notices that nobody reads what it writes."""
    if not decoding.ending_with_us():
        pytest.skip("needs setpriv of util-linux")
    make_video(project / "v" / "a" / "x.mp4", 2)
    scan("mine", project / "v")
    pids = use_ffmpeg(project, monkeypatch, f"echo $PPID >> {project / 'pids'}\nexec sleep 100")
    with start_stage(project, 1) as stage:
        assert await_true(lambda: pids.exists() and pids.read_text().count("\n") == 2, 60)
        ffmpeg, worker = pids.read_text().split()
        assert is_running(ffmpeg)
        assert is_running(worker)
        os.kill(stage.pid, signal.SIGKILL)
        stage.wait()
        assert await_true(lambda: not is_running(ffmpeg) and not is_running(worker), 10)


@pytest.mark.slow  # two workers, each of which imports pandas through Arrow
def test_a_full_disk_is_reported_once_and_leaves_finished_shards_alone(project):
    """By a limit on the size of files, which the kernel reports like a full disk."""
    for i, num_frames in enumerate((2, 120, 3, 120)):
        make_video(project / "v" / "a" / f"{i}.mp4", num_frames)
    scan("mine", project / "v")
    with start_stage(project, 2, limit_bytes=100_000) as stage:
        _, errors = stage.communicate(timeout=100)
    assert stage.returncode == 1
    assert errors.count("File too large") == 1
    assert re.search(r"shard-0000[13]\.tar: .* are free", errors)  # `files.replacing`
    assert "Traceback" not in errors
    left = sorted(path.name for path in Path("data/frames/mine").iterdir())
    assert not [name for name in left if name.endswith(".part") or "00001" in name]
    assert "shard-00000.tar" in left
    assert read_part(Path("data/frames/mine/shard-00000.parquet"))["num_frames"].to_pylist() == [2]

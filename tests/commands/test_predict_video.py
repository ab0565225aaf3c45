"""`clipzoo predict` with a model that sees colors: forms of output, windows, pictures, faults."""

import csv
import io
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image

import colors
from clipzoo import __main__
from clipzoo.commands import predict
from clipzoo.commands.arguments import make_parser
from clipzoo.serve import drawing
from clipzoo.serve.drawing import Curve, clock, frames_to_draw
from clipzoo.serve.model import VideoModel
from clipzoo.serve.output import numbered
from clipzoo.serve.prediction import FrameWeights, Prediction, Window
from colors import Colors, make_colored


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """red-blue.mp4 of 4 s, green.avi of 2 s."""
    folder = tmp_path_factory.mktemp("videos")
    make_colored(folder / "red-blue.mp4", [("red", 3), ("blue", 1)])
    make_colored(folder / "green.avi", [("green", 2)])
    return folder


@pytest.fixture(autouse=True)
def model(monkeypatch) -> VideoModel:
    """In the place of the one that `--model` names."""
    make_parser()  # imports the commands, some of which import `open_model`
    made = colors.model()
    monkeypatch.setattr(predict, "open_model", lambda folder, device: made)
    return made


def run(monkeypatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["clipzoo", "predict", *map(str, arguments)])
    try:
        __main__.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_csv_has_a_row_for_each_label(videos, model, monkeypatch, capsys):
    assert run(monkeypatch, videos, "--csv", "--top", 2) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(Path(r["video"]).name, r["label"]) for r in rows][::2] == [
        ("green.avi", "green"),
        ("red-blue.mp4", "red"),
    ]
    found = model.predict(videos / "green.avi", top=2)
    assert [float(r["score"]) for r in rows[:2]] == found.probabilities
    assert [float(r["cosine"]) for r in rows[:2]] == found.cosines
    assert list(rows[0]) == ["video", "label", "score", "cosine"]


def test_windows_in_every_form(videos, model, monkeypatch, capsys):
    path = videos / "red-blue.mp4"
    expected = list(model.windows(path, every=1))
    assert run(monkeypatch, path, "--every", 1) == 0
    title, *lines = capsys.readouterr().out.splitlines()
    assert title == str(path)
    assert [line.split()[-1] for line in lines] == ["red", "red", "red", "blue"]
    assert lines[1].split()[:4] == ["1.00", "to", "2.00", "s"]
    assert run(monkeypatch, path, "--every", 1, "--top", 2) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5
    assert run(monkeypatch, path, "--every", 1, "--json", "--top", 2) == 0
    content = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for row, window in zip(content, expected, strict=True):
        assert (row["start"], row["end"]) == (window.start, window.end)
        assert [p["label"] for p in row["predictions"]] == window.labels[:2]
        assert [p["score"] for p in row["predictions"]] == window.probabilities[:2]
        assert set(row["predictions"][0]) == {"label", "score", "cosine"}
        assert (row["frames"], row["seconds"]) == (window.frames, window.seconds)
    assert run(monkeypatch, videos, "--every", 1, "--csv", "--top", 1) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [float(r["start"]) for r in rows] == [0, 1, 0, 1, 2, 3]
    assert [r["label"] for r in rows] == ["green"] * 2 + ["red"] * 3 + ["blue"]
    assert float(rows[-1]["end"]) == pytest.approx(4)


@pytest.mark.parametrize(("least", "label"), [(0.97, "unknown"), (0.94, "red")])
def test_min_cosine_is_that_of_each_window(videos, monkeypatch, capsys, least, label):
    arguments = ("--min-cosine", least, "--json", "--top", 1)
    for every, expected in ((1, ["red"] * 3 + ["blue"]), (100, [label])):
        assert run(monkeypatch, videos / "red-blue.mp4", *arguments, "--every", every) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [row["predictions"][0]["label"] for row in rows] == expected
    assert (rows[0]["predictions"][0]["score"] is None) == (label == "unknown")
    # of three red frames and a blue one
    assert rows[0]["predictions"][0]["cosine"] == pytest.approx(3 / 10**0.5, abs=0.01)


@pytest.mark.parametrize(("form", "row"), [("--csv", ",unknown,,0."), ("--top=1", "       -   0.")])
def test_unknown_has_no_probability(videos, monkeypatch, capsys, form, row):
    assert run(monkeypatch, videos / "red-blue.mp4", "--min-cosine", 0.97, form) == 0
    assert row in capsys.readouterr().out.splitlines()[-1]


def test_min_cosine_looks_at_all_classes(videos, model, monkeypatch, capsys):
    """The most likely class need not have the highest cosine."""

    def odd(*args, **options):
        assert options["top"] == 3
        rows = {"labels": ["a", "b", "c"], "probabilities": [0.5, 0.3, 0.2]}
        return Prediction(**rows, cosines=[0.1, 0.8, 0.2], frames=[0], seconds=[0.0])

    monkeypatch.setattr(model, "predict", odd)
    arguments = ("--min-cosine", 0.7, "--top", 1, "--csv")
    assert run(monkeypatch, videos / "green.avi", *arguments) == 0
    assert capsys.readouterr().out.endswith(",a,0.5,0.1\n")


def test_names_with_any_characters(videos, tmp_path, monkeypatch, capsys):
    path = tmp_path / 'a,"b"\n\x1b[2J$x$:é.avi'
    shutil.copy(videos / "green.avi", path)
    assert run(monkeypatch, path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["video"] == str(path)
    assert run(monkeypatch, path, "--csv", "--top", 1) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row["video"], row["label"]) == (str(path), "green")
    assert run(monkeypatch, path, "--save", tmp_path / "pictures") == 0
    assert "\x1b" not in capsys.readouterr().out
    assert len(list((tmp_path / "pictures").iterdir())) == 1


def test_a_name_that_is_not_text_costs_no_other(videos, tmp_path, monkeypatch, capsys):
    path = tmp_path / os.fsdecode(b"a\xff.avi")
    shutil.copy(videos / "green.avi", path)
    for more in ((), ("--every", 1)):
        assert run(monkeypatch, path, videos / "green.avi", *more, "--top", 1) == 1
        done = capsys.readouterr()
        assert done.out.splitlines()[-1].endswith("green")
        assert r"a\udcff.avi: its name is not UTF-8; rename the file" in done.err


class Terminal(io.StringIO):
    """What is shown of what is printed, where a carriage return moves to the start of a line."""

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        shown = []
        for line in self.getvalue().split("\n"):
            cells: list[str] = []
            for part in line.split("\r"):
                cells[: len(part)] = part
            shown.append("".join(cells).rstrip())
        return shown


@pytest.mark.parametrize("every", [(), ("--every", 1)])
def test_the_bar_leaves_lines_alone(videos, tmp_path, monkeypatch, capsys, every):
    (tmp_path / "broken.mp4").write_text("x")
    files = [videos / "green.avi", tmp_path / "broken.mp4", videos / "red-blue.mp4"]
    assert run(monkeypatch, *files, *every) == 1
    printed = capsys.readouterr().out.splitlines()
    terminal = Terminal()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", terminal)
        patched.setattr(sys, "stderr", terminal)
        assert run(patched, *files, *every) == 1
    lines = terminal.lines()
    assert "3/3" in terminal.getvalue(), "there is a bar"
    assert [line for line in lines if line in printed] == printed
    assert any(line.startswith("error: ") and "broken.mp4" in line for line in lines)


def test_one_file_has_no_bar(videos, monkeypatch, capsys):
    assert run(monkeypatch, videos / "green.avi") == 0
    assert capsys.readouterr().err == ""


def test_a_video_that_breaks_within_costs_no_other(videos, model, monkeypatch, capsys):
    """Windows before the fault are told; the exit code is 1."""
    windows = model.windows

    def breaking(path, *args, **options):
        for number, window in enumerate(windows(path, *args, **options)):
            if Path(path).name == "green.avi" and number:
                raise predict.VideoError("green.avi: it went away")
            yield window

    monkeypatch.setattr(model, "windows", breaking)
    assert run(monkeypatch, videos, "--every", 1) == 1
    done = capsys.readouterr()
    assert [line.split()[-1] for line in done.out.splitlines() if " s " in line] == (
        ["green", "red", "red", "red", "blue"]
    )
    assert "error: green.avi: it went away" in done.err
    assert "1 of 2 videos cannot be read" in done.err


def test_pictures_are_drawn(videos, tmp_path, monkeypatch, capsys):
    twin = tmp_path / "more" / "green.avi"
    twin.parent.mkdir()
    shutil.copy(videos / "green.avi", twin)
    files = (videos / "green.avi", twin, videos / "red-blue.mp4")
    assert run(monkeypatch, *files, "--save", tmp_path / "p") == 0
    drawn = sorted((tmp_path / "p").rglob("*.png"), key=lambda path: path.name)
    assert [path.name for path in drawn] == ["green.avi.png"] * 2 + ["red-blue.mp4.png"]
    assert len({path.parent for path in drawn}) == 2
    pixels = np.asarray(Image.open(next(p for p in drawn if "red" in p.name)).convert("RGB"))
    flat = pixels.reshape(-1, 3).astype(int)
    for color in ((1, 0, 0), (0, 0, 1)):  # of the frames
        target = 255 * np.asarray(color)
        assert (np.abs(flat - target).max(axis=1) < 12).sum() > 2000
    first = drawn[0].read_bytes()
    assert run(monkeypatch, *files, "--save", tmp_path / "p") == 0
    assert drawn[0].read_bytes() == first


@pytest.mark.parametrize("linked", [False, True])
def test_pictures_stay_below_their_folder(videos, tmp_path, monkeypatch, capsys, linked):
    monkeypatch.chdir(tmp_path)
    for name in ("a/x.avi", "e/b/y.avi"):
        Path(name).parent.mkdir(parents=True)
        shutil.copy(videos / "green.avi", name)
    Path("a/link").symlink_to("../e/b")
    other = "a/link/../b/y.avi" if linked else "a/../e/b/y.avi"
    assert run(monkeypatch, "a/x.avi", other, "--save", "out/p") == 0
    drawn = sorted(str(path) for path in Path().rglob("*.png"))
    assert drawn == ["out/p/a/x.avi.png", "out/p/e/b/y.avi.png"]


def test_a_list_of_another_system(videos, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{videos / 'green.avi'}\r\n\r\n"))
    assert run(monkeypatch, "-") == 0
    assert capsys.readouterr().out.startswith(str(videos / "green.avi"))


@pytest.mark.parametrize(("count", "text"), [(1, "1 frame"), (2, "2 frames"), (0, "0 frames")])
def test_numbers_of_things(count, text):
    assert numbered(count, "frame") == text


def test_a_curve_is_drawn_of_windows(videos, tmp_path, model, monkeypatch, capsys):
    drawn = []
    draw = drawing.draw_curve

    def note(path, title, curve, stills):
        drawn.append((title, curve, stills))
        draw(path, title, curve, stills)

    monkeypatch.setattr(drawing, "draw_curve", note)
    arguments = ("--every", 1, "--save", tmp_path, "--top", 1)
    assert run(monkeypatch, videos / "red-blue.mp4", *arguments) == 0
    assert (tmp_path / "red-blue.mp4.png").stat().st_size > 5000
    ((title, curve, stills),) = drawn
    assert title == "red-blue.mp4"
    assert curve.edges == [0, 1, 2, 3, pytest.approx(4)]
    lines = dict(curve.curves())
    assert set(lines) == {"red", "blue"}, "green is below LEAST_SHARE"
    assert lines["red"].argmax() in (0, 1)
    assert lines["blue"].argmax() == 3
    assert stills.shape == (drawing.NUM_STILLS, 3, 16, 16)
    red = stills.float().mean(dim=(2, 3))[:, 0]
    assert (red[:6] > 200).all()
    assert (red[-2:] < 60).all()


def test_frames_to_draw():
    plain = Prediction(labels=[], probabilities=[], cosines=[], frames=[1, 5, 7], seconds=[])
    assert frames_to_draw(plain) == [1, 5, 7]
    weights = FrameWeights(frames=[5, 5, 7], by_label=[])
    weighted = Prediction(
        labels=[], probabilities=[], cosines=[], frames=[5, 7], seconds=[], weights=weights
    )
    assert frames_to_draw(weighted) == [5, 5, 7]
    many = Prediction(labels=[], probabilities=[], cosines=[], frames=list(range(100)), seconds=[])
    assert len(frames_to_draw(many)) == drawing.MAX_FRAMES
    assert frames_to_draw(many)[::31] == [0, 99]


def test_curves_keep_what_is_likely_at_some_time():
    curve = Curve()
    for start in range(20):
        high = "b" if start == 15 else "a"
        names = [high, *(f"c{i}" for i in range(20)), "a" if high == "b" else "b"]
        window = Window(
            labels=names, probabilities=[0.9, *[0.004] * 21], cosines=[0.0] * 22,
            frames=[10 * start, 10 * start + 5], seconds=[], start=2.0 * start, end=2.0 * start + 2,
        )  # fmt: skip
        curve.add(window)
    assert [name for name, _ in curve.curves()] == ["a", "b"]
    assert curve.num_classes == 22
    assert curve.stills() == [10 * k + 5 for k in range(1, 20, 2)]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (7.5, "7.5 s"), (75, "1:15"), (3675, "1:01:15")]
)
def test_times_as_people_write_them(seconds, text):
    assert clock(seconds) == text


GALLERY = [
    (["--every", "0"], "error: --every: found 0; allowed: 0.001 seconds or more"),
    (["--every", "-2"], "--every: found -2; allowed"),
    (["--every", "1e-9"], "error: --every: found 1e-09; allowed: 0.001 seconds or more"),
    (["--every", "nan"], "--every: found nan; allowed"),
    (["--every", "inf"], "--every: found inf; allowed"),
    (["--top", "0"], "--top: found 0; allowed: 1 or more"),
    (["--clips", "0"], "--clips: found 0; allowed: 1 to 1000"),
    (["--clips", "1000000"], "--clips: found 1000000; allowed: 1 to 1000"),
    (["--crops", "-1"], "--crops: found -1; allowed: one of 1, 3, 5, 10"),
    (["--crops", "2"], "error: --crops: found 2; allowed: one of 1, 3, 5, 10"),
    (["--crops", "2", "--every", "1"], "error: --crops: found 2; allowed: one of 1, 3, 5, 10"),
    (["--min-cosine", "2"], "--min-cosine: found 2; allowed: -1 to 1"),
    (["--min-cosine", "nan"], "--min-cosine: found nan; allowed: -1 to 1"),
    (["--save", "FILE"], "which is a file; allowed: a folder"),
    (["--save", "FILE/a/b"], "--save: found FILE/a/b in FILE, which is a file; allowed: a folder"),
    (["--class", "a, b"], "the model is closed, without a text tower"),
    (["--class", "a, a"], "class name 'a' appears more than once"),
    (["--class", ","], "class 1: the class name is empty"),
    (["--classes", "nowhere.txt"], "nowhere.txt"),
    (["--classes", "EMPTY"], "EMPTY: found no class; allowed: one a line"),
    (["--classes", "TWICE"], "TWICE:4: class name 'a' appears more than once (TWICE:1)"),
    (["--model", "openclip:ViT-B-32/openai"], "openclip:ViT-B-32/openai: class_names: found none"),
]


@pytest.mark.parametrize(("arguments", "message"), GALLERY, ids=[" ".join(a) for a, _ in GALLERY])
def test_wrong_arguments_are_named(videos, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("FILE").write_text("x")
    Path("EMPTY").write_text("\n")
    Path("TWICE").write_text("a\n\nb\na\n")
    assert run(monkeypatch, videos / "green.avi", *arguments) == 1
    done = capsys.readouterr()
    assert done.out == ""
    assert done.err.startswith("error: ")
    assert message in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--json", "--csv"],
        ["--zero-shot", "--trained"],
        ["--class", "a", "--classes", "b"],
        ["--every"],
        ["--every", "soon"],
        ["--top", "2.5"],
        ["--device", "tpu"],
    ],
    ids=" ".join,
)
def test_what_the_parser_refuses(videos, monkeypatch, capsys, arguments):
    assert run(monkeypatch, videos / "green.avi", *arguments) == 2
    assert arguments[0] in capsys.readouterr().err


NO_VIDEOS = {
    "empty.mp4": "it is empty",
    "list.ffconcat": "it is not a video but a playlist",
    "text.mp4": "it is not a video that ffmpeg can read (",
    "folder.mp4": "no video in this folder",
    "nowhere.mp4": "no such file",
    "jpeg.mp4": "it is not a video",
    "/dev/null": "not a regular file",
    "fifo": "not a regular file",
}


@pytest.mark.parametrize("name", NO_VIDEOS)
@pytest.mark.parametrize("every", [(), ("--every", "1")], ids=["whole", "windows"])
def test_what_is_no_video(videos, tmp_path, monkeypatch, capsys, name, every):
    monkeypatch.chdir(tmp_path)
    Path("empty.mp4").touch()
    Path("list.ffconcat").write_text("ffconcat version 1.0\nfile /etc/passwd\n")
    Path("text.mp4").write_text("Dear diary,\n" * 50)
    os.mkfifo("fifo")
    Path("folder.mp4").mkdir()
    image = np.zeros((16, 16, 3), np.uint8)
    Path("jpeg.mp4").write_bytes(simplejpeg.encode_jpeg(image))
    assert run(monkeypatch, name, videos / "green.avi", *every, "--top", 1) == 1
    done = capsys.readouterr()
    assert f"error: {name}: {NO_VIDEOS[name]}" in done.err
    if name != "folder.mp4":  # a folder without videos is an error of the arguments
        assert "1 of 2 videos cannot be read" in done.err
        assert done.out.splitlines()[-1].endswith("green")


def test_text_of_new_classes_is_embedded_once(videos, monkeypatch, capsys):
    made = VideoModel(colors.folder(kind="open"), "cpu")
    monkeypatch.setattr(predict, "open_model", lambda folder, device: made)
    calls = []

    def embed(names, templates):
        calls.append(names)
        order = [list(colors.COLORS).index(name) for name in names]
        return made.text.of_classes(order)

    monkeypatch.setattr(made, "_class_text", embed)
    arguments = ("--class", "blue, red", "--every", 1, "--csv")
    assert run(monkeypatch, videos, videos / "green.avi", *arguments) == 0
    labels = {row["label"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    assert labels == {"blue", "red"}
    assert calls == [["blue", "red"]]


def test_each_video_is_encoded_once(videos, tmp_path, monkeypatch, capsys):
    method = Colors()
    monkeypatch.setattr(predict, "open_model", lambda *_: colors.model(method))
    assert run(monkeypatch, videos, "--save", tmp_path, "--min-cosine", 0.1, "--json") == 0
    assert method.num_encoded == 2
    assert run(monkeypatch, videos, "--save", tmp_path, "--every", 1) == 0
    assert method.num_encoded == 2 + 6

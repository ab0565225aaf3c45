"""Lists of other projects: what is written is read back; what cannot be held is refused."""

from dataclasses import replace

import pytest

from clipzoo.annotations.peer_lists import (
    FORMATS,
    LAYOUTS,
    Entry,
    guess_format,
    read_entries,
    write_entries,
)
from clipzoo.files import ListError

PLAIN = [
    Entry(where="x:1", video_id="jump/v_ü", extension=".avi", num_frames=30, label=0),
    Entry(where="x:2", video_id="run.fast/b", extension=".mp4", num_frames=8, label=11),
]
SPACED = [Entry(where="x:1", video_id="to jump/a 3", extension=".avi", num_frames=30, label=2)]
SEGMENTS = [
    Entry(where="x:1", video_id="a", num_frames=3, label=1, start_frame=0),
    Entry(where="x:2", video_id="a", num_frames=4, label=1, start_frame=3),
]
SEVERAL = [
    Entry(where="x:1", video_id="a", num_frames=3, label=1, labels=(1, 4)),
    Entry(where="x:2", video_id="b", num_frames=4, label=2, labels=(2,)),
]


def essence(entries, form: str) -> list[tuple]:
    """What a format holds of entries."""
    layout = LAYOUTS.get(form)
    frames = layout is None or "num_frames" in layout.columns
    extension = layout is not None and layout.extension
    return [
        (
            e.video_id,
            e.extension if extension else "",
            e.num_frames if frames else None,
            e.label,
            e.start_frame,
            e.labels or (e.label,),
        )
        for e in entries
    ]


@pytest.mark.parametrize("form", FORMATS)
def test_round_trip(tmp_path, form):
    write_entries(PLAIN, tmp_path / "a", form)
    back, empty = read_entries(tmp_path / "a", form)
    assert (essence(back, form), empty) == (essence(PLAIN, form), [])
    write_entries(back, tmp_path / "b", form)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


MMACTION2 = ("mmaction2-rawframes", "mmaction2-rawframes-offset", "mmaction2-videos")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("entries", "able"),
    [
        (SPACED, ("clipzoo", "csv", "openvclip")),
        (SEGMENTS, ("clipzoo", "mmaction2-rawframes-offset")),
        (SEVERAL, ("clipzoo", *MMACTION2)),
    ],
    ids=["spaces", "segments", "labels"],
)
def test_what_a_format_cannot_hold_is_refused_and_all_else_kept(tmp_path, form, entries, able):
    path = tmp_path / "a"
    if form not in able:
        with pytest.raises(ListError, match="x:"):
            write_entries(entries, path, form, extension=".mp4")
        assert not path.exists()
        return
    write_entries(entries, path, form, extension=".mp4")
    expected = [replace(e, extension=e.extension or ".mp4") for e in entries]
    assert essence(read_entries(path, form)[0], form) == essence(expected, form)


def test_paths_with_spaces_are_read_where_columns_are_fixed(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("air drumming/a 12 30 3\n")
    (entry,), _ = read_entries(path, "text4vis-frames")
    assert (entry.video_id, entry.num_frames, entry.label) == ("air drumming/a 12", 30, 3)
    with pytest.raises(ListError, match="does not allow paths with spaces"):
        read_entries(path, "mmaction2-rawframes")


def test_doubled_slashes_and_roots(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("/data/k400//x/a.mp4 3\n/data/k400/b.mp4 1\n")
    with pytest.raises(ListError, match=r"list.txt:1: absolute path .*--strip"):
        read_entries(path, "vificlip")
    entries, _ = read_entries(path, "vificlip", strip="/data/k400")
    assert [e.video_id for e in entries] == ["x/a", "b"]
    with pytest.raises(ListError, match=r"list.txt:1: path '/data/k400//x/a.mp4' does not begin"):
        read_entries(path, "vificlip", strip="/elsewhere")


@pytest.mark.parametrize(
    ("form", "line", "message"),
    [
        ("text4vis-frames", "a 3", r"l.txt:2: found 2 fields; allowed: path num_frames label"),
        ("text4vis-frames", "a x 3", r"l.txt:2: found 'x 3' after the path; allowed: numbers"),
        ("text4vis-frames", "a 3 -1", r"l.txt:2: found '3 -1' after"),
        ("text4vis-frames", "a 0 1", r"l.txt:2: a has 0 frames; --drop-empty"),
        ("text4vis-frames", "a 99999999 1", r"l.txt:2: .*allowed: smaller numbers"),
        ("text4vis-frames", "ok 4 1", r"l.txt:2: 'ok' is in .*l.txt:1 too"),
        ("text4vis-frames", "../a 4 1", r"l.txt:2: path '../a' leaves"),
        ("csv", "a.mp4,1,2", r"l.txt:2: found 3 fields; allowed: path,label"),
        ("mmaction2-videos", "a.mp4", r"l.txt:2: found 1 fields"),
    ],
)
def test_bad_lines_are_named(tmp_path, form, line, message):
    path = tmp_path / "l.txt"
    first = {"csv": "ok.mp4,1", "mmaction2-videos": "ok.mp4 1"}.get(form, "ok 5 1")
    path.write_text(f"{first}\n{line}\n")
    with pytest.raises(ListError, match=message):
        read_entries(path, form)


def test_videos_without_frames_are_left_out_on_demand_alone(tmp_path):
    path = tmp_path / "l.txt"
    path.write_text("a 0 1\nb 5 1\n")
    entries, empty = read_entries(path, "text4vis-frames", allow_empty=True)
    assert ([e.video_id for e in entries], empty) == (["b"], [f"{path}:1: a"])


def test_what_is_not_known_must_be_given(tmp_path):
    (tmp_path / "v.txt").write_text("x/a.mp4 3\n")
    entries, _ = read_entries(tmp_path / "v.txt", "xclip")
    for form in ("clipzoo", "text4vis-frames", "mmaction2-rawframes"):
        with pytest.raises(ListError, match="unknown number of frames"):
            write_entries(entries, tmp_path / "o", form)
    left_out = write_entries(entries, tmp_path / "o", "text4vis-frames", frames={"x/a": 7})
    assert (tmp_path / "o").read_text() == "x/a 7 3\n"
    assert left_out == ["text4vis-frames names videos without extension: left out .mp4"]
    entries, _ = read_entries(tmp_path / "o", "text4vis-frames")
    with pytest.raises(ListError, match="unknown file extension"):
        write_entries(entries, tmp_path / "v", "vificlip")
    left_out = write_entries(entries, tmp_path / "v", "vificlip", files={"x/a": "y/a.webm"})
    assert (tmp_path / "v").read_text() == "y/a.webm 3\n"
    assert left_out == ["vificlip has no frame counts: left out"]


@pytest.mark.parametrize(
    ("line", "form"),
    [
        ("video_id,num_frames,label", "clipzoo"),
        ("a/b 12 3", "text4vis-frames"),
        ("a/b.mp4 3", "text4vis-videos"),
        ("a/b c.mp4,3", "csv"),
    ],
)
def test_formats_are_guessed(tmp_path, line, form):
    (tmp_path / "l").write_text(line + "\n")
    assert guess_format(tmp_path / "l") == form


@pytest.mark.parametrize("text", ["", "\n\n", "a\n", "a b\n"])
def test_what_is_no_list_is_not_guessed(tmp_path, text):
    (tmp_path / "l").write_text(text)
    with pytest.raises(ListError, match="allowed: a list in one of"):
        guess_format(tmp_path / "l")


def test_segments_that_begin_together_are_no_duplicates(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("a 0 30 1\na 0 30 2\na 0 40 1\n")
    entries, _ = read_entries(path, "mmaction2-rawframes-offset")
    assert [(e.num_frames, e.label) for e in entries] == [(30, 1), (30, 2), (40, 1)]
    path.write_text("a 0 30 1\na 0 30 1\n")
    with pytest.raises(ListError, match=r"train.txt:2: 'a' is in .*train.txt:1 too"):
        read_entries(path, "mmaction2-rawframes-offset")

"""List files: what is written is read back, and every bad line is named."""

import hashlib

import pytest

from clipzoo.data.records import (
    Record,
    check_video_id,
    pick_shots,
    read_labels,
    read_list,
    videos_sha256,
    write_labels,
    write_list,
)
from clipzoo.files import ListError

HEADER = "video_id,num_frames,label\n"


@pytest.mark.parametrize(
    "records",
    [
        [Record("a/b", 3, 0), Record("c, with comma", 9, 1), Record('ü "quoted" 名前', 1, 1)],
        [Record("a", 3, 0), Record("a", 4, 1, start_frame=3)],
        [Record("a", 3, 0), Record("a", 3, 1), Record("a", 3, 1)],
        [Record("a", 3, 0, 0, (0, 1)), Record("b", 3, -1, 0, ())],
    ],
    ids=["plain", "segments", "equal segments from the start", "multi-label"],
)
def test_round_trip(tmp_path, records):
    write_list(records, tmp_path / "x" / "val.csv")
    assert read_list(tmp_path / "x" / "val.csv", 2) == records


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a,1", r"list.csv:3: found 2 fields; allowed: 3 \(video_id,num_frames,label\)"),
        ("a,1,0,0", "list.csv:3: found 4 fields"),
        ("a,1,2", "list.csv:3: label: found '2'; allowed: a whole number from 0 to 1"),
        ("a,1,-1", "list.csv:3: label: found '-1'"),
        ("a,1,x", "list.csv:3: label: found 'x'"),
        ("a,-5,0", "list.csv:3: num_frames: found '-5'; allowed: a whole number from 1 to"),
        ("a,0,0", "list.csv:3: num_frames: found '0'"),
        ("a,99999999,0", "list.csv:3: num_frames: found '99999999'"),
        ("a,1.5,0", "list.csv:3: num_frames: found '1.5'"),
        ("a,1_0,0", "list.csv:3: num_frames: found '1_0'"),
        ("a,\u0663,0", "list.csv:3: num_frames: found '\u0663'"),
        ("a,nan,0", "list.csv:3: num_frames: found 'nan'"),
        (f"a,{'9' * 5000},0", "list.csv:3: num_frames: found '9{100}'; allowed"),
        ("/etc/a,1,0", "list.csv:3: absolute path '/etc/a'"),
        ("C:/a,1,0", "list.csv:3: absolute path"),
        ("a/../../b,1,0", r"list.csv:3: path 'a/../../b' leaves the dataset's root"),
        (",1,0", "list.csv:3: video id ''"),
        ("ok,7,1", "list.csv:3: video 'ok' is in line 2 too"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, message):
    path = tmp_path / "list.csv"
    path.write_text(f"{HEADER}ok,5,1\n{line}\n")
    with pytest.raises(ListError, match=message):
        read_list(path, 2)


def test_all_bad_lines_are_reported_at_once(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text(HEADER + "".join(f"v{i},0,0\n" for i in range(30)))
    with pytest.raises(ListError, match="30 bad lines") as caught:
        read_list(path, 2)
    assert "list.csv:21:" in str(caught.value)
    assert "and 10 more" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video_id,label\na,1\n", "found header 'video_id,label'; allowed: video_id,num_frames"),
        ("video_id,num_frames,label,extra\n", "found header"),
        ("", "found header ''"),
        (b"video_id,num_frames,label\n\xff,1,0\n", "is not UTF-8"),
    ],
)
def test_bad_files(tmp_path, text, message):
    path = tmp_path / "list.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ListError, match=message):
        read_list(path, 2)
    with pytest.raises(ListError, match="cannot be read"):
        read_list(tmp_path / "absent.csv", 2)


def test_check_video_id_allows_what_peers_use():
    for name in ("a b/c d", "v_x.y", "-abc_000001_000002", "日本/動画", "a..b/c"):
        assert check_video_id(name) is None
    for name in ("/a", "..", "a/..", "a//b", "./a", "\\\\host\\a", "a\nb", ""):
        assert check_video_id(name) is not None


def test_labels(tmp_path):
    names = ["a red circle", "größer, werdend", 'say "x"']
    write_labels(names, tmp_path / "labels.csv")
    assert read_labels(tmp_path / "labels.csv") == names
    bad = tmp_path / "bad.csv"
    for text, message in [
        ("id,name\n1,a\n", "bad.csv:2: found id '1'; allowed: 0"),
        ("id,name\n0,a\n1,a\n", "class name 'a' appears more than once"),
        ("id,name\n0, \n", "bad.csv:2: the class name is empty"),
        ("id,name\n", "there are no classes"),
    ]:
        bad.write_text(text)
        with pytest.raises(ListError, match=message):
            read_labels(bad)


def test_fingerprint_is_that_of_the_sorted_ids():
    expected = hashlib.sha256(b"a\nb\nc").hexdigest()
    assert videos_sha256(["c", "a", "b"]) == videos_sha256(iter("abc")) == expected
    assert videos_sha256(["x/y/c", "z/a", "b"]) == expected


def test_shots_depend_on_the_class_alone():
    records = [Record(f"v{i}", 10, i % 3) for i in range(30)]
    picked = pick_shots(records, 4, seed=7)
    assert [sum(r.label == k for r in picked) for k in range(3)] == [4, 4, 4]
    assert picked == [r for r in records if r in picked]
    without_last = [r for r in records if r.label != 2]
    assert pick_shots(without_last, 4, 7) == [r for r in picked if r.label != 2]
    assert pick_shots(records, 4, 8) != picked
    with pytest.raises(ListError, match=r"16 shots: classes \[0, 1, 2\] have fewer"):
        pick_shots(records, 16, 7)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("wave  hand", r"labels\.csv:3: .*differs from 'wave hand' only in blanks \(.*csv:2\)"),
        (" wave hand", r"labels\.csv:3: .*differs from 'wave hand' only in blanks"),
        ("wavehand", r"labels\.csv:3: .*differs from 'wave hand' only in blanks"),
        ("wave hand", r"labels\.csv:3: .*appears more than once \(.*csv:2\)"),
        ("  ", r"labels\.csv:3: the class name is empty"),
        ("wave\thand 2", r"labels\.csv:3: .*has the character U\+0009, which nobody sees"),
        ("bell\x07", r"labels\.csv:3: .*U\+0007"),
        ("wave\u00a0hand 2", r"labels\.csv:3: .*U\+00A0"),
        ("wave\u200b hand 2", r"labels\.csv:3: .*U\+200B"),
        ("\u202egninnur", r"labels\.csv:3: .*U\+202E"),
        ("sit\u2028down", r"labels\.csv:3: .*U\+2028"),
    ],
)
def test_class_names_that_cannot_be_told_apart_are_named(tmp_path, second, message):
    write_labels(["wave hand", second], tmp_path / "labels.csv")
    with pytest.raises(ListError, match=message):
        read_labels(tmp_path / "labels.csv")


def test_class_names_of_every_script_are_read(tmp_path):
    names = [
        "Tai chi",
        "salsa, spin",
        "食べる",
        "\u0645\u06cc\u200c\u062f\u0648\u062f",
        "a-b",
        "a_b",
    ]
    write_labels(names, tmp_path / "labels.csv")
    assert read_labels(tmp_path / "labels.csv") == names

"""Charades: official files and BIKE's training list, from file to lists; segments cut to videos."""

from pathlib import Path

import pytest

from annotating import annotate, ids, store_index
from clipzoo.annotations.joining import build_lists
from clipzoo.annotations.matching import segment_frames
from clipzoo.config import ConfigError
from clipzoo.data.ledger import write_ledger
from clipzoo.data.records import read_labels, read_list
from clipzoo.data.spec import load_spec
from clipzoo.files import ListError
from clipzoo.report.verdicts import video_sets

CLASSES = "c000 Holding some clothes\nc001 Closing a door\nc002 Holding a phone/camera\n"
HEADER = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\n"
SHORT_HEADER = HEADER.replace(",length", "")
SEGMENT_HEADER = "video_id,label,start_time,end_time,total_time\n"


def official(video_id: str, actions: str, length: str = "") -> str:
    """A line of an official file, with its commas, quotes and a line break in a quoted field."""
    script = '"A person ""runs"", then\nleaves."'
    end = f",{length}" if length else ""
    return f"{video_id},HR43,Hallway,6,,Yes,{script},food;stove,a;b,{actions}{end}\n"


# aaaaa: the second segment ends after the video. bbbbb: two equal segments, one of another class,
# and one without length. ddddd has no label.
TRAIN = [
    ("aaaaa", "c001 11.90 21.20;c002 0.00 24.90", "24.83"),
    ("ddddd", "", "30.00"),
    ("bbbbb", "c000 0.10 0.60;c000 0.10 0.60;c001 0.10 0.60;c002 5.00 5.00", "10.29"),
]
EXPECTED = [
    # video, start_frame, num_frames, label: 11.9 * 24 = 285.6; 24.83 * 24 = 595.92
    ("aaaaa", 285, int(21.2 * 24 - 11.9 * 24), 1),
    ("aaaaa", 0, 595, 2),
    ("bbbbb", 2, 11, 0),  # 14.4 - 2.4 is just below 12
    ("bbbbb", 2, 11, 0),
    ("bbbbb", 2, 11, 1),
]
TEST = [("eeeee", "c002 1.00 2.00;c000 3.00 2.00;c002 5 9.5", "30.00"), ("fffff", "", "9.00")]
FILES = {
    "Charades_v1_classes.txt": CLASSES,
    "Charades_v1_train.csv": HEADER + "".join(official(*row) for row in TRAIN),
    # The first release had no lengths.
    "Charades_v1_test.csv": SHORT_HEADER
    + "".join(official(*row[:2]) for row in TEST)
    + official("ggggg", "c001 0.00 1.00"),
}
SPEC = "fps: 24\nsegment_rule: truncated\noverrun_frames: 24\n"
VIDEOS = {"aaaaa": 596, "bbbbb": 247, "eeeee": 720, "fffff": 216, "ggggg": 100}


def rows(name: str) -> list[tuple[str, int, int, int]]:
    records = read_list(f"lists/mine/{name}.csv", 3)
    return [(r.video_id, r.start_frame, r.num_frames, r.label) for r in records]


def test_segments_to_train_on_and_whole_videos_to_test(params_for):
    annotate("charades", FILES, SPEC + "num_classes: 3\nnum_train: [5]\nnum_val: [3]\n")
    store_index(VIDEOS)
    summary = build_lists(params_for("mine"), "mine")
    assert read_labels("lists/mine/labels.csv")[2] == "Holding a phone/camera"
    assert rows("train") == EXPECTED
    val = read_list("lists/mine/val.csv", 3)
    assert [(r.video_id, r.num_frames, r.label, r.labels) for r in val] == [
        ("eeeee", 720, 0, (0, 2)),  # the segment that ends before it begins has a class too
        ("fffff", 216, -1, ()),
        ("ggggg", 100, 1, (1,)),
    ]
    for note in (
        "training segments are those of Charades_v1_train.csv",
        "skipped: 1 training segments that do not end after their start",
        "1 training segments are annotated beyond the length of their video",
        "1 test videos have no label; they are tested on too",
    ):
        assert note in summary.notes
    assert not any("count once" in note or "are cut" in note for note in summary.notes)


def test_the_authors_list_gives_the_same_records(params_for):
    lines = [
        f"{video_id},{action.replace(' ', ',')},{length}\n"
        for video_id, actions, length in TRAIN
        for action in filter(None, actions.split(";"))
    ]
    files = {**FILES, "Charades_train_split_label.csv": SEGMENT_HEADER + "".join(lines)}
    annotate("charades", files, SPEC)
    store_index(VIDEOS)
    summary = build_lists(params_for("mine"), "mine")
    assert rows("train") == EXPECTED
    assert "training segments are those of Charades_train_split_label.csv" in summary.notes


def test_ids_follow_a_label_file(params_for):
    names = "id,name\n0,a door\n1,a phone\n2,some clothes\n"  # numbered: by position
    annotate("charades", {**FILES, "labels.csv": names}, SPEC)
    store_index(VIDEOS)
    build_lists(params_for("mine"), "mine")
    assert read_labels("lists/mine/labels.csv") == ["a door", "a phone", "some clothes"]
    assert rows("train") == EXPECTED
    short = "id,name\n0,a door\n1,a phone\n"
    annotate("charades", {**FILES, "labels.csv": short}, SPEC)
    with pytest.raises(ListError, match=r"labels.csv: has 2 classes; the annotation files have 3"):
        build_lists(params_for("mine"), "mine")


def test_several_labels_are_renumbered_by_the_names_of_a_committed_file(
    params_for, monkeypatch, project
):
    folder = project / "labels"
    folder.mkdir()
    text = "id,name\n0,Holding a phone/camera\n1,Holding some clothes\n"
    (folder / "short.csv").write_text(text)
    (folder / "other.csv").write_text(f"{text}2,closing A door\n")
    monkeypatch.setattr("clipzoo.annotations.class_names.LABEL_DIR", folder)
    annotate("charades", FILES, SPEC + "class_names: other\n")
    store_index(VIDEOS)
    build_lists(params_for("mine"), "mine")
    val = read_list("lists/mine/val.csv", 3)
    assert [(r.label, r.labels) for r in val] == [(0, (0, 1)), (-1, ()), (2, (2,))]
    assert [label for *_, label in rows("train")] == [2, 0, 1, 1, 2]
    # Without "Closing a door": its segments are skipped, its test video has no label left.
    annotate("charades", FILES, SPEC + "class_names: short\nonly_listed_classes: true\n")
    summary = build_lists(params_for("mine"), "mine")
    assert "skipped: 2 videos of 1 classes that short.csv does not have" in summary.notes
    val = read_list("lists/mine/val.csv", 2)
    assert [(r.label, r.labels) for r in val] == [(0, (0, 1)), (-1, ()), (-1, ())]


def test_a_segment_is_cut_where_its_video_ends_within_the_tolerance(params_for):
    annotate("charades", FILES, SPEC)
    store_index({**VIDEOS, "aaaaa": 571, "bbbbb": 3})  # 24 and 10 frames less than the segments
    summary = build_lists(params_for("mine"), "mine")
    assert rows("train")[:2] == [EXPECTED[0], ("aaaaa", 0, 571, 2)]
    assert rows("train")[2:] == [("bbbbb", 2, 1, label) for label in (0, 0, 1)]
    expected = "4 segments are cut where their video ends, up to 24 frames earlier: aaaaa from 0 s"
    assert any(note.startswith(expected) for note in summary.notes)


def test_segments_that_end_too_late_are_missing(params_for):
    annotate("charades", FILES, SPEC)
    store_index({**VIDEOS, "aaaaa": 300, "bbbbb": 12})
    reason = (
        "short: 2 of 2 segments, e.g. 11.9 to 21.2 s ends 208 frames after its picture "
        "(overrun_frames: 24)"
    )
    with pytest.raises(ListError, match="1 of 5 annotated videos") as caught:
        build_lists(params_for("mine"), "mine")
    assert f"aaaaa (train): {reason}" in str(caught.value)
    assert "bbbbb" not in str(caught.value)
    write_ledger("mine", {"aaaaa": reason})
    summary = build_lists(params_for("mine"), "mine")
    assert summary.missing == [["aaaaa", "train", reason]]
    assert {video for video, *_ in rows("train")} == {"bbbbb"}
    annotate("charades", FILES, SPEC.replace("24\n", "295\n").replace("fps: 295", "fps: 24"))
    build_lists(params_for("mine"), "mine")
    assert rows("train")[0] == ("aaaaa", 285, 15, 1)


@pytest.mark.parametrize(
    ("segment", "expected"),
    [
        ((0.0, 10.0), (0, 100)),  # cut from 240 frames to 100
        ((0.1, 0.6), (2, 11)),
        ((1.0, 1.04), (24, 1)),  # 0.96 frames: still one
        ((4.15, 9.0), (99, 1)),
        ((4.17, 9.0), (99, 1)),  # 100.08, where the last frame may still be shown
        ((8.0, 9.0), None),
    ],
)
def test_truncated_frames(segment, expected):
    start, end = segment
    assert segment_frames(start, end, 24.0, 100, "truncated") == expected


OFFICIAL, TEST_FILE, LIST = (
    "Charades_v1_train.csv",
    "Charades_v1_test.csv",
    "Charades_train_split_label.csv",
)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("Charades_v1_classes.txt", "c000 a\nc002 b\n", r"classes.txt:2: found 'c002 b'; .*c001"),
        ("Charades_v1_classes.txt", "c000 a\nc001\n", r"classes.txt:2: found 'c001'"),
        ("Charades_v1_classes.txt", "c0 a\n", r"classes.txt:1: found 'c0 a'; allowed: 'c000 NAME'"),
        (OFFICIAL, HEADER + official("x", "c003 1 2", "9"), r"train.csv:3: action 1: found 'c003'"),
        (OFFICIAL, HEADER + official("x", "c000 1 2;c000 1", "9"), r":3: action 2: found 'c000 1'"),
        (OFFICIAL, HEADER + official("x", "c000 1 2;", "9"), r":3: action 2: found ''; allowed"),
        (OFFICIAL, HEADER + official("x", "c000 -1 2", "9"), r":3: action 1: .*'-1' to '2' of '9'"),
        (OFFICIAL, HEADER + official("x", "c000 1 nan", "9"), r":3: action 1: .*'1' to 'nan'"),
        (OFFICIAL, HEADER + official("x", "c000 1 2", "1e9"), r":3: action 1: .*of '1e9'"),
        (OFFICIAL, HEADER + official("x", "c000 1 99999999", "9"), r":3: action 1: .*'99999999'"),
        (OFFICIAL, HEADER + official("x", "c000 9 12", "9"), r"1: begins at 9 s; its video is 9 s"),
        (
            OFFICIAL,
            HEADER + 2 * official("x", "c000 1 2", "9"),
            r"train.csv:5: 'x' is in .*train.csv:3 too",
        ),
        (OFFICIAL, SHORT_HEADER + official("x", "c000 1 2"), r"train.csv:1: found header"),
        (
            OFFICIAL,
            HEADER + official("x", "c000 1 2"),
            r"train.csv:3: found 10 fields; allowed: 11",
        ),
        (OFFICIAL, HEADER + official("/x", "c000 1 2", "9"), r":3: action 1: absolute path '/x'"),
        (
            OFFICIAL,
            HEADER + official("eeeee", "c000 1 2", "9"),
            r"test.csv:3: 'eeeee' is in .*train.csv:3: action 1 too",
        ),
        (TEST_FILE, HEADER + official("x", "c007 1 2", "9"), r"test.csv:3: action 1: found 'c007'"),
        (TEST_FILE, HEADER + official("x", "c000 a 2", "9"), r"test.csv:3: action 1: .*'a' to '2'"),
        (TEST_FILE, HEADER, r"there are no val videos"),
        (TEST_FILE, None, r"Charades_v1_test.csv: cannot be read"),
        (OFFICIAL, None, r"has no Charades_v1_train.csv or Charades_train_split_label.csv"),
        (LIST, SEGMENT_HEADER + "x,c000,1,2\n", r"label.csv:2: found 4 fields; allowed: 5"),
        (LIST, SEGMENT_HEADER + "x,c009,1,2,9\n", r"label.csv:2: found 'c009', '1' to '2' of '9'"),
        (LIST, SEGMENT_HEADER + "x,c000,1,,9\n", r"label.csv:2: found 'c000', '1' to '' of '9'"),
        (LIST, SEGMENT_HEADER + "x,c000,10,12,9\n", r"label.csv:2: begins at 10 s; its video is 9"),
        (LIST, "id,label\n", r"label.csv:1: found header 'id,label'"),
    ],
)
def test_every_fault_is_named(params_for, name, text, message):
    annotate("charades", {**FILES, **({} if text is None else {name: text})}, SPEC)
    if text is None:
        Path("data/annotations/mine", name).unlink()
    store_index({**VIDEOS, "x": 300})
    with pytest.raises(ListError, match=message):
        build_lists(params_for("mine"), "mine")


def test_a_class_needs_a_segment_and_a_test_video(params_for):
    files = {**FILES, TEST_FILE: HEADER + official("eeeee", "c000 1 2;c002 3 4", "30")}
    annotate("charades", files, SPEC)
    store_index(VIDEOS)
    with pytest.raises(ListError, match="class 'Closing a door' has no val videos") as caught:
        build_lists(params_for("mine"), "mine")
    assert "some clothes" not in str(caught.value)


def test_only_the_test_set_is_read_where_nothing_is_trained(params_for):
    files = {name: text for name, text in FILES.items() if name != OFFICIAL}
    annotate("charades", files, SPEC + "evaluation_only: true\n")
    store_index(VIDEOS)
    assert build_lists(params_for("mine"), "mine").num_train == 0
    assert ids("val", 3) == ["eeeee", "fffff", "ggggg"]
    assert not Path("lists/mine/train.csv").exists()


def test_the_rule_and_the_tolerance_are_checked(project):
    for extra, message in [
        ("segment_rule: floor", "segment_rule: found 'floor'; allowed: 'shown' or 'truncated'"),
        ("overrun_frames: -1", "overrun_frames: found -1"),
    ]:
        annotate("charades", {}, extra)
        with pytest.raises(ConfigError, match=message):
            load_spec("mine")


def test_the_published_dataset():
    spec = load_spec("charades")
    assert (spec.format, spec.fps, spec.segment_rule) == ("charades", 24, "truncated")
    assert spec.overrun_frames is not None
    sets = {one.name: one for one in video_sets() if one.name.startswith("charades/")}
    assert sets["charades/Charades_v1_test.csv"].num_videos == spec.expected("val", 1) == 1863
    assert sets["charades/Charades_train_split_label.csv"].num_videos == 7811

"""Official annotation files, format by format, from file to lists."""

import json
from pathlib import Path

import pytest

from annotating import annotate, ids, store_index
from clipzoo.annotations.joining import build_lists
from clipzoo.annotations.matching import segment_frames
from clipzoo.clips.selection import whole_set
from clipzoo.config import ConfigError
from clipzoo.data.ledger import write_ledger
from clipzoo.data.records import read_labels, read_list
from clipzoo.data.spec import load_spec
from clipzoo.evaluate.predictions import describe_set
from clipzoo.files import ListError
from clipzoo.frames.manifest import find_videos

# Of each class and split: two to train on, one to test on; in_neither is in one set of split 2.
HMDB51 = {
    "splits/brush_hair_test_split1.txt": "a(1).avi 1 \nb.avi 1 \nc.avi 2 \nd.avi 0 \n",
    "splits/brush_hair_test_split2.txt": "a(1).avi 2 \nb.avi 1 \nc.avi 1 \nd.avi 0 \n",
    "splits/wave_test_split1.txt": "e.avi 1 \nf.avi 1 \ng.avi 2 \n",
    "splits/wave_test_split2.txt": "e.avi 2 \nf.avi 1 \ng.avi 1 \n",
}
HMDB51_VIDEOS = {
    **{f"brush_hair/{name}": 10 for name in ("a(1)", "b", "c", "d")},
    **{f"wave/{name}": 10 for name in "efg"},
}


def test_hmdb51(params_for):
    annotate("hmdb51", HMDB51, "num_train: [4, 4]\nnum_val: [2, 2]\nnum_whole: 7\n")
    store_index(HMDB51_VIDEOS)
    summary = build_lists(params_for("mine"), "mine")
    assert read_labels("lists/mine/labels.csv") == ["brush_hair", "wave"]
    assert ids("train") == ["brush_hair/a(1)", "brush_hair/b", "wave/e", "wave/f"]
    assert ids("val") == ["brush_hair/c", "wave/g"]
    assert sorted(ids("whole")) == sorted(HMDB51_VIDEOS)
    assert Path("lists/mine/splits.csv").read_text() == (
        "video_id,split\nbrush_hair/c,1\nwave/g,1\nbrush_hair/a(1),2\nwave/e,2\n"
    )
    assert any("2 of split 1, 2 of split 2" in note for note in summary.notes)
    build_lists(params_for("mine", data={"split": 2}), "mine")
    assert ids("val") == ["brush_hair/a(1)", "wave/e"]


def test_zero_shot_takes_the_whole_set_and_knows_what_is_missing(params_for):
    annotate("hmdb51", HMDB51)
    stored = {k: n for k, n in HMDB51_VIDEOS.items() if k not in ("brush_hair/d", "wave/e")}
    store_index(stored)
    write_ledger("mine", {"brush_hair/d": "absent", "wave/e": "absent"})
    build_lists(params_for("mine"), "mine")
    found = whole_set(params_for("mine"), "mine", 2)
    records, lists = found.records, found.lists
    assert (sorted(r.video_id for r in records), lists) == (sorted(stored), ["whole"])
    described = describe_set(found, "x")
    assert (described["num_videos"], described["num_expected"]) == (5, 7)


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("splits/wave_test_split1.txt", "h.avi 3", r"split1.txt:4: found 'h.avi 3'; allowed"),
        ("splits/wave_test_split1.txt", "h.avi", r"split1.txt:4: found 'h.avi'; allowed"),
        ("splits/wave_test_split1.txt", "e.avi 2", r"split1.txt:4: 'wave/e' is in .*:1 too"),
        ("splits/jump_test_split2.txt", "j.avi 2", "split 1 has no file for classes: jump"),
        ("more/wave_test_split1.txt", "e.avi 1", "are of one class and split; remove one"),
    ],
)
def test_bad_hmdb51_files(params_for, name, line, message):
    annotate("hmdb51", {**HMDB51, name: HMDB51.get(name, "") + line + "\n"})
    store_index(HMDB51_VIDEOS)
    with pytest.raises(ListError, match=message):
        build_lists(params_for("mine"), "mine")


def test_a_split_that_is_not_there(params_for):
    annotate("hmdb51", HMDB51)
    store_index(HMDB51_VIDEOS)
    with pytest.raises(ListError, match=r"no CLASS_test_split3.txt .* there are: \[1, 2\]"):
        build_lists(params_for("mine", data={"split": 3}), "mine")
    annotate("hmdb51", HMDB51, "num_val: [2]\n")
    with pytest.raises(ConfigError, match=r"data.split: found 2; allowed: 1 to 1"):
        build_lists(params_for("mine", data={"split": 2}), "mine")


def test_each_number_that_is_not_the_expected_one_is_told(params_for):
    annotate("hmdb51", HMDB51, "num_train: [5, 4]\nnum_val: [2, 3]\nnum_whole: 9\n")
    store_index(HMDB51_VIDEOS)
    with pytest.raises(ListError) as caught:
        build_lists(params_for("mine"), "mine")
    for text in (
        r"num_train: found 4; datasets/*.yaml says 5 (-1)",
        r"num_val of split 2: found 2; datasets/*.yaml says 3 (-1)",
        r"num_whole: found 7; datasets/*.yaml says 9 (-2)",
    ):
        assert text in str(caught.value)


def kinetics_json(**videos: tuple[str, float, float]) -> str:
    return json.dumps(
        {
            key: {"annotations": {"label": label, "segment": [start, end]}, "subset": "x"}
            for key, (label, start, end) in videos.items()
        }
    )


def test_kinetics_json(params_for):
    files = {
        "train.json": kinetics_json(aa=("x", 1.0, 11.0), bb=("y", 0.0, 10.0)),
        "validate.json": kinetics_json(cc=("y", 5.0, 15.0), dd=("x", 7.0, 17.0)),
    }
    annotate("kinetics", files)
    videos = ("aa_000001_000011", "bb_000000_000010", "y/cc_000005_000015", "dd_000007_000017")
    store_index(dict.fromkeys(videos, 9))
    build_lists(params_for("mine"), "mine")
    assert ids("train") == list(videos[:2])
    assert [(r.video_id, r.label) for r in read_list("lists/mine/val.csv", 2)] == [
        ("y/cc_000005_000015", 1),
        ("dd_000007_000017", 0),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "validate.json: is not JSON"),
        ("[]", "validate.json: found a list; allowed: an object of videos"),
        ('{"cc": 1}', "validate.json: 'cc': found 1; allowed: "),
        ('{"cc": {"annotations": {"label": "x"}}}', "validate.json: 'cc': found"),
        (kinetics_json(cc=("x", 9.0, 2.0)), "validate.json: 'cc': found"),
        (kinetics_json(cc=(" ", 1.0, 2.0)), "validate.json: 'cc': found"),
        (kinetics_json(cc=("x", 1, 10**400)), "validate.json: 'cc': found"),
        (kinetics_json(cc=("x", 1, float("inf"))), "validate.json: 'cc': found"),
        (kinetics_json(cc=("x", float("nan"), 2)), "validate.json: 'cc': found"),
        ('{"cc": 1, "dd": 2, "cc": 3}', r"validate.json: is not JSON \(keys .* twice: 'cc'"),
        ("[" * 100_000, "validate.json: is not JSON"),
    ],
)
def test_bad_kinetics_json(params_for, text, message):
    annotate("kinetics", {"train.json": kinetics_json(aa=("x", 1, 11)), "validate.json": text})
    store_index({"aa_000001_000011": 9})
    with pytest.raises(ListError, match=message):
        build_lists(params_for("mine"), "mine")


def test_a_zero_shot_split_takes_its_classes_from_the_test_set(params_for):
    header = "label,youtube_id,time_start,time_end,split\n"
    files = {
        "val.csv": header + "a,vv,0,10,val\n",
        "test.csv": header + "c,xx,0,10,test\na,yy,0,10,test\nb,zz,0,10,test\n",
        "labels.csv": "id,name\n0,c\n1,A\n",
    }
    extra = "evaluate_on: test\nevaluation_only: true\nonly_listed_classes: true\n"
    annotate("kinetics", files, extra)
    store_index({f"{v}_000000_000010": 9 for v in ("vv", "xx", "yy", "zz")})
    summary = build_lists(params_for("mine"), "mine")
    assert [(r.video_id[:2], r.label) for r in read_list("lists/mine/val.csv", 2)] == [
        ("xx", 0),
        ("yy", 1),
    ]
    assert summary.num_train == 0
    assert "skipped: 1 videos of 1 classes that labels.csv does not have" in summary.notes


def instance(label: str, *segment: float) -> dict:
    return {"label": label, "segment": list(segment)}


ACTIVITYNET = {
    "tr-1": {"subset": "training", "annotations": [instance("Zumba", 2.5, 5.5)]},
    "tr_2": {
        "subset": "training",
        "annotations": [instance("Archery", 0.2, 0.4), instance("Archery", 10, 99)],
    },
    "va_1": {
        "subset": "validation",
        "annotations": [instance("Zumba", 1, 2), instance("Archery", 3, 4)],
    },
    "va_2": {"subset": "validation", "annotations": [instance("Archery", 1, 2)]},
    "te_1": {"subset": "testing", "annotations": []},
}
ACTIVITYNET_VIDEOS = {"v_tr-1": 20, "v_tr_2": 15, "v_va_1": 60, "v_va_2": 61}


def annotate_activitynet(changes: dict[str, object]) -> None:
    database = {"version": "x", "database": {**ACTIVITYNET, **changes}}
    annotate("activitynet", {"activity_net.v1-3.min.json": json.dumps(database)}, "fps: 1\n")


def test_activitynet(params_for):
    annotate_activitynet({})
    store_index({name[2:]: n for name, n in ACTIVITYNET_VIDEOS.items()}, fps=1.0)
    summary = build_lists(params_for("mine", data={"min_frames": 1}), "mine")
    assert read_labels("lists/mine/labels.csv") == ["Archery", "Zumba"]
    train = read_list("lists/mine/train.csv", 2)
    assert [(r.video_id, r.start_frame, r.num_frames, r.label) for r in train] == [
        ("tr-1", 3, 3, 1),
        ("tr_2", 0, 1, 0),
        ("tr_2", 10, 5, 0),
    ]
    val = read_list("lists/mine/val.csv", 2)
    assert [(r.video_id, r.num_frames, r.label) for r in val] == [("va_1", 60, 1), ("va_2", 61, 0)]
    whole = read_list("lists/mine/whole.csv", 2)
    assert [(r.video_id, r.num_frames) for r in whole] == [
        ("tr-1", 20),
        ("tr_2", 15),
        ("va_1", 60),
        ("va_2", 61),
    ]
    assert any(
        "1 videos have instances of several classes (va_1)" in note for note in summary.notes
    )
    assert any("1 videos of the testing subset" in note for note in summary.notes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": {"subset": "other"}}, "'x': subset 'other'; allowed: training, validation, testing"),
        ({"x": 3}, "'x': subset None"),
        ({"x": {"subset": "training", "annotations": []}}, "'x': has no annotations"),
        (
            {"x": {"subset": "training", "annotations": [instance("Zumba", 5, 2)]}},
            r"'x', annotation 0: found .*\[5, 2\]",
        ),
        (
            {"x": {"subset": "validation", "annotations": [instance("Zumba", 1, 2), {"label": 1}]}},
            "'x', annotation 1: found",
        ),
    ],
)
def test_bad_activitynet_entries(params_for, changes, message):
    annotate_activitynet(changes)
    store_index({name[2:]: n for name, n in ACTIVITYNET_VIDEOS.items()}, fps=1.0)
    with pytest.raises(ListError, match=message):
        build_lists(params_for("mine"), "mine")


def test_an_instance_without_length_is_the_frame_at_its_start(params_for):
    """ActivityNet's json has one of [0, 0] (ZZVrH3Hv1fM); the authors' list has it as 1 frame."""
    point = [instance("Zumba", 0, 0), instance("Zumba", 7.5, 7.5), instance("Zumba", 19.9, 19.9)]
    annotate_activitynet({"tr-1": {"subset": "training", "annotations": point}})
    store_index({name[2:]: n for name, n in ACTIVITYNET_VIDEOS.items()}, fps=1.0)
    build_lists(params_for("mine", data={"min_frames": 0}), "mine")
    train = read_list("lists/mine/train.csv", 2)
    assert [(r.video_id, r.start_frame, r.num_frames) for r in train[:3]] == [
        ("tr-1", 0, 1),
        ("tr-1", 7, 1),
        ("tr-1", 19, 1),
    ]


def test_kinetics_clips_without_length(params_for):
    header = "label,youtube_id,time_start,time_end,split\n"
    files = {
        "train.json": kinetics_json(aa=("x", 0, 0), bb=("y", 3, 3.2)),
        "val.csv": header + "x,cc,5,5,val\ny,dd,0,0,val\n",
    }
    annotate("kinetics", files)
    videos = ("aa_000000_000000", "bb_000003_000003", "cc_000005_000005", "dd_000000_000000")
    store_index(dict.fromkeys(videos, 9))
    build_lists(params_for("mine"), "mine")
    assert [*ids("train"), *ids("val")] == list(videos)


def test_equal_segments_count_once_and_missing_videos_once(params_for):
    close = [instance("Zumba", 3.1, 3.2), instance("Zumba", 3.3, 3.4), instance("Zumba", 8, 9)]
    annotate_activitynet({"tr-1": {"subset": "training", "annotations": close}})
    store_index({"tr-1": 20, "va_1": 5, "va_2": 5}, fps=1.0)
    write_ledger("mine", {"tr_2": "absent"})
    summary = build_lists(params_for("mine", data={"min_frames": 1}), "mine")
    assert summary.missing == [["tr_2", "train", "absent"]]
    assert [r.start_frame for r in read_list("lists/mine/train.csv", 2)] == [3, 8]
    assert any("1 segments have the same frames as another one" in note for note in summary.notes)


@pytest.mark.parametrize(
    ("segment", "fps", "expected"),
    [
        ((2.5, 5.5), 1.0, (3, 3)),
        ((0.0, 60.0), 1.0, (0, 60)),
        ((50.0, 99.0), 1.0, (50, 10)),
        ((3.2, 3.4), 1.0, (3, 1)),
        ((60.4, 80.0), 1.0, (59, 1)),  # the number of frames is rounded
        ((70.0, 80.0), 1.0, None),
        ((1.0, 2.0), 25.0, (25, 25)),
    ],
)
def test_frames_of_a_segment(segment, fps, expected):
    start, end = segment
    assert segment_frames(start, end, fps, 60) == expected


def test_ids_are_what_the_pattern_takes_of_file_names(project):
    annotate("activitynet", {}, "id_pattern: (?:v_)?(.{11})\n")
    for name in ("a/v_-02DygXbn6w.mp4", "b/02DygXbn6w_.mkv", "c/other_name_of_a_file.mp4"):
        (project / "raw" / name).parent.mkdir(parents=True)
        (project / "raw" / name).write_bytes(b"x")
    videos, _ = find_videos(project / "raw", load_spec("mine"))
    assert [(v.video_id, v.path) for v in videos] == [
        ("a/-02DygXbn6w", "a/v_-02DygXbn6w.mp4"),
        ("b/02DygXbn6w_", "b/02DygXbn6w_.mkv"),
        ("c/other_name_of_a_file", "c/other_name_of_a_file.mp4"),
    ]
    (project / "raw/b/v_-02DygXbn6w.mkv").write_bytes(b"x")
    (project / "raw/a/-02DygXbn6w.mp4").write_bytes(b"x")
    with pytest.raises(ListError, match="have the same id, 'a/-02DygXbn6w'"):
        find_videos(project / "raw", load_spec("mine"))
    for pattern in ("v_.*", "("):
        annotate("activitynet", {}, f"id_pattern: {pattern}\n")
        with pytest.raises(ConfigError, match="id_pattern: found"):
            load_spec("mine")


def test_lists_of_other_projects_in_place_of_annotations(params_for):
    files = {
        "train.txt": "x/aa 30 0\nx/bb 31 1\n",
        "val.txt": "x/cc.mp4 1\ny z/dd.mp4 0\n",
        "labels.csv": "id,name\n0,to jump\n1,to run\n",
    }
    annotate("peer_lists", files)
    store_index({"x/aa": 9, "bb": 9, "x/cc": 9, "y z/dd": 9})
    build_lists(params_for("mine"), "mine")
    assert (ids("train"), ids("val")) == (["x/aa", "bb"], ["x/cc", "y z/dd"])
    assert read_labels("lists/mine/labels.csv") == ["to jump", "to run"]
    annotate("peer_lists", {**files, "val.txt": "x/cc.mp4 2\ny z/dd.mp4 0\n"})
    with pytest.raises(ListError, match=r"val.txt:1: found label 2; .*labels.csv has 0 to 1"):
        build_lists(params_for("mine"), "mine")
    Path("data/annotations/mine/labels.csv").unlink()
    with pytest.raises(ListError, match=r"labels.csv: no such file; .* data.class_names"):
        build_lists(params_for("mine"), "mine")

"""Annotation formats joined with an index: every line becomes a record or is named."""

from pathlib import Path

import pytest

from annotating import annotate, ids, store_index
from clipzoo.annotations.joining import build_lists
from clipzoo.config import ConfigError
from clipzoo.data.ledger import write_ledger
from clipzoo.data.records import read_labels, read_list
from clipzoo.data.spec import load_spec, raw_root
from clipzoo.files import ListError

UCF101 = {
    "classInd.txt": "1 Jump\n2 RunFast\n",
    "trainlist01.txt": "Jump/v_a.avi 1\nJump/v_b.avi 1\nRunFast/v_c.avi 2\nRunFast/v d.avi 2\n",
    "testlist01.txt": "Jump/v_e.avi\nRunFast/v_f.avi\n",
}
UCF101_VIDEOS = {
    f"{c}/{v}": 10
    for c, v in [
        ("Jump", "v_a"),
        ("Jump", "v_b"),
        ("Jump", "v_e"),
        ("RunFast", "v_c"),
        ("RunFast", "v d"),
        ("RunFast", "v_f"),
    ]
}


def test_ucf101(params_for):
    annotate("ucf101", UCF101)
    store_index(UCF101_VIDEOS)
    summary = build_lists(params_for("mine"), "mine")
    assert (summary.num_classes, summary.num_train, summary.num_val, summary.missing) == (
        2,
        4,
        2,
        [],
    )
    assert read_labels("lists/mine/labels.csv") == ["Jump", "RunFast"]
    assert ids("train") == ["Jump/v_a", "Jump/v_b", "RunFast/v_c", "RunFast/v d"]
    assert [r.label for r in read_list("lists/mine/val.csv", 2)] == [0, 1]
    assert len(ids("train_2shot")) == 4
    assert not Path("lists/mine/train_4shot.csv").exists()
    notes = [note for note in summary.notes if "shot.csv" in note]
    assert [note.split(":")[0][3:] for note in notes] == [f"train_{n}shot.csv" for n in (4, 8, 16)]
    assert "2 classes have fewer than 4 training videos" in notes[0]
    assert notes[0].endswith("Jump (2), RunFast (2)")
    assert not Path("lists/mine/missing.csv").exists()


def test_ucf101_with_own_names_and_another_split(params_for):
    files = {k.replace("01.", "03."): v for k, v in UCF101.items()}
    annotate("ucf101", {**files, "labels.csv": "id,name\n0,to jump\n1,to run fast\n"})
    store_index(UCF101_VIDEOS)
    with pytest.raises(ListError, match=r"trainlist01.txt: no such file .*there are: .*03.txt"):
        build_lists(params_for("mine"), "mine")
    build_lists(params_for("mine", data={"split": 3}), "mine")
    assert read_labels("lists/mine/labels.csv") == ["to jump", "to run fast"]


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("classInd.txt", "4 Swim", "classInd.txt:3: found '4 Swim'; allowed: '3 NAME'"),
        ("classInd.txt", "3 Jump", "classInd.txt:3: found '3 Jump'; allowed: '3 NAME' with a new"),
        ("classInd.txt", "3 Swim", "class 'Swim' has no train videos"),
        ("trainlist01.txt", "Swim/v_x.avi 3", "trainlist01.txt:5: class 'Swim' is not in classInd"),
        ("trainlist01.txt", "Jump/v_x.avi 2", "trainlist01.txt:5: found label '2'; .* has 1"),
        ("trainlist01.txt", "Jump/v_x.avi", "trainlist01.txt:5: found ''; allowed: CLASS/VIDEO"),
        ("trainlist01.txt", "v_x.avi 1", "trainlist01.txt:5: found 'v_x.avi'; allowed: CLASS"),
        (
            "trainlist01.txt",
            "Jump/v_a.avi 1",
            "trainlist01.txt:5: 'Jump/v_a' is in .*:1 too",
        ),
        (
            "testlist01.txt",
            "Jump/v_a.avi",
            "testlist01.txt:3: 'Jump/v_a' is in .*train.*:1",
        ),
        ("testlist01.txt", "Jump/../../v.avi", "testlist01.txt:3: path .* leaves the dataset's"),
        ("testlist01.txt", "/etc/v.avi", "testlist01.txt:3: "),
        ("labels.csv", "id,name\n0,only one\n", "labels.csv: has 1 classes; .* files have 2"),
    ],
)
def test_bad_ucf101_lines(params_for, file, line, message):
    annotate("ucf101", {**UCF101, file: UCF101.get(file, "") + line + "\n"})
    store_index({**UCF101_VIDEOS, "Jump/v_x": 5})
    with pytest.raises(ListError, match=message):
        build_lists(params_for("mine"), "mine")
    assert not Path("lists").exists()


KINETICS_HEADER = "label,youtube_id,time_start,time_end,split\n"
KINETICS = {
    "train.csv": KINETICS_HEADER + "b ü,-x_y,1,11,train\na,zz,0,10,train\n",
    "val.csv": KINETICS_HEADER + "a,ab,5,15,val\nb ü,cd,7,17,val\n",
}
KINETICS_VIDEOS = {
    "b ü/-x_y_000001_000011": 10,
    "a/zz_000000_000010": 11,
    "ab_000005_000015": 12,
    "cd_000007_000017": 13,
}


def test_kinetics_in_class_folders_or_flat(params_for):
    annotate("kinetics", KINETICS)
    store_index(KINETICS_VIDEOS)
    build_lists(params_for("mine"), "mine")
    assert read_labels("lists/mine/labels.csv") == ["a", "b ü"]
    assert ids("train") == ["b ü/-x_y_000001_000011", "a/zz_000000_000010"]
    val = read_list("lists/mine/val.csv", 2)
    assert [(r.video_id, r.num_frames, r.label) for r in val] == [
        ("ab_000005_000015", 12, 0),
        ("cd_000007_000017", 13, 1),
    ]


def test_kinetics_with_val_alone_is_for_evaluation_only(params_for):
    annotate("kinetics", {"validate.csv": KINETICS["val.csv"]})
    store_index(KINETICS_VIDEOS)
    with pytest.raises(ListError, match=r"has no train.csv"):
        build_lists(params_for("mine"), "mine")
    data = {"dataset": "other", "datasets": ["other", "mine"], "zero_shot": ["mine"]}
    summary = build_lists(params_for("mine", data=data), "mine")
    assert (summary.num_train, summary.num_val) == (0, 2)
    assert not Path("lists/mine/train.csv").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a,ef,1,2", "val.csv:4: found 4 fields; allowed: 5"),
        ("a,ef,x,2,val", "val.csv:4: found time_start 'x'"),
        ("a,ef,9,2,val", "val.csv:4: found time_start '9', time_end '2'"),
        ("a,zz,0,10,val", "val.csv:4: 'zz_000000_000010' is in .*train.csv:3 too"),
        ("a,../ef,1,2,val", "val.csv:4: path '../ef_000001_000002' leaves"),
        ("c,ef,1,2,val", "class 'c' has no train videos"),
    ],
)
def test_bad_kinetics_lines(params_for, line, message):
    annotate("kinetics", {**KINETICS, "val.csv": KINETICS["val.csv"] + line + "\n"})
    store_index(KINETICS_VIDEOS)
    with pytest.raises(ListError, match=message):
        build_lists(params_for("mine"), "mine")


def test_a_label_outside_labels_csv(params_for):
    annotate("kinetics", {**KINETICS, "labels.csv": "id,name\n0,b ü\n1,z\n"})
    store_index(KINETICS_VIDEOS)
    with pytest.raises(ListError, match=r"files have 'a', which .*labels.csv does not have"):
        build_lists(params_for("mine"), "mine")


def test_missing_videos_are_an_error_unless_the_ledger_names_them(params_for):
    annotate("ucf101", UCF101)
    stored = {k: v for k, v in UCF101_VIDEOS.items() if k not in ("Jump/v_b", "RunFast/v_f")}
    store_index(stored, failures={"Jump/v_b": "moov atom not found"})
    with pytest.raises(ListError, match="2 of 6 annotated videos of mine lack frames") as caught:
        build_lists(params_for("mine"), "mine")
    assert "Jump/v_b (train): broken: moov atom not found" in str(caught.value)
    assert "RunFast/v_f (val): absent: not among the raw videos" in str(caught.value)
    assert "(1 val, 1 train)" in str(caught.value)
    assert "`clipzoo missing mine --accept`" in str(caught.value)
    state = Path(".state/build_lists/mine_missing.csv").read_text()
    assert state.startswith("video_id,set,reason\nRunFast/v_f,val,absent: not among")
    write_ledger("mine", {"Jump/v_b": "broken"})
    with pytest.raises(ListError, match=r"1 of 6 annotated videos .*missing.csv \(1 val\)"):
        build_lists(params_for("mine"), "mine")
    write_ledger("mine", {"Jump/v_b": "broken", "RunFast/v_f": "absent: private"})
    summary = build_lists(params_for("mine"), "mine")
    assert len(summary.missing) == 2
    assert "v_b" not in Path("lists/mine/train.csv").read_text()
    missing = Path("lists/mine/missing.csv").read_text()
    assert "Jump/v_b,train,broken: moov atom not found" in missing
    assert "RunFast/v_f,val,absent: private" in missing


def test_a_video_of_the_ledger_that_is_there_again_is_used_and_noted(params_for):
    annotate("ucf101", UCF101)
    store_index(UCF101_VIDEOS)
    write_ledger("mine", {"Jump/v_b": "broken: moov", "Jump/unknown": "absent"})
    summary = build_lists(params_for("mine"), "mine")
    assert summary.missing == []
    assert "Jump/v_b" in ids("train")
    (note,) = (note for note in summary.notes if "there again" in note)
    assert note.startswith(
        "1 videos in data/annotations/mine/missing.csv are there again (Jump/v_b)"
    )


def test_the_same_file_name_in_two_folders_is_not_guessed(params_for):
    annotate("kinetics", KINETICS)
    store_index({**KINETICS_VIDEOS, "x/cd_000007_000017": 3, "y/cd_000007_000017": 3})
    build_lists(params_for("mine"), "mine")  # the exact path is there
    videos = {k: v for k, v in KINETICS_VIDEOS.items() if not k.startswith("cd")}
    store_index({**videos, "x/cd_000007_000017": 3, "y/cd_000007_000017": 3})
    with pytest.raises(ListError, match=r"val.csv:3: could be any of x/cd.*, y/cd.*; keep one"):
        build_lists(params_for("mine"), "mine")


@pytest.mark.parametrize(
    ("frames", "used"),
    [
        ({"val/cd": 3, "replacement/r/cd": 4}, "replacement/r/cd"),
        ({"val/cd": 3, "replacement/r/cd": 0}, "val/cd"),
        ({"val/cd": 0, "replacement/r/cd": 4}, "replacement/r/cd"),
        ({"x/cd": 0, "y/cd": 4}, "y/cd"),
        ({"cd": 0, "y/cd": 4}, "y/cd"),
        ({"cd": 4, "replacement/cd": 5}, "replacement/cd"),
    ],
)
def test_of_several_files_the_readable_one_is_used_and_named(params_for, frames, used):
    annotate("kinetics", KINETICS)
    frames = {f"{name}_000007_000017": n for name, n in frames.items()}
    videos = {k: v for k, v in KINETICS_VIDEOS.items() if not k.startswith("cd")}
    failures = {name: "moov atom not found" for name, n in frames.items() if n == 0}
    store_index({**videos, **{name: n for name, n in frames.items() if n}}, failures)
    summary = build_lists(params_for("mine"), "mine")
    used = f"{used}_000007_000017"
    assert ids("val")[1] == used
    assert summary.missing == []
    (note,) = (note for note in summary.notes if "several files" in note)
    assert f"used: {used}, not " in note


def test_another_class_folder_does_not_replace_a_broken_video(params_for):
    """Names like 1.avi are in every folder."""
    files = {name: text.replace("v_", "") for name, text in UCF101.items()}
    files["trainlist01.txt"] = files["trainlist01.txt"].replace("RunFast/c", "RunFast/a")
    annotate("ucf101", files)
    videos = {name.replace("v_", "").replace("/c", "/a"): n for name, n in UCF101_VIDEOS.items()}
    del videos["Jump/a"]
    store_index(videos, {"Jump/a": "moov atom not found"})
    with pytest.raises(ListError, match=r"Jump/a \(train\): broken: moov"):
        build_lists(params_for("mine"), "mine")


CLASSES = {"classes.csv": "folder,name\nrun_fast,run fast\nsit,to sit\n"}


def folder_videos(count: int) -> dict[str, int]:
    return {f"{c}/{i:03d}": 20 + i for c in ("run_fast", "sit") for i in range(count)}


def test_folder_splits_each_class_and_keeps_it(params_for):
    annotate("folder", CLASSES)
    store_index(folder_videos(10))
    build_lists(params_for("mine"), "mine")
    train, val = ids("train"), ids("val")
    assert sorted([*train, *val]) == sorted(folder_videos(10))
    assert [v.split("/")[0] for v in val] == ["run_fast"] * 2 + ["sit"] * 2
    store_index(dict(reversed(folder_videos(10).items())), {"sit/zzz": "broken"})
    write_ledger("mine", {"sit/zzz": "broken"})
    build_lists(params_for("mine"), "mine")
    assert [v for v in ids("val") if v.startswith("run")] == [v for v in val if v[0] == "r"]
    store_index(folder_videos(10))
    build_lists(params_for("mine", data={}), "mine")
    assert (ids("train"), ids("val")) == (train, val)


def test_folder_with_train_and_val(params_for):
    annotate("folder", CLASSES)
    parts = [("train", 3), ("val", 2)]
    store_index({f"{part}/{v}": n for part, k in parts for v, n in folder_videos(k).items()})
    summary = build_lists(params_for("mine"), "mine")
    assert (summary.num_train, summary.num_val) == (6, 4)
    assert all(video.startswith("val/") for video in ids("val"))


def test_folder_only_evaluated_on_is_validation_as_a_whole(params_for):
    annotate("folder", CLASSES)
    store_index(folder_videos(3))
    data = {"dataset": "other", "datasets": ["other", "mine"], "zero_shot": ["mine"]}
    assert build_lists(params_for("mine", data=data), "mine").num_val == 6


def test_folder_with_all_for_validation(params_for):
    annotate("folder", CLASSES, "val_fraction: 1.0\n")
    store_index(folder_videos(1))
    summary = build_lists(params_for("mine"), "mine")
    assert (summary.num_train, summary.num_val) == (0, 2)


@pytest.mark.parametrize(
    ("videos", "message"),
    [
        ({"loose": 5, **folder_videos(2)}, "loose: is in no class folder"),
        ({"new/a": 5, **folder_videos(2)}, "new/a: 'new' is not in .*classes.csv; scan again"),
        ({"run_fast/a": 5, "run_fast/b": 5}, "class 'to sit' has no train videos"),
        (folder_videos(1), "there are no val videos; a class needs two"),
    ],
)
def test_bad_folders(params_for, videos, message):
    annotate("folder", CLASSES)
    store_index(videos)
    with pytest.raises(ListError, match=message):
        build_lists(params_for("mine"), "mine")


def test_shots_are_picked_among_videos_that_are_long_enough(params_for):
    annotate("folder", CLASSES)
    videos = folder_videos(20)
    videos.update({video: 3 for video in list(videos)[::2]})
    store_index(videos)
    build_lists(params_for("mine", data={"min_frames": 8}), "mine")
    assert all(videos[video] > 3 for video in ids("train_4shot"))
    assert any(videos[video] == 3 for video in ids("train"))


def test_expected_numbers_are_checked(params_for):
    annotate("ucf101", UCF101, "num_classes: 101\nnum_train: [4]\n")
    store_index(UCF101_VIDEOS)
    with pytest.raises(ListError, match=r"num_classes: found 2; .* says 101") as caught:
        build_lists(params_for("mine"), "mine")
    assert "num_train" not in str(caught.value)


def test_specs(project, params_for, monkeypatch):
    annotate("ucf101", {})
    with pytest.raises(ConfigError, match=r"unknown dataset 'mime' \(did you mean mine\?\); known"):
        load_spec("mime")
    for extra, message in [
        ("fps: 0", "fps: found 0; allowed: greater than 0"),
        ("val_fraction: 1.5", "val_fraction: found 1.5"),
        ("frame_template: img.jpg", "frame_template: found 'img.jpg'; allowed: like"),
        ("redaer: video", r"unknown key redaer; .*\(did you mean reader\?\)"),
        ("reader: tar", "reader: found 'tar'; allowed: 'shards', 'directory' or 'video'"),
    ]:
        annotate("ucf101", {}, extra)
        with pytest.raises(ConfigError, match=message):
            load_spec("mine")
    params = params_for("mine")
    monkeypatch.setenv("CLIPZOO_DATA", str(project / "big"))
    assert raw_root(params, "mine") == Path("data/raw/mine")
    (project / "big" / "mine").mkdir(parents=True)
    assert raw_root(params, "mine") == project / "big" / "mine"
    assert raw_root(params_for("mine", data={"demo": ["mine"]}), "mine") == Path("data/raw/mine")
    monkeypatch.delenv("CLIPZOO_DATA")
    copy = project / ".dvc/tmp/exps/standalone/tmpa1"  # as DVC makes for `exp run --temp`
    (copy / "data/raw").mkdir(parents=True)
    monkeypatch.chdir(copy)
    assert raw_root(params, "mine") == Path("data/raw/mine")
    (project / "data/raw/mine").parent.mkdir(parents=True, exist_ok=True)
    (project / "data/raw/mine").symlink_to(project / "big/mine")
    assert raw_root(params, "mine") == project / "data/raw/mine"
    assert raw_root(params_for("mine", data={"demo": ["mine"]}), "mine") == Path("data/raw/mine")
    (copy / "data/raw/mine").mkdir()
    assert raw_root(params, "mine") == Path("data/raw/mine")

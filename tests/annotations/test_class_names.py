"""Committed label files, and official spellings matched to them."""

from pathlib import Path

import pytest

from annotating import annotate, store_index
from clipzoo.annotations.class_names import LABEL_DIR, class_key, label_file
from clipzoo.annotations.joining import build_lists
from clipzoo.config import ConfigError
from clipzoo.data.records import read_labels, read_list
from clipzoo.data.spec import load_spec
from clipzoo.files import ListError

HMDB51 = read_labels(LABEL_DIR / "hmdb51.csv")


@pytest.mark.parametrize("path", sorted(LABEL_DIR.glob("*.csv")), ids=lambda path: path.stem)
def test_no_two_names_of_a_label_file_are_spellings_of_one(path):
    names = read_labels(path)
    assert len({class_key(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    "spelling", ["climb_stairs", "ClimbStairs", "climb stairs", "Climb-Stairs"]
)
def test_spellings_of_one_class(spelling):
    assert class_key(spelling) == class_key("climb stairs") != class_key("climb")


def annotate_hmdb51(names: list[str]) -> None:
    """A video of each set and class; class names as the official files have them."""
    files = {f"{name}_test_split1.txt": f"{name}_a.avi 1\n{name}_b.avi 2\n" for name in names}
    annotate("hmdb51", files, "class_names: hmdb51\n")
    store_index({f"{name}/{name}_{which}": 9 for name in names for which in "ab"})


OFFICIAL = [name.replace(" ", "_") for name in HMDB51]


def test_ids_follow_the_label_file(params_for):
    annotate_hmdb51(OFFICIAL)
    build_lists(params_for("mine"), "mine")
    assert read_labels("lists/mine/labels.csv") == HMDB51
    ids = {r.video_id: r.label for r in read_list("lists/mine/val.csv", 51)}
    assert (ids["kick/kick_b"], ids["kick_ball/kick_ball_b"]) == (20, 21)
    build_lists(params_for("mine", data={"class_names": "hmdb51_actionclip"}), "mine")
    ids = {r.video_id: r.label for r in read_list("lists/mine/val.csv", 51)}
    assert (ids["kick/kick_b"], ids["kick_ball/kick_ball_b"]) == (21, 20)


def test_videos_get_the_name_of_another_class_where_a_label_file_says_so(params_for):
    """ViFi-CLIP's HMDB51: the official `kick` is scored as "kick ball"."""
    annotate_hmdb51(OFFICIAL)  # in folders of their official classes, which are compared
    build_lists(params_for("mine", data={"class_names": "hmdb51_vificlip"}), "mine")
    names = read_labels("lists/mine/labels.csv")
    swapped = {"kick": "kick ball", "sword": "sword exercise"}
    swapped |= {new: old for old, new in swapped.items()}
    assert sorted(names) == sorted(HMDB51)
    assert names == [swapped.get(name, name) for name in HMDB51]
    for record in read_list("lists/mine/val.csv", 51):
        official = record.video_id.split("/")[0].replace("_", " ")
        assert names[record.label] == swapped.get(official, official)


def test_a_label_file_of_positions_may_have_official_names(params_for):
    """As the authors' own lists, which number their classes."""
    lines = "kick/a.avi 20\nkick_ball/b.avi 21\n"
    files = {"train.txt": lines.replace("a.", "c.").replace("b.", "d."), "val.txt": lines}
    rows = [f"{i},class {i}," for i in range(20)] + ["20,kick ball,kick", "21,kick,kick ball"]
    others = "".join(f"c{i}/{k}{i}.avi {i}\n" for i in range(20) for k in "v")
    others_train = others.replace("/v", "/w")
    files = {"train.txt": files["train.txt"] + others_train, "val.txt": lines + others}
    annotate("peer_lists", {**files, "labels.csv": "\n".join(["id,name,official", *rows]) + "\n"})
    videos = [
        line.split()[0].removesuffix(".avi")
        for text in files.values()
        for line in text.splitlines()
    ]
    store_index(dict.fromkeys(videos, 9))
    build_lists(params_for("mine"), "mine")
    names = read_labels("lists/mine/labels.csv")
    ids = {r.video_id: names[r.label] for r in read_list("lists/mine/val.csv", 22)}
    assert (ids["kick/a"], ids["kick_ball/b"]) == ("kick ball", "kick")


def test_what_does_not_match_is_told_on_both_sides(params_for):
    annotate_hmdb51([*OFFICIAL[:-1], "waving"])
    with pytest.raises(ListError, match="2 classes do not match") as caught:
        build_lists(params_for("mine"), "mine")
    assert "hmdb51.csv has 'wave', which no annotation file names" in str(caught.value)
    assert "the annotation files have 'waving', which" in str(caught.value)


def test_an_unknown_label_file():
    with pytest.raises(ConfigError, match=r"found 'hmdb5' \(did you mean hmdb51\?\); allowed: act"):
        label_file("hmdb5")


def test_names_that_are_spellings_of_one_class_are_refused(params_for):
    files = {f"{name}_test_split1.txt": f"{name}_a.avi 1\n{name}_b.avi 2\n" for name in "xy"}
    annotate("hmdb51", {**files, "labels.csv": "id,name\n0,x\n1,X\n"})
    store_index({f"{name}/{name}_{which}": 9 for name in "xy" for which in "ab"})
    with pytest.raises(ListError, match="names that differ only in case or punctuation: x, X"):
        build_lists(params_for("mine"), "mine")


def test_classes_of_annotation_files_that_differ_only_by_blanks_are_refused(params_for):
    rows = "".join(
        f"{name},{number},0,10,{{kind}}\n" for number, name in enumerate(("a b", "a  b"))
    )
    header = "label,youtube_id,time_start,time_end,split\n"
    files = {f"{kind}.csv": header + rows.format(kind=kind) for kind in ("train", "val")}
    annotate("kinetics", files)
    store_index({"0_000000_000010": 9, "1_000000_000010": 9})
    with pytest.raises(ListError, match=r"class 1: class name 'a b' differs from 'a  b' only in"):
        build_lists(params_for("mine"), "mine")
    assert not Path("lists").exists()


@pytest.mark.parametrize(
    "dataset",
    [
        "kinetics400",
        "kinetics400_val",
        "ucf101",
        "hmdb51",
        "activitynet",
        "charades",
        *(f"kinetics600_split{n}" for n in (1, 2, 3)),
    ],
)
def test_published_datasets_have_their_label_file(dataset):
    spec = load_spec(dataset)
    assert len(read_labels(label_file(spec.class_names))) == spec.num_classes
    assert spec.total(1) > 0

"""Annotations joined with the manifest, before anything is decoded."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from annotating import annotate, store_index
from clipzoo.annotations.joining import build_lists
from clipzoo.annotations.lookup import Lookup, choose
from clipzoo.annotations.wanted import check_wanted, excused, join, near_notes, wanted_videos
from clipzoo.data.ledger import write_ledger
from clipzoo.data.spec import load_spec
from clipzoo.files import ListError

HEADER = "label,youtube_id,time_start,time_end,split\n"
KINETICS = {
    "train.csv": HEADER + "a,aaaaaaaaaa1,1,11,train\nb,bbbbbbbbbb1,0,10,train\n",
    "val.csv": HEADER + "a,aaaaaaaaaa2,5,15,val\nb,bbbbbbbbbb2,7,17,val\n",
}
PATTERN = r"id_pattern: (.{11})(?:_\d{6}_\d{6})?" + "\n"
COMPLETE = ("train/aaaaaaaaaa1", "train/bbbbbbbbbb1", "val/aaaaaaaaaa2", "val/bbbbbbbbbb2")
TEST_SET = ("test/cccccccccc1", "test/cccccccccc2")


@dataclass(frozen=True)
class File:
    """A line of a manifest."""

    video_id: str


def wanted(params_for, *video_ids: str) -> tuple[list[str], list[str]]:
    files = [File(video_id) for video_id in video_ids]
    chosen, notes = wanted_videos(params_for("mine"), "mine", load_spec("mine"), files)
    return [file.video_id for file in chosen], notes


def test_files_that_no_annotation_names_are_left_out(params_for):
    annotate("kinetics", KINETICS, PATTERN)
    chosen, (note,) = wanted(params_for, *TEST_SET, *COMPLETE)
    assert chosen == list(COMPLETE)
    assert note.startswith("2 files are left out")
    assert "extract: all" in note
    annotate("kinetics", KINETICS, PATTERN + "extract: all\n")
    assert wanted(params_for, *TEST_SET, *COMPLETE)[0] == [*TEST_SET, *COMPLETE]


def test_absent_videos_stop_the_extraction_unless_the_ledger_has_them(params_for):
    annotate("kinetics", KINETICS, PATTERN)
    with pytest.raises(ListError, match="2 of 4 annotated videos of mine are not in") as caught:
        wanted(params_for, *COMPLETE[:2])
    assert "val.csv:2: aaaaaaaaaa2 (val)" in str(caught.value)
    assert "clipzoo missing mine --accept" in str(caught.value)
    write_ledger("mine", {"aaaaaaaaaa2": "absent", "val/bbbbbbbbbb2": "broken: moov"})
    assert wanted(params_for, *COMPLETE[:2]) == (list(COMPLETE[:2]), [])


def test_sets_that_lack_different_numbers_of_videos_are_in_one_run(params_for):
    """As Kinetics-600's three splits: a ledger each, and nothing in params.yaml."""
    names = ["s1", "s2", "s3"]
    data = {"dataset": "s1", "datasets": names, "zero_shot": names}
    params = params_for("s1", data=data)
    for number, name in enumerate(names, 1):
        annotate("kinetics", KINETICS, PATTERN, name)
        write_ledger(name, {one.partition("/")[2]: "absent" for one in COMPLETE[:number]})
        files = [File(video_id) for video_id in COMPLETE[number:]]
        assert wanted_videos(params, name, load_spec(name), files) == (files, [])
        with pytest.raises(ListError, match="1 of 4 annotated"):
            wanted_videos(params, name, load_spec(name), files[1:])


def test_every_copy_of_a_video_is_extracted(params_for):
    annotate("kinetics", KINETICS, PATTERN)
    copy = "replacement/replacement_for_corrupted_k400/aaaaaaaaaa1"
    chosen, (note,) = wanted(params_for, copy, *COMPLETE)
    assert chosen == [copy, *COMPLETE]
    assert f"{copy} or {COMPLETE[0]}" in note
    assert note.startswith("1 annotated videos have several files")
    chosen, (note,) = wanted(params_for, *COMPLETE, "train_2/bbbbbbbbbb1")
    assert "build_lists stops" in note


def test_a_broken_copy_is_excused_if_another_can_be_read(params_for):
    annotate("kinetics", KINETICS, PATTERN)
    copy = "replacement/aaaaaaaaaa1"
    files = [File(video_id) for video_id in (*COMPLETE, *TEST_SET, copy)]
    failures = {video_id: "moov atom not found" for video_id in (*COMPLETE[:3], TEST_SET[0])}
    write_ledger("mine", {COMPLETE[1]: "broken"})
    found = excused(params_for("mine"), "mine", load_spec("mine"), files, failures)
    assert found == {
        COMPLETE[1]: "in the ledger",
        COMPLETE[0]: f"{copy} is used instead",
        TEST_SET[0]: "no annotation names it",
    }


@pytest.mark.parametrize(
    ("files", "annotated", "copies"),
    [
        (("v/x", "w/x"), "x", ["v/x", "w/x"]),
        (("x", "w/x"), "x", ["x", "w/x"]),
        (("Jump/1", "Run/1"), "Jump/1", ["Jump/1"]),
        (("train/Jump/1", "train/Run/1"), "Jump/1", ["train/Jump/1"]),
        (("BigJump/1",), "Jump/1", ["BigJump/1"]),  # by its name alone
        (("y",), "x", []),
    ],
)
def test_copies_of_a_video(project, files, annotated, copies):
    annotate("kinetics", {})
    assert Lookup(files, load_spec("mine")).copies(annotated) == copies


def test_in_folders_of_classes_the_path_is_the_annotation(project):
    annotate("folder", {})
    lookup = Lookup(["a/1", "more/a/1"], load_spec("mine"))
    assert (lookup.copies("a/1"), lookup.copies("b/1")) == (["a/1"], [])


@pytest.mark.parametrize(
    ("copies", "broken", "used"),
    [
        (("train/x", "replacement/r/x"), "", ["replacement/r/x"]),
        (("train/x", "replacement/r/x"), "replacement/r/x", ["train/x"]),
        (("train/x", "other/x"), "other/x", ["train/x"]),
        (("train/x", "other/x"), "", ["train/x", "other/x"]),
        (("other/x", "x"), "", ["x"]),
        (("other/x", "x"), "x", ["other/x"]),
        (("x", "Replacements/x"), "", ["Replacements/x"]),
        (("x", "replacement/1/x", "replacement/2/x"), "replacement/1/x", ["replacement/2/x"]),
    ],
)
def test_the_copy_that_is_used(copies, broken, used):
    assert choose(copies, "x", lambda one: one != broken) == used


def test_broken_copies_alone_are_not_ambiguous():
    assert choose(("a/x", "b/x"), "x", lambda _: False) == ["a/x"]


def test_an_absent_video_is_reported_with_a_file_of_nearly_its_name(params_for):
    """UCF101's folder is HandstandPushups, its files are v_HandStandPushups_g01_c01.avi."""
    files = {
        "classInd.txt": "1 HandstandPushups\n",
        "trainlist01.txt": "HandstandPushups/v_HandstandPushups_g01_c01.avi 1\n"
        "HandstandPushups/v_Other_g01_c01.avi 1\n",
        "testlist01.txt": "HandstandPushups/v_HandStandPushups_g02_c01.avi\n",
    }
    annotate("ucf101", files)
    stored = [f"HandStandPushups/v_HandStandPushups_g0{n}_c01" for n in (1, 2)]
    near = f"v_HandstandPushups_g01_c01 (train); there is {stored[0]}"
    with pytest.raises(ListError, match="2 of 3 annotated videos") as caught:
        wanted(params_for, *stored)
    assert near in str(caught.value)
    assert str(caught.value).count("there is") == 1
    store_index(dict.fromkeys(stored, 10))
    with pytest.raises(ListError, match="2 of 3 annotated videos") as caught:
        build_lists(params_for("mine"), "mine")
    assert near.replace("(train)", "(train): absent: not among the raw videos") in str(caught.value)
    (note,) = near_notes(join(params_for("mine"), "mine", load_spec("mine"), stored))
    assert note.startswith("1 absent videos differ")


def test_lists_without_frames_say_what_stopped_their_extraction(params_for):
    annotate("kinetics", KINETICS, PATTERN)
    check_wanted(params_for("mine"), "mine", load_spec("mine"))  # there is no manifest: no word
    rows = "".join(f"{video_id},{video_id}.mp4,1\n" for video_id in COMPLETE[1:])
    Path("data/raw").mkdir()
    Path("data/raw/mine.csv").write_text(f"video_id,path,size\n{rows}")
    with pytest.raises(ListError, match=r"(?s)1 of 4 annotated videos.*aaaaaaaaaa1 \(train\)"):
        check_wanted(params_for("mine"), "mine", load_spec("mine"))

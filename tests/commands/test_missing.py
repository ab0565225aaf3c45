"""What a copy lacks, before and after its extraction."""

import sys
from pathlib import Path

import pytest

from annotating import annotate, store_index
from clipzoo.__main__ import main
from clipzoo.annotations.joining import build_lists
from clipzoo.data.index import FRAMES_DIR
from clipzoo.data.ledger import read_ledger, write_ledger
from clipzoo.files import write_csv

UCF101 = {
    "classInd.txt": "1 Jump\n2 RunFast\n",
    "trainlist01.txt": "Jump/a.avi 1\nJump/b.avi 1\nRunFast/c.avi 2\nRunFast/d.avi 2\n",
    "testlist01.txt": "Jump/e.avi\nRunFast/f.avi\nRunFast/g.avi\n",
}
LEDGER = "data/annotations/mine/missing.csv"


def set_up(*video_ids: str) -> None:
    """Annotations of seven videos, and the manifest of some files."""
    annotate("ucf101", UCF101)
    rows = [(video_id, f"{video_id}.avi", "9") for video_id in video_ids]
    write_csv(("video_id", "path", "size"), rows, "data/raw/mine.csv")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["clipzoo", "missing", "mine", *arguments])
        main()
    return capsys.readouterr().out


def test_absent_videos_are_shown_and_accepted_before_an_extraction(params_for, capsys):
    params_for("mine")
    set_up("Jump/a", "Jump/b", "RunFast/c", "Jump/e")
    shown = run(capsys)
    assert "missing mine: 7 annotated videos, 4 on disk, 0 of these broken; 3 missing" in shown
    lines = [line.split() for line in shown.splitlines()]
    assert ["val", "3", "2", "0", "2"] in lines
    assert ["train", "4", "1", "0", "1"] in lines
    assert ["RunFast", "3", "4", "75%"] in lines
    assert f"{LEDGER}: 0 accepted so far, 3 to add, 0 to remove" in shown
    assert "  + RunFast/f (val): absent: not among the raw videos" in shown
    assert not Path(LEDGER).exists()
    assert f"track it: git add {LEDGER}" in run(capsys, "--accept")
    assert list(read_ledger("mine")) == ["RunFast/d", "RunFast/f", "RunFast/g"]
    assert f"all are in {LEDGER}" in run(capsys)


def test_a_set_without_files_is_named_and_the_next_command_is_on_this_dataset(params_for, capsys):
    params_for("mine")
    set_up("Jump/a", "Jump/b", "RunFast/c")
    shown = run(capsys)
    assert "no video of the set val has a file" in shown
    assert "no video of the set train" not in shown
    assert "next: clipzoo check RECIPE" in run(capsys, "--accept")  # params.yaml: demo


def test_broken_videos_are_accepted_after_an_extraction_that_stopped(params_for, capsys):
    params = params_for("mine")
    files = ["Jump/a", "Jump/b", "RunFast/c", "RunFast/d", "Jump/e", "RunFast/f"]
    set_up(*files)
    write_ledger("mine", {"RunFast/g": "absent: private", "Jump/b": "broken: moov"})
    write_csv(
        ("video_id", "reason"),
        [("RunFast/f", "moov atom\nnot found"), ("RunFast/d", "cut: 3 of 10 s")],
        FRAMES_DIR / "mine/missing.csv",
    )
    shown = run(capsys, "--accept")
    assert "7 annotated videos, 6 on disk, 3 of these broken; 4 missing" in shown
    assert "1 accepted so far" not in shown
    assert "2 accepted so far, 2 to add, 0 to remove" in shown
    assert read_ledger("mine") == {
        "Jump/b": "broken: moov",
        "RunFast/d": "cut: 3 of 10 s",
        "RunFast/f": "broken: moov atom not found",
        "RunFast/g": "absent: private",
    }
    stored = {name: 9 for name in ("Jump/a", "RunFast/c", "Jump/e")}
    store_index(stored, {name: "moov" for name in ("Jump/b", "RunFast/d", "RunFast/f")})
    assert len(build_lists(params, "mine").missing) == 4


def test_a_video_that_is_there_again_leaves_the_ledger(params_for, capsys):
    params_for("mine")
    files = ["Jump/a", "Jump/b", "RunFast/c", "RunFast/d", "Jump/e", "RunFast/f"]
    set_up(*files, "RunFast/g")
    write_ledger("mine", {"RunFast/g": "absent", "Jump/a": "broken", "RunFast/f": "broken"})
    shown = run(capsys)  # nothing is known of the new files of broken videos before an extraction
    assert "3 accepted so far, 0 to add, 1 to remove" in shown
    assert "get them and scan again" not in shown
    store_index({name: 9 for name in files[1:]}, {"Jump/a": "moov"})
    assert "3 accepted so far, 0 to add, 2 to remove" in run(capsys, "--accept")
    assert read_ledger("mine") == {"Jump/a": "broken: moov"}
    store_index(dict.fromkeys([*files, "RunFast/g"], 9))
    assert f"removed {LEDGER}: nothing is missing" in run(capsys, "--accept")
    assert not Path(LEDGER).exists()
    assert "nothing to accept" in run(capsys)


def test_a_broken_file_with_a_readable_copy_is_not_missing(params_for, capsys):
    params_for("mine")
    files = ["Jump/a", "Jump/b", "RunFast/c", "RunFast/d", "Jump/e", "RunFast/f", "RunFast/g"]
    set_up(*files, "replacement/Jump/a", "test/x")
    write_csv(
        ("video_id", "reason"), [("Jump/a", "moov"), ("test/x", "moov")],
        FRAMES_DIR / "mine/missing.csv",
    )  # fmt: skip
    shown = run(capsys)
    assert "0 of these broken; 0 missing" in shown
    assert "1 annotated videos have several files (Jump/a or replacement/Jump/a)" in shown
    assert "1 files are left out" in shown
    assert "nothing to accept" in shown


def test_rendered_datasets_and_unknown_ones_are_refused(params_for, capsys):
    params_for("mine")
    set_up("Jump/a")
    for name, message in [
        ("demo_shapes", "demo_shapes is rendered by make_demo"),
        ("mime", r"unknown dataset 'mime' \(did you mean mine"),
    ]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["clipzoo", "missing", name, "--accept"])
            with pytest.raises(SystemExit, match="1"):
                main()
        assert message.replace("\\", "") in capsys.readouterr().err

"""`clipzoo lists convert` and `lists diff`."""

import sys

import pytest

from clipzoo.__main__ import main
from clipzoo.commands import lists as list_commands
from clipzoo.data.records import Record, read_list, videos_sha256, write_list
from clipzoo.frames.manifest import RawVideo, manifest_path, write_manifest
from clipzoo.report.verdicts import VideoSet, video_sets


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """run("convert", ...) gives what is printed."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["clipzoo", "lists", *arguments])
        main()
        return capsys.readouterr().out

    return call


def test_convert_there_and_back(run, tmp_path):
    records = [Record("a/x", 30, 1), Record("b/y", 31, 0)]
    write_list(records, "val.csv")
    write_manifest(
        [RawVideo("a/x", "a/x.avi", 1), RawVideo("b/y", "b/y.webm", 1)], manifest_path("d")
    )
    output = run(
        "convert", "val.csv", "v.txt", "--from", "clipzoo", "--to", "vificlip", "--dataset=d"
    )
    assert (tmp_path / "v.txt").read_text() == "a/x.avi 1\nb/y.webm 0\n"
    assert "wrote 2 lines to v.txt (vificlip)\nnote: vificlip has no frame counts" in output
    run("convert", "val.csv", "f.txt", "--from", "clipzoo", "--to", "actionclip-frames")
    run("convert", "f.txt", "back.csv", "--from", "text4vis-frames", "--to", "clipzoo")
    assert read_list("back.csv", 2) == records


def test_videos_missing_from_a_dataset_are_named(run, tmp_path, capsys):
    (tmp_path / "f.txt").write_text("a/x 3 1\nz 3 1\n")
    write_manifest([RawVideo("b/x", "b/x.avi", 1)], manifest_path("d"))
    with pytest.raises(SystemExit):
        run("convert", "f.txt", "v.txt", "--from=text4vis-frames", "--to=xclip", "--dataset=d")
    error = capsys.readouterr().err
    assert "1 videos are not in data/raw/d.csv" in error
    assert "f.txt:2: 'z'" in error


def test_diff_counts_and_names(run, tmp_path, monkeypatch):
    write_list([Record("k/a", 3, 0), Record("k/b", 3, 0), Record("k/c", 3, 1)], "val.csv")
    (tmp_path / "theirs.txt").write_text("a.mp4 0\nd.mp4 1\nb.mp4 0\n")
    known = VideoSet(
        method="text4vis",
        name="k/val.txt",
        num_videos=3,
        median_frames=None,
        videos_sha256=videos_sha256("abd"),
    )
    monkeypatch.setattr(list_commands, "video_sets", lambda: [known])
    output = run("diff", "val.csv", "theirs.txt")
    assert f"val.csv: 3 videos, {videos_sha256('abc')}\n  no published list" in output
    assert "  k/val.txt, the set text4vis published on\n" in output
    assert "only in val.csv: 1: c\nonly in theirs.txt: 1: d\nthe sets differ" in output
    assert "only in val.csv: 0\n" in run("diff", "val.csv", "val.csv")


def test_segments_are_numbered_as_published(tmp_path):
    records = [Record("a", 3, 0), Record("a", 4, 0, start_frame=5), Record("b", 2, 1)]
    write_list(records, tmp_path / "train.csv")
    assert list_commands.set_ids(tmp_path / "train.csv") == ["a_0", "a_1", "b_0"]


def test_published_fingerprints_are_known_by_name():
    first = video_sets()[0]
    assert list_commands.known_sets(first.videos_sha256).startswith(f"{first.name}, the set")
    assert list_commands.known_sets("0") == ""

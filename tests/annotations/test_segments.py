"""Segments in seconds: pictures that begin late, end early, or come at uneven times."""

import json

import numpy as np
import pytest

from annotating import annotate, store_index
from clipzoo.annotations.joining import build_lists, short_videos
from clipzoo.annotations.matching import segment_frames
from clipzoo.commands.missing import survey
from clipzoo.data.index import LATER_COLUMNS, index_path, read_index, read_states, write_index
from clipzoo.data.ledger import write_ledger
from clipzoo.data.records import read_list
from clipzoo.files import ListError
from clipzoo.frames.manifest import manifest_path

SPEC = "fps: 1\n"


def annotate_segments(*segments: tuple[float, float], spec: str = SPEC) -> None:
    """One training video `t` with these segments, and a validation video `v`."""
    train = [{"label": "x", "segment": list(segment)} for segment in segments]
    database = {
        "t": {"subset": "training", "annotations": train},
        "v": {"subset": "validation", "annotations": [{"label": "x", "segment": [0, 1]}]},
    }
    annotate("activitynet", {"activity_net.json": json.dumps({"database": database})}, spec)


def train_rows() -> list[tuple[int, int]]:
    return [(r.start_frame, r.num_frames) for r in read_list("lists/mine/train.csv", 1)]


@pytest.mark.parametrize(
    ("segment", "offset", "rule", "expected"),
    [
        ((3.0, 6.0), 2.0, "shown", (1, 3)),  # frames shown at 3, 4 and 5 s
        ((3.0, 6.0), 2.0, "truncated", (1, 3)),
        ((0.0, 3.0), 2.0, "shown", (0, 1)),
        ((0.0, 3.0), 2.0, "truncated", (0, 1)),
        ((0.0, 2.0), 2.0, "shown", None),  # ends when the picture begins
        ((0.0, 2.0), 2.0, "truncated", None),
        ((2.0, 2.0), 2.0, "shown", (0, 1)),
        ((1.2, 1.8), 2.0, "shown", None),
        ((10.0, 99.0), 2.0, "shown", (8, 2)),  # ten frames end at 12 s
        ((12.4, 13.0), 2.0, "shown", (9, 1)),
        ((12.6, 13.0), 2.0, "shown", None),
        ((0.1, 0.6), 0.0, "truncated", (0, 1)),
        ((3.0, 4.0), 0.3, "shown", (3, 1)),
    ],
)
def test_frames_of_a_picture_that_begins_late(segment, offset, rule, expected):
    start, end = segment
    assert segment_frames(start, end, 1.0, 10, rule, offset) == expected


def test_truncated_numbers_are_the_authors_wherever_the_picture_begins():
    """0.1 to 0.6 s at 24 frames a second: 11 frames by the authors' rounding."""
    assert segment_frames(0.1, 0.6, 24.0, 99, "truncated") == (2, 11)
    assert segment_frames(1.1, 1.6, 24.0, 99, "truncated", 24.0) == (2, 12)
    assert segment_frames(10.1, 10.6, 24.0, 99, "truncated", 240.0) == (2, int(254.4 - 10.1 * 24))


@pytest.mark.parametrize(("start", "first"), [(0.0, 3), (0.49, 3), (0.5, 2), (2.0, 1), (2.6, 0)])
def test_the_first_stored_frame_is_at_the_nearest_whole_one(params_for, start, first):
    """As ffmpeg's filter fps puts it."""
    annotate_segments((3, 6))
    store_index({"t": 9, "v": 9}, fps=1.0, start_seconds=start)
    build_lists(params_for("mine", data={"min_frames": 0}), "mine")
    assert train_rows() == [(first, 3)]


def test_every_frame_counts_from_the_first_picture_without_fps(params_for):
    annotate_segments((3, 4), spec="")
    store_index({"t": 300, "v": 300}, fps=30.0, start_seconds=2.0)
    build_lists(params_for("mine"), "mine")
    assert train_rows() == [(30, 30)]


def test_cut_segments_are_counted_and_named(params_for):
    annotate_segments((0, 3), (5, 20), (7, 30), (12.3, 13))
    store_index({"t": 10, "v": 9}, fps=1.0, start_seconds=2.0)
    notes = build_lists(params_for("mine", data={"min_frames": 0}), "mine").notes
    assert train_rows() == [(0, 1), (3, 7), (5, 5), (9, 1)]
    expected = "3 segments are cut where their video ends, up to 18 frames earlier: t from 7 s, t"
    assert any(note.startswith(expected) for note in notes)
    assert "1 segments are cut where the picture of their video begins" in notes


def test_rounding_is_not_counted_as_cut(params_for):
    """A video of 20.4 s has 20 frames at 1 frame a second."""
    annotate_segments((5, 20.4), (0, 20))
    store_index({"t": 20, "v": 9}, fps=1.0)
    notes = build_lists(params_for("mine"), "mine").notes
    assert not any("cut" in note for note in notes)


def test_a_segment_outside_of_its_picture_is_missing(params_for):
    annotate_segments((3, 6), (70, 80), (0, 1.5))
    store_index({"t": 10, "v": 9}, fps=1.0, start_seconds=2.0)
    reason = "short: 2 of 3 segments, e.g. 70 to 80 s lies outside of its picture, 2.0 to 12.0 s"
    with pytest.raises(ListError) as caught:
        build_lists(params_for("mine"), "mine")
    assert f"t (train): {reason}" in str(caught.value)
    assert short_videos(params_for("mine"), "mine") == {"t": reason}
    write_ledger("mine", {"t": reason})
    summary = build_lists(params_for("mine", data={"min_frames": 0}), "mine")
    assert summary.missing == [["t", "train", reason]]
    assert train_rows() == [(1, 3)]
    assert not any("there again" in note for note in summary.notes)
    store_index({"t": 80, "v": 9}, fps=1.0)
    summary = build_lists(params_for("mine", data={"min_frames": 0}), "mine")
    assert any(
        "1 videos in data/annotations/mine/missing.csv are there again" in note
        for note in summary.notes
    )


def test_the_missing_command_accepts_segments_outside_of_their_picture(params_for):
    annotate_segments((3, 6), (70, 80))
    store_index({"t": 10, "v": 9}, fps=1.0)
    manifest_path("mine").parent.mkdir(parents=True, exist_ok=True)
    manifest_path("mine").write_text("video_id,path,size\nt,t.mp4,1\nv,v.mp4,1\n")
    found = survey(params_for("mine"), "mine")
    assert found.rows == short_videos(params_for("mine"), "mine")
    assert found.added == ["t"]
    assert found.shortage == "1 files are shorter than their annotated segments"
    write_ledger("mine", found.rows)
    again = survey(params_for("mine"), "mine")
    assert (again.added, again.removed) == ([], [])


def test_uneven_frames_are_refused_where_seconds_matter(params_for):
    annotate_segments((3, 6), spec="")
    store_index({"t": 300, "v": 300}, fps=30.0, uneven_seconds=0.5)
    with pytest.raises(ListError, match=r"1 train videos .* set fps in datasets/(.|\n)*t: 0.50 s"):
        build_lists(params_for("mine"), "mine")
    store_index({"t": 300, "v": 300}, fps=30.0, uneven_seconds=0.02)
    build_lists(params_for("mine"), "mine")
    assert train_rows() == [(90, 90)]
    annotate_segments((3, 6), spec="fps: 30\n")
    store_index({"t": 300, "v": 300}, fps=30.0, uneven_seconds=0.5)
    build_lists(params_for("mine"), "mine")


def test_an_index_of_an_earlier_version_is_said_to_be_one(params_for):
    annotate_segments((3, 6))
    store_index({"t": 10, "v": 9}, fps=1.0, start_seconds=2.0)
    path = index_path("mine")
    write_index(read_index(path).drop_columns(list(LATER_COLUMNS)), read_states(path), path)
    assert np.isnan(read_index(path)["start_seconds"].to_numpy()).all()
    notes = build_lists(params_for("mine", data={"min_frames": 0}), "mine").notes
    assert train_rows() == [(3, 3)]
    assert any("1 videos were extracted by an earlier version" in note for note in notes)

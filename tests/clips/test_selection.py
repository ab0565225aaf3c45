"""Which records a run trains on, validates on and measures."""

from pathlib import Path

import pytest

from clipzoo.annotations.class_names import LABEL_DIR
from clipzoo.clips.selection import (
    base_classes,
    listed_classes,
    measured,
    of_classes,
    training_records,
    validation_records,
    whole_set,
)
from clipzoo.config import BASE_CLASSES_DIR, ConfigError, Params, load_params, replace
from clipzoo.data.records import Record, read_labels, write_labels, write_list
from clipzoo.files import ListError
from clipzoo.train.plan import make_plan

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
# 7 videos of 3 classes, two of them too short: 4 + 1 + 2
LENGTHS = {"a": [20, 20, 20, 5], "b": [9], "c": [8, 7]}


@pytest.fixture(autouse=True)
def lists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("lists/mine")
    records = [
        Record(f"{name}{i}", length, label)
        for label, (name, lengths) in enumerate(LENGTHS.items())
        for i, length in enumerate(lengths)
    ]
    write_labels(list(LENGTHS), folder / "labels.csv")
    write_list(records, folder / "train.csv")
    write_list([r for r in records if r.video_id in ("a3", "b0")], folder / "train_2shot.csv")
    return folder


def params(**changes) -> Params:
    values = {"data.dataset": "mine", "data.datasets": ["mine"], "data.demo": []}
    values |= {"data.zero_shot": [], "data.min_frames": 8, **changes}
    return replace(PARAMS, values)


def ids(records: list[Record]) -> list[str]:
    return [record.video_id for record in records]


def test_short_videos_are_dropped():
    records = training_records(params())
    assert ids(records.selected) == ["a0", "a1", "a2", "b0", "c0"]
    assert ids(records.dropped) == ["a3", "c1"]
    assert records.num_all == 5


def test_few_shot_picks_repeat_as_often_as_they_fit_into_the_videos_that_are_long_enough():
    """Of 7 videos 5 are long enough; of 2 picks 1: it is shown 5 times, not 7."""
    records = training_records(params(**{"data.shots": 2}))
    assert ids(records.selected) == ["b0"]
    assert ids(records.dropped) == ["a3"]
    assert records.num_all == 5
    plan = make_plan(params(**{"data.shots": 2}), len(records.selected), records.num_all)
    assert plan.num_clips == 5
    other = params(**{"data.shots": 2, "model.method": "vificlip"})
    assert make_plan(other, len(records.selected), records.num_all).num_clips == 1


def test_training_is_on_the_base_classes():
    records = training_records(params(**{"data.classes": "base"}))
    assert {record.label for record in records.selected} == {0, 2}
    assert records.num_all == 4


def test_training_is_on_the_classes_of_a_committed_list(tmp_path, monkeypatch):
    monkeypatch.setattr("clipzoo.clips.selection.BASE_CLASSES_DIR", tmp_path)
    (tmp_path / "hmdb51_vificlip.csv").write_text("name\nc\nb\n")
    records = training_records(params(**{"data.classes": "hmdb51_vificlip"}))
    assert {record.label for record in records.selected} == {1, 2}
    (tmp_path / "hmdb51_vificlip.csv").write_text("name\nc\nbb\n")
    with pytest.raises(ListError, match=r"labels\.csv has no class 'bb' \(did you mean b\?\)"):
        training_records(params(**{"data.classes": "hmdb51_vificlip"}))


@pytest.mark.parametrize(
    ("name", "labels", "count"),
    [
        ("hmdb51_vificlip", "hmdb51_vificlip", 26),
        ("hmdb51_vificlip", "hmdb51", 26),
        ("ucf101_vificlip", "ucf101", 51),
        ("kinetics400_vificlip", "kinetics400", 200),
        ("ssv2_vificlip", "ssv2", 87),
    ],
)
def test_committed_lists_have_half_of_the_classes(name, labels, count):
    names = read_labels(LABEL_DIR / f"{labels}.csv")
    ids = listed_classes(BASE_CLASSES_DIR / f"{name}.csv", LABEL_DIR / f"{labels}.csv")
    assert len(set(ids)) == count == (len(names) + 1) // 2
    assert ids == sorted(ids)
    if labels.startswith("hmdb51"):  # by name, 25 (pour) to 50 (wave)
        assert ids == list(range(25, 51))


def test_an_unknown_choice_of_classes_is_refused():
    with pytest.raises(ConfigError, match=r"data\.classes: found 'hmdb51'.*all, base, hmdb51_vif"):
        params(**{"data.classes": "hmdb51"})


def test_without_epochs_no_list_is_read(lists):
    for path in lists.iterdir():
        path.unlink()
    records = training_records(params(**{"train.epochs": 0}))
    assert (records.selected, records.dropped, records.num_all) == ([], [], 0)


def test_too_short_videos_alone_are_refused():
    with pytest.raises(ConfigError, match=r"data\.min_frames: none of 7 .* has 100 frames"):
        training_records(params(**{"data.min_frames": 100}))


def test_several_labels_a_video_cannot_be_reduced_to_some_classes():
    records = [Record("a", 9, 0, labels=(0, 1))]
    with pytest.raises(ConfigError, match=r"data\.classes: a multi-label dataset allows: all"):
        of_classes(records, [0])


def test_base_classes_are_the_more_frequent_half():
    records = [Record(f"{i}", 9, label) for i, label in enumerate([4, 4, 3, 3, 3, 1, 0, 0])]
    assert base_classes(records, 5) == [0, 3, 4]
    assert base_classes(records, 6) == [0, 3, 4]
    assert base_classes([], 4) == [0, 1]


def test_classes_get_new_labels_in_their_order():
    records = [Record("a", 9, 3), Record("b", 9, 1), Record("c", 9, 2)]
    assert of_classes(records, [1, 3]) == [Record("a", 9, 1), Record("b", 9, 0)]


def test_validations_leave_out_what_is_too_short_for_the_method():
    write_list([Record("a", 7, 0), Record("b", 8, 1)], "lists/mine/val.csv")
    assert ids(validation_records(params(), 3, min_frames=8)) == ["b"]
    assert ids(validation_records(params(), 3, min_frames=0)) == ["a", "b"]


def test_the_whole_set_is_train_and_val():
    write_list([Record("a", 9, 0)], "lists/ds/train.csv")
    write_list([Record("b", 9, 1)], "lists/ds/val.csv")
    found = whole_set(PARAMS, "ds", 2)
    assert (ids(found.records), found.lists, found.complete) == (["a", "b"], ["train", "val"], True)
    write_list([Record("c", 9, 1)], "lists/ds/whole.csv")
    assert whole_set(PARAMS, "ds", 2).lists == ["whole"]
    Path("lists/ds/whole.csv").unlink()
    Path("lists/ds/train.csv").unlink()
    assert whole_set(PARAMS, "ds", 2).lists == ["val"]
    with pytest.raises(ListError, match="run build_lists absent"):
        whole_set(PARAMS, "absent", 2)


def test_a_stand_in_of_another_architecture_is_measured_on_a_few_videos_of_each_class():
    records = [Record(f"v{i}", 9, i % 3) for i in range(11)]  # the 2 first of 3 classes: v0 to v5
    write_list(records, "lists/mine/val.csv")
    own = params(**{"demo.other_archs.eval_videos": 2})
    other = replace(own, {"model.arch": "ViT-L/14"})
    found = measured(other, "mine", ["val"], 3)
    assert (found.records, found.share, found.complete) == (records[:6], "6 of 11", False)
    assert validation_records(other, 3, 0) == records[:6]
    real = replace(other, {"model.weights": "openai"})
    for run in (own, real):
        found = measured(run, "mine", ["val"], 3)
        assert (found.records, found.complete) == (records, True)

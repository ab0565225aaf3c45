"""What a training run is put together from."""

from pathlib import Path

import pytest

from clipzoo.config import Params, load_params, replace
from clipzoo.data.records import Record, write_labels, write_list
from clipzoo.train import setup
from clipzoo.train.plan import make_plan
from clipzoo.train.setup import TrainingError, load_training_records

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
    records = load_training_records(params())
    assert ids(records.selected) == ["a0", "a1", "a2", "b0", "c0"]
    assert ids(records.dropped) == ["a3", "c1"]
    assert records.num_all == 5


def test_few_shot_picks_repeat_as_often_as_they_fit_into_the_videos_that_are_long_enough():
    """Of 7 videos 5 are long enough; of 2 picks 1: it is shown 5 times, not 7."""
    records = load_training_records(params(**{"data.shots": 2}))
    assert ids(records.selected) == ["b0"]
    assert ids(records.dropped) == ["a3"]
    assert records.num_all == 5
    plan = make_plan(params(**{"data.shots": 2}), len(records.selected), records.num_all)
    assert plan.num_clips == 5


def test_base_classes_are_the_more_frequent_half():
    records = load_training_records(params(**{"data.classes": "base"}))
    assert {record.label for record in records.selected} == {0, 2}
    assert records.num_all == 4


def test_without_epochs_no_list_is_read(lists):
    for path in lists.iterdir():
        path.unlink()
    records = load_training_records(params(**{"train.epochs": 0}))
    assert (records.selected, records.dropped, records.num_all) == ([], [], 0)


def test_too_short_videos_alone_are_refused():
    with pytest.raises(TrainingError, match=r"data\.min_frames: none of 7 .* has 100 frames"):
        load_training_records(params(**{"data.min_frames": 100}))


def test_several_labels_a_video_cannot_be_reduced_to_some_classes():
    records = [Record("a", 9, 0, labels=(0, 1))]
    with pytest.raises(TrainingError, match=r"data\.classes: found base; .* allows: all"):
        setup._of_classes(records, [0])

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pyarrow import parquet

from clipzoo.clips.selection import MeasuredSet
from clipzoo.data.records import SPLIT_COLUMNS, Record, videos_sha256
from clipzoo.data.targets import label_tensor
from clipzoo.evaluate import predictions
from clipzoo.files import ListError, file_sha256, write_csv
from clipzoo.tensors import read_safetensors

NAMES = ["run", "a bow", "jump"]
RECORDS = [Record("b/ü 1.mp4", 9, 1), Record("a", 30, 0)]


def measured(lists: list[str]) -> MeasuredSet:
    return MeasuredSet(dataset="ds", records=RECORDS, lists=lists, num_listed=len(RECORDS))


@pytest.fixture(autouse=True)
def _root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_labels_are_ids_or_targets():
    assert label_tensor(RECORDS, 3).tolist() == [1, 0]
    several = [Record("a", 9, 2, labels=(0, 2)), Record("b", 9, -1, labels=())]
    assert label_tensor(several, 3).tolist() == [[1, 0, 1], [0, 0, 0]]


def test_saved_predictions_hold_all_that_scores_them():
    tensors = {
        "features": torch.randn(2, 3, 4).half(),
        "probabilities": torch.tensor([[0.5, 0.2, 0.3], [0.6, 0.2, 0.2]]),
        "labels": torch.tensor([1, 0]),
    }
    views = ["clip0-left", "clip0-right", "clip0-center"]
    metadata = {"arch": "ViT-L/14", "num_videos": 2}
    predictions.save("test", tensors, RECORDS, views, NAMES, metadata)
    read, metadata = read_safetensors("predictions/test.safetensors")
    assert {k: v.tolist() for k, v in read.items()} == {k: v.tolist() for k, v in tensors.items()}
    assert json.loads(metadata.pop("view_names")) == views
    assert metadata == {"arch": "ViT-L/14", "num_videos": "2", "features_dtype": "float16"}
    rows = parquet.read_table("predictions/test.parquet").to_pylist()
    assert rows == [
        {"video_id": "b/ü 1.mp4", "label": 1, "pos": 0, "class": "a bow", "predicted": "run"}
        | {"probability": 0.5, "rank": 3},
        {"video_id": "a", "label": 0, "pos": 1, "class": "run", "predicted": "run"}
        | {"probability": pytest.approx(0.6), "rank": 1},
    ]
    assert sorted(p.name for p in Path("predictions").iterdir()) == [
        "test.parquet",
        "test.safetensors",
    ]


def test_equal_predictions_are_equal_bytes():
    tensors = {
        "features": torch.ones(2, 1, 4),
        "probabilities": torch.full((2, 3), 1 / 3),
        "labels": torch.tensor([1, 0]),
    }
    metadata = {f"key {i}": 'ü "\n\x01' for i in range(8)}
    written = set()
    for _ in range(3):
        predictions.save("test", tensors, RECORDS, ["clip0-center"], NAMES, metadata)
        written.add(Path("predictions/test.safetensors").read_bytes())
        written.add(Path("predictions/test.parquet").read_bytes())
    assert len(written) == 2
    read, stored = read_safetensors("predictions/test.safetensors")
    assert metadata.items() <= stored.items()
    assert torch.equal(read["features"], tensors["features"])


def test_multi_label_sets_have_all_true_classes_and_the_best_rank():
    records = [Record("a", 9, 2, labels=(0, 2)), Record("b", 9, -1, labels=())]
    tensors = {
        "features": torch.zeros(2, 1, 4),
        "probabilities": torch.tensor([[0.1, 0.6, 0.3], [0.2, 0.0, 0.8]]),
        "labels": label_tensor(records, 3),
    }
    predictions.save("test", tensors, records, ["clip0-center"], NAMES, {})
    table = parquet.read_table("predictions/test.parquet")
    assert table.column("label").to_pylist() == ["0;2", ""]
    assert table.column("class").to_pylist() == ["run; jump", ""]
    assert table.column("predicted").to_pylist() == ["a bow", "jump"]
    assert table.column("rank").to_pylist() == [2, None]  # jump is second, run third


def test_videos_have_their_label_and_the_class_that_is_measured():
    """Ties go to the lower class id, as in top-1; ids keep commas and quotes."""
    records = [Record('a,"b"', 9, 1), Record("c", 9, 0)]
    tensors = {
        "features": torch.zeros(2, 1, 4),
        "labels": torch.tensor([1, 0]),
        "probabilities": torch.tensor([[0.4, 0.4, 0.2], [0.1, 0.2, 0.7]]),
    }
    predictions.write_videos("test", records, tensors)
    text = 'video_id,label,predicted\n"a,""b""",1,0\nc,0,2\n'
    assert Path("test/videos.csv").read_text(encoding="utf-8") == text
    tensors["raw_probabilities"] = torch.tensor([[0.3, 0.4, 0.3], [0.6, 0.2, 0.2]])
    predictions.write_videos("unseen", records, tensors)
    text = 'video_id,label,predicted,raw_predicted\n"a,""b""",1,0,1\nc,0,2,0\n'
    assert Path("unseen/videos.csv").read_text(encoding="utf-8") == text
    del tensors["raw_probabilities"]
    predictions.write_videos("views", records, tensors, torch.tensor([[0.1, 0.9, 0], [1, 0, 0]]))
    text = 'video_id,label,predicted,single_view_predicted\n"a,""b""",1,0,1\nc,0,2,0\n'
    assert Path("views/videos.csv").read_text(encoding="utf-8") == text


def test_multi_label_sets_have_no_predicted_class_for_each_video():
    records = [Record("a", 9, 2, labels=(0, 2))]
    tensors = {"labels": label_tensor(records, 3), "probabilities": torch.ones(1, 3)}
    predictions.write_videos("test", records, tensors)
    assert not Path("test").exists()


def test_the_videos_of_kinetics_are_under_a_megabyte():
    """All 19,877 of Kinetics-400, in folders of their classes: 14 letters are the mean there."""
    records = [Record("playing guitar/0wR5jVB-WPk_000417_000427", 300, 399)] * 19_877
    probabilities = torch.eye(400)[399:].expand(len(records), -1)
    tensors = {"labels": torch.full((len(records),), 399), "probabilities": probabilities}
    predictions.write_videos("test", records, tensors)
    assert Path("test/videos.csv").stat().st_size < 1_000_000


def test_equal_probabilities_are_predicted_as_they_are_measured():
    tied = torch.tensor([[0.4, 0.4, 0.2]])
    first, second = (predictions.readable(tied, torch.tensor([label]), NAMES) for label in (0, 1))
    assert [c["predicted"].to_pylist() for c in (first, second)] == [["run"], ["run"]]
    assert [c["rank"].to_pylist() for c in (first, second)] == [[1], [2]]


def test_splits_are_positions_in_the_whole_set():
    assert predictions.read_splits(measured(["whole"])) == []
    second = RECORDS[1].video_id
    rows = [(RECORDS[0].video_id, 1), (second, 2), (RECORDS[0].video_id, 2)]
    write_csv(SPLIT_COLUMNS, rows, "lists/ds/splits.csv")
    stored = predictions.read_splits(measured(["whole"]))
    assert [positions.tolist() for positions in stored] == [[0], [0, 1]]
    with pytest.raises(ListError, match=rf"splits\.csv:3: video_id: found '{second}'.* run build"):
        predictions.read_splits(replace(measured(["whole"]), records=RECORDS[:1], num_listed=1))
    write_csv(SPLIT_COLUMNS, [], "lists/ds/splits.csv")
    with pytest.raises(ListError, match="no line after the header"):
        predictions.read_splits(measured(["whole"]))


def test_a_set_is_described_by_its_sorted_ids():
    described = predictions.describe_set(
        measured(["val"]),
        "clips 1",
    )
    assert described == {
        "dataset": "ds",
        "protocol": "clips 1",
        "num_videos": 2,
        "num_expected": 2,
        "videos_sha256": videos_sha256(["a", "b/ü 1.mp4"]),
        "missing_sha256": "",
    }


@pytest.mark.parametrize(("lists", "missing"), [(["val"], "x"), (["train", "val"], "xyz")])
def test_missing_videos_of_the_same_lists_are_expected(lists: list[str], missing: str):
    rows = [("x", "val", "no frames"), ("y", "train", "no frames"), ("z", "train", "broken")]
    write_csv(("video_id", "set", "reason"), rows, "lists/ds/missing.csv")
    described = predictions.describe_set(measured(lists), "")
    assert (described["num_videos"], described["num_expected"]) == (2, 2 + len(missing))
    ids = [record.video_id for record in RECORDS]
    assert described["expected_sha256"] == videos_sha256([*ids, *missing])
    assert described["missing_sha256"] == file_sha256("lists/ds/missing.csv")


def test_a_video_that_lacks_a_segment_is_not_missing_as_a_whole():
    rows = [("a", "train", "short: 1 of 2 segments"), ("x", "train", "absent")]
    write_csv(("video_id", "set", "reason"), rows, "lists/ds/missing.csv")
    described = predictions.describe_set(measured(["whole"]), "")
    assert (described["num_videos"], described["num_expected"]) == (2, 3)
    assert described["expected_sha256"] == videos_sha256(["a", "b/ü 1.mp4", "x"])

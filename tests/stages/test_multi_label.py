"""Charades' form from raw videos to the report: segments to train on, whole videos to test."""

import csv
import json
from pathlib import Path

import pytest
import torch

from clipzoo.clips.clips import TrainClips
from clipzoo.clips.transforms import TrainTransform
from clipzoo.config import load_params
from clipzoo.data.records import read_list, videos_sha256
from clipzoo.data.store import open_store
from clipzoo.tensors import read_safetensors
from videos import make_video

SPEC = "about: x\nformat: charades\nfps: 24\nsegment_rule: truncated\noverrun_frames: 24\n"
# 12 frames a second for 2 s: 48 stored frames, each of the video twice. trainB is 1 s short.
TRAIN = {
    "trainA": ("c000 0.00 1.50;c001 0.50 2.00;c002 0.00 2.50", 2),
    "trainB": ("c001 0.50 2.00", 1),
}
TEST = {"testA": "c000 0.00 1.00;c002 1.00 2.00", "testB": "", "testC": "c001 0.00 2.00"}


@pytest.fixture
def charades(fresh_workspace, monkeypatch) -> Path:
    """Raw videos and annotations of dataset `mine`, and the frames and lists made of them."""
    root = fresh_workspace.path
    monkeypatch.chdir(root)
    monkeypatch.delenv("CLIPZOO_DATA", raising=False)
    lengths = {**{name: seconds for name, (_, seconds) in TRAIN.items()}, **dict.fromkeys(TEST, 2)}
    rows = []
    for name, seconds in lengths.items():
        path = make_video(Path(f"data/raw/mine/{name}.mp4"), 12 * seconds, "64x48", fps=12)
        rows.append(f"{name},{path.name},{path.stat().st_size}\n")
    Path("data/raw/mine.csv").write_text("video_id,path,size\n" + "".join(rows))
    Path("datasets/mine.yaml").write_text(SPEC)
    folder = Path("data/annotations/mine")
    folder.mkdir(parents=True)
    classes = "c000 Closing a door\nc001 Holding a bag\nc002 Sitting in a chair\n"
    (folder / "Charades_v1_classes.txt").write_text(classes)
    train = "".join(f"{name},{actions},2.00\n" for name, (actions, _) in TRAIN.items())
    (folder / "Charades_v1_train.csv").write_text("id,actions,length\n" + train)
    test = "".join(f"{name},{actions}\n" for name, actions in TEST.items())
    (folder / "Charades_v1_test.csv").write_text("id,actions\n" + test)
    values = {"data__dataset": "mine", "data__datasets": ["mine"], "data__demo": []}
    fresh_workspace.set(**values, data__zero_shot=[], recipe="mine", data__min_frames=1)
    for stage in ("extract_frames", "build_lists"):
        fresh_workspace.run_here(stage, "mine")
    return root


def test_segments_become_clips_of_their_frames(charades):
    records = read_list("lists/mine/train.csv", 3)
    assert [(r.video_id, r.start_frame, r.num_frames, r.label) for r in records] == [
        ("trainA", 0, 36, 0),
        ("trainA", 12, 36, 1),
        ("trainA", 0, 48, 2),
        ("trainB", 12, 12, 1),  # to 48 by its length, cut at 24
    ]
    params = load_params()
    store = open_store(params, "mine")
    assert store.videos["trainA"].fps == 24
    asked: list[tuple[str, list[int]]] = []
    read = store.read

    def record_indices(video_id, indices):
        asked.append((video_id, [int(i) for i in indices]))
        return read(video_id, indices)

    store.read = record_indices
    clips = TrainClips(store, records, TrainTransform(32, params.augment), 4, seed=0)
    for epoch in range(8):
        for position in range(len(records)):
            assert clips.load(position, epoch).shape == (4, 3, 32, 32)
    for (video_id, indices), record in zip(asked, records * 8, strict=True):
        assert video_id == record.video_id
        quarter = record.num_frames // 4
        parts = [(i - record.start_frame) // quarter for i in indices]
        assert parts == [0, 1, 2, 3], "one frame of each quarter of the segment"


@pytest.mark.slow
def test_whole_videos_are_tested_with_all_their_labels(charades, fresh_workspace):
    fresh_workspace.set(model__weights="random", train__epochs=1, train__batch_size=4)
    fresh_workspace.set(train__val_every=1, train__select="best", train__warmup_epochs=0)
    for stage in (["prepare_clip"], ["embed_labels", "mine"], ["train"], ["test"], ["report"]):
        fresh_workspace.run_here(*stage)
    train = json.loads(Path("metrics/mine/train.json").read_text())
    assert train["num_videos"] == 4
    values = json.loads(Path("metrics/mine/test.json").read_text())
    assert values["num_videos"] == values["num_expected"] == 3  # with the one without a label
    assert values["videos_sha256"] == videos_sha256(TEST)
    assert not [key for key in values if "top" in key]
    tensors, _ = read_safetensors("predictions/test.safetensors")
    assert tensors["labels"].tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    order = tensors["probabilities"].argsort(dim=0, descending=True)  # [3, K]
    hits = tensors["labels"].gather(0, order).float()
    precisions = hits.cumsum(0) / torch.arange(1, 4)[:, None]
    expected = 100 * float((hits * precisions).sum(0).mean())  # one video of each class
    assert values["map"] == pytest.approx(expected, 1e-5)
    # one clip and the center crop, as in training
    assert train["val_map_best"] == pytest.approx(values.get("single_view_map", expected), 1e-4)
    with Path("zoo.csv").open() as file:
        rows = {row["metric"]: row for row in csv.DictReader(file) if row["recipe"] == "mine"}
    assert float(rows["map"]["value"]) == values["map"]

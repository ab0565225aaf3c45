"""`clipzoo embed` and `clipzoo search` on the tiny demo: its frame store, windows, wrong inputs."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pyarrow import parquet

from clipzoo.config import ConfigError, load_params
from clipzoo.data.store import open_store
from clipzoo.evaluate.retrieval import RANKS
from clipzoo.files import ListError
from clipzoo.serve.embeddings import Embedded, search, write_embeddings
from clipzoo.serve.folder import write_folder
from clipzoo.serve.model import VideoModel
from clipzoo.serve.stored import open_frames
from console import run

UNSEEN = "demo_unseen"


def rows_of(path: Path) -> tuple[dict[str, list], np.ndarray]:
    table = parquet.read_table(path)
    data = b"".join(table["embedding"].to_pylist())
    columns = {name: table[name].to_pylist() for name in ("video", "start", "end")}
    return columns, np.frombuffer(data, "<f4").reshape(len(table), -1)


def raw_files() -> dict[str, Path]:
    with Path(f"data/raw/{UNSEEN}.csv").open(newline="") as file:
        paths = {row["video_id"]: row["path"] for row in csv.DictReader(file)}
    return {name: Path("data/raw") / UNSEEN / path for name, path in paths.items()}


def test_the_frame_store_gives_the_rows_of_the_raw_files(here, of_run, monkeypatch, tmp_path):
    assert run(monkeypatch, "embed", "--dataset", UNSEEN, tmp_path / "a.parquet") == 0
    columns, stored = rows_of(tmp_path / "a.parquet")
    assert columns["video"] == list(open_store(load_params(), UNSEEN).videos)
    assert set(columns["start"]) == set(columns["end"]) == {None}
    raw = raw_files()
    chosen = range(0, len(stored), 7)
    files = [raw[columns["video"][i]] for i in chosen]
    assert run(monkeypatch, "embed", *files, tmp_path / "b.parquet") == 0
    named, own = rows_of(tmp_path / "b.parquet")
    assert named["video"] == [str(path) for path in files]
    np.testing.assert_allclose(own, stored[list(chosen)], rtol=0, atol=1e-5)


def test_search_has_the_recall_that_the_metrics_say(here, of_run, tmp_path):
    """Each class's prompt is sought among the videos, from the views of zero_shot."""
    params = load_params()
    views = of_run.config.views.model_copy(
        update={"clips": params.zero_shot.clips, "crops": params.zero_shot.crops}
    )
    config = of_run.config.model_copy(update={"views": views})
    model = VideoModel(replace(of_run, config=config), "cpu")
    with Path(f"lists/{UNSEEN}/labels.csv").open(newline="") as file:
        names = [row["name"] for row in csv.DictReader(file)]
    with Path(f"lists/{UNSEEN}/val.csv").open(newline="") as file:
        labels = {row["video_id"]: int(row["label"]) for row in csv.DictReader(file)}
    store = open_frames(params, UNSEEN, config.frames)
    embedded = zip(labels, model.embed_stored(store, list(labels)), strict=True)
    rows = [Embedded(video=name, embedding=value.numpy()) for name, value in embedded]
    write_embeddings(rows, tmp_path / "a.parquet", model.text.dim, "0")
    queries = model.class_text(names).ensemble()
    ranks = []
    for label in sorted(set(labels.values())):
        found = search(tmp_path / "a.parquet", queries[label].numpy(), "0", len(labels))
        ranks.append(next(i for i, row in enumerate(found) if labels[row.video] == label))
    values = json.loads(Path(f"metrics/demo/zero_shot_{UNSEEN}.json").read_text())
    assert values["class_to_video_num_queries"] == len(ranks)
    for k in RANKS:
        recall = 100 * sum(rank < k for rank in ranks) / len(ranks)
        assert values[f"class_to_video_recall{k}"] == pytest.approx(recall, abs=1e-6)


def test_frames_of_another_size_are_refused(here, of_run):
    params = load_params()
    for change, message in (
        ({"size": 72}, r"frames\.size: found 36; allowed: 72"),
        ({"quality": 5}, r"frames\.quality: found 3; allowed: 5"),
        ({"fps": 4.0}, r"fps: found None; allowed: 4\.0"),
    ):
        with pytest.raises(ConfigError, match=message):
            open_frames(params, UNSEEN, of_run.config.frames.model_copy(update=change))


def test_windows_are_rows_with_times(here, of_run, monkeypatch, capsys, tmp_path):
    video = next(iter(raw_files().values()))
    out = tmp_path / "a.parquet"
    assert run(monkeypatch, "embed", video, out, "--every", "0.5") == 0
    columns, found = rows_of(out)
    assert f"{len(found)} windows" in capsys.readouterr().out
    assert len(found) > 1
    assert columns["start"][1:] == columns["end"][:-1]
    windows = list(VideoModel(of_run, "cpu").embed_windows(video, every=0.5))
    np.testing.assert_allclose(found, torch.stack([w for *_, w in windows]), atol=1e-6)
    assert run(monkeypatch, "search", out, "a red bar", "--top", 1) == 0
    assert capsys.readouterr().out.rstrip().endswith(" s")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["embed", "{video}"], "allowed: OUT.parquet, last"),
        (["embed", "out.parquet"], "found no video; allowed: VIDEO... OUT.parquet, or --dataset"),
        (["embed", "{video}", "{folder}.parquet"], "which is a folder"),
        (
            ["embed", "{video}", "out.parquet", "--every", "0"],
            "--every: found 0; allowed: 0.001 seconds",
        ),
        (["embed", "{video}", "out.parquet", "--every", "nan"], "--every: found nan"),
        (["embed", "{video}", "out.parquet", "--dataset", UNSEEN], "allowed: a dataset, or files"),
        (["embed", "out.parquet", "--dataset", UNSEEN, "--every", "2"], "allowed: with files"),
        (["embed", "out.parquet", "--dataset", "demo_unsen"], "demo_unsen"),
        (["embed", "out.parquet", "--dataset", "../demo_unseen"], "demo_unseen"),
        (["embed", "out.parquet", "--dataset", ""], "dataset"),
        (["embed", "nowhere.mp4", "out.parquet"], "1 of 1 video cannot be read"),
        (["embed", "lists", "out.parquet"], "no video in this folder"),
        (["embed", "{video}", "out.parquet", "--model", "nowhere"], "nowhere/config.json"),
        (["search", "nowhere.parquet", "a"], "nowhere.parquet: cannot be read"),
        (["search", "lists", "a"], "lists: is a folder"),
        (["search", "zoo.csv", "a"], "zoo.csv: cannot be read"),
        (["search", "out.parquet", "a", "--top", "0"], "--top: found 0; allowed: 1 or more"),
        (["search", "out.parquet", " "], "found an empty sentence"),
    ],
)
def test_wrong_arguments_are_errors(here, monkeypatch, capsys, tmp_path, arguments, message):
    (tmp_path / "a.parquet").mkdir()
    video = str(next(iter(raw_files().values())))
    places = {"video": video, "folder": str(tmp_path / "a")}
    assert run(monkeypatch, *(text.format(**places) for text in arguments)) == 1
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("error: ")
    assert message in error
    assert not Path("out.parquet").exists()


def test_where_no_video_can_be_read_the_earlier_file_stays(here, monkeypatch, capsys, tmp_path):
    out = tmp_path / "a.parquet"
    out.write_bytes(b"earlier")
    assert run(monkeypatch, "embed", "nowhere.mp4", out) == 1
    assert out.read_bytes() == b"earlier"
    capsys.readouterr()


def test_a_closed_model_embeds_and_cannot_search(here, of_run, monkeypatch, capsys, tmp_path):
    write_folder(of_run, tmp_path / "closed", "closed")
    out, video = tmp_path / "a.parquet", next(iter(raw_files().values()))
    assert run(monkeypatch, "embed", video, out, "--model", tmp_path / "closed") == 0
    assert run(monkeypatch, "search", out, "a bar", "--model", tmp_path / "closed") == 1
    assert "the model is closed" in capsys.readouterr().err
    with pytest.raises(ListError, match="another model"):
        search(out, np.zeros(3, np.float32), "0", 1)

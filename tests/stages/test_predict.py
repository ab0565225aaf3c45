"""A model folder and what uses it: predict, embed, search; on the raw videos of the tiny demo."""

import csv
import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pyarrow import parquet
from safetensors.torch import load_file

import clipzoo
from clipzoo.config import ConfigError, load_params
from clipzoo.data.decoding import VideoError
from clipzoo.data.store import open_store
from clipzoo.serve.folder import model_of_run, read_folder, write_folder
from clipzoo.serve.model import VideoModel
from clipzoo.serve.video_file import VideoFile
from clipzoo.tensors import WeightsError
from console import run

CLASSES = ["a red bar becoming large", "a blue ring becoming dark"]


def measured() -> list[tuple[Path, int]]:
    """The raw files of the validation videos, in the order of predictions/test, and their rows."""
    ids = parquet.read_table("predictions/test.parquet")["video_id"].to_pylist()
    with Path("data/raw/demo_shapes.csv").open(newline="") as file:
        paths = {row["video_id"]: row["path"] for row in csv.DictReader(file)}
    return [(Path("data/raw/demo_shapes") / paths[name], i) for i, name in enumerate(ids)]


def test_raw_files_have_the_frames_and_scores_of_the_pipeline(of_run):
    model, stored = VideoModel(of_run, "cpu"), load_file("predictions/test.safetensors")
    params = load_params()
    store = open_store(params, "demo_shapes")
    rows = parquet.read_table("predictions/test.parquet")["video_id"].to_pylist()
    for path, i in measured()[::9]:
        file = VideoFile(path, of_run.config.frames)
        assert file.num_frames == store.videos[rows[i]].num_frames
        places = [file.num_frames - 1, 0, 3]
        assert file.read(file.name, places) == store.read(rows[i], places)
        found = model.predict(path, top=len(model.class_names))
        values = dict(zip(found.labels, found.probabilities, strict=True))
        mine = torch.tensor([values[name] for name in model.class_names])
        torch.testing.assert_close(mine, stored["probabilities"][i], rtol=0, atol=1e-5)
        assert found.probabilities == sorted(found.probabilities, reverse=True)
        assert found.seconds == [pytest.approx(file.seconds[k], abs=1e-6) for k in found.frames]
        expected = torch.nn.functional.normalize(stored["features"][i].mean(dim=0), dim=0)
        torch.testing.assert_close(model.embed(path), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["open", "closed"])
def test_a_folder_gives_what_the_run_gives(of_run, tmp_path, kind):
    path = measured()[0][0]
    write_folder(of_run, tmp_path / "mine", kind)
    loaded, model = clipzoo.load(tmp_path / "mine", device="cpu"), VideoModel(of_run, "cpu")
    assert loaded.predict(path) == model.predict(path)
    if kind == "open":
        assert loaded.predict(path, CLASSES) == model.predict(path, CLASSES)
        torch.testing.assert_close(loaded.embed_text(CLASSES), model.embed_text(CLASSES))
        return
    for use in (lambda: loaded.predict(path, CLASSES), lambda: loaded.embed_text(["a"])):
        with pytest.raises(ConfigError, match="closed, without a text tower; allowed: its own 48"):
            use()
    with pytest.raises(ConfigError, match="kind: found open; allowed: closed"):
        write_folder(read_folder(tmp_path / "mine"), tmp_path / "b", "open")


def test_its_own_class_names_give_its_own_scores(of_run):
    model, path = VideoModel(of_run, "cpu"), measured()[5][0]
    own = model.predict(path, top=48)
    named = model.predict(path, model.class_names, top=48)
    assert named.labels[:5] == own.labels[:5]
    np.testing.assert_allclose(named.probabilities, own.probabilities, atol=1e-5)
    np.testing.assert_allclose(named.cosines, own.cosines, atol=1e-5)
    chosen = model.predict(path, CLASSES, top=2)
    assert sum(chosen.probabilities) == pytest.approx(1)
    cosines = dict(zip(own.labels, own.cosines, strict=True))
    for label, cosine in zip(chosen.labels, chosen.cosines, strict=True):
        if label in cosines:
            assert cosine == pytest.approx(cosines[label], abs=1e-5)


def test_views_of_a_prediction(of_run):
    model, path = VideoModel(of_run, "cpu"), measured()[0][0]
    one = model.predict(path, views=(1, 1))
    assert len(one.frames) == of_run.config.num_segments
    assert len(model.predict(path, views=(2, 3)).frames) > len(one.frames)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, r"config\.json: format: found 2; allowed: 1"),
        ({"method": "text5vis"}, "method: found 'text5vis'; allowed: raw, text4vis"),
        ({"num_segments": None}, "missing key num_segments"),
        ({"kind": "ajar"}, "kind: found 'ajar'"),
        ({"weights_sha256": "0"}, "its sha256 is .* get both files again"),
        ({"class_names": ["a"]}, "class_embeddings: .* write the folder again"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(of_run, tmp_path, change, message):
    write_folder(of_run, tmp_path, "closed")
    path = tmp_path / "config.json"
    content = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    with pytest.raises((WeightsError, ConfigError), match=message):
        read_folder(tmp_path)


def test_files_that_are_missing_are_named(of_run, tmp_path):
    with pytest.raises(WeightsError, match=r"config\.json"):
        read_folder(tmp_path)
    write_folder(of_run, tmp_path, "closed")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises((WeightsError, OSError), match=r"model\.safetensors"):
        read_folder(tmp_path)


def test_predict_says_what_it_saw(here, monkeypatch, capsys):
    (first, _), (second, _) = measured()[:2]
    assert run(monkeypatch, "predict", first, second, "--top", 2, "--device", "cpu") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert lines[0].startswith(f"{first} (")
    assert len(lines[1].split()) > 2
    assert run(monkeypatch, "predict", first, "--json", "--class", "a, b", "--device", "cpu") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["video"] == str(first)
    assert {row["label"] for row in content["predictions"]} == {"a", "b"}
    assert set(content["predictions"][0]) == {"label", "score", "cosine"}
    assert len(content["frames"]) == len(content["seconds"]) == content["num_frames"]
    assert content["top_k"] == len(content["predictions"])


def test_a_broken_file_costs_no_other(here, monkeypatch, capsys, tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    good = measured()[0][0]
    shutil.copy(good, folder / f"b{good.suffix}")
    (folder / "a.mp4").write_bytes(good.read_bytes()[:200])
    (folder / "notes.txt").write_text("not a video")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{folder}\n\nnowhere.mp4\n"))
    assert run(monkeypatch, "predict", "-", "--top", 1, "--device", "cpu") == 1
    done = capsys.readouterr()
    assert done.out.count("\n") == 2
    assert done.out.startswith(f"{folder}/b")
    assert "a.mp4" in done.err
    assert "nowhere.mp4: no such file" in done.err
    assert "2 of 3 videos cannot be read" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--class", "a, a"], "class name 'a' appears more than once"),
        (["--class", "a, "], "class 2: the class name is empty"),
        (["--top", "0"], "top: found 0; allowed: 1 or more"),
        (["--crops", "2"], "crops: found 2; allowed"),
        (["--classes", "nowhere.txt"], "nowhere.txt"),
        (["--model", "nowhere"], r"nowhere/config.json"),
    ],
)
def test_wrong_arguments_are_errors(here, monkeypatch, capsys, arguments, message):
    video = measured()[0][0]
    assert run(monkeypatch, "predict", video, "--device", "cpu", *arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error


def test_without_a_model_it_says_what_to_run(copy_of_demo, monkeypatch, capsys):
    monkeypatch.chdir(copy_of_demo.path)
    assert run(monkeypatch, "predict", "a.mp4") == 1
    assert "the last `dvc repro` is used: run that, or give a model" in capsys.readouterr().err
    assert run(monkeypatch, "predict", ".") == 1


def test_a_video_that_is_near_no_class_is_unknown(here, monkeypatch, capsys):
    video = measured()[0][0]
    for least, label in ((0.999, "unknown"), (-1, None)):
        assert run(monkeypatch, "predict", video, "--json", "--min-cosine", least) == 0
        rows = json.loads(capsys.readouterr().out)["predictions"]
        assert (len(rows), rows[0]["label"]) == (1, label) if label else len(rows) == 5


def test_search_finds_what_a_sentence_describes(here, of_run, monkeypatch, capsys, tmp_path):
    videos, out = [path for path, _ in measured()[:6]], tmp_path / "mine.parquet"
    folder = tmp_path / "mine"
    assert run(monkeypatch, "publish", "demo", folder) == 0
    assert run(monkeypatch, "embed", *videos, out, "--model", folder) == 0
    capsys.readouterr()
    assert run(monkeypatch, "search", out, CLASSES[0], "--top", 3, "--model", folder) == 0
    lines = capsys.readouterr().out.splitlines()
    model = clipzoo.load(folder, "cpu")
    query = model.embed_text([CLASSES[0]])[0]
    cosines = {str(path): float(model.embed(path) @ query) for path in videos}
    expected = sorted(cosines, key=lambda name: -cosines[name])[:3]
    assert [line.split(None, 1)[1] for line in lines] == expected
    assert float(lines[0].split()[0]) == pytest.approx(cosines[expected[0]], abs=6e-4)
    assert run(monkeypatch, "search", out, "a", "--device", "cpu") == 1  # the run's own weights
    assert "was written by another model" in capsys.readouterr().err
    assert run(monkeypatch, "search", "predictions/test.parquet", "a", "--model", folder) == 1
    assert "not a file of embeddings" in capsys.readouterr().err
    assert run(monkeypatch, "embed", videos[0], "--model", folder) == 1
    assert "allowed: OUT.parquet, last" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["bike", "actionclip", "raw"])
def test_every_method_predicts_any_classes(method, copy_of_demo, monkeypatch):
    """Its own class names as new ones give the scores of its own text, token embeddings too."""
    templates = ["{}"] if method == "bike" else ["a video of {}", "{}"]
    copy_of_demo.set(
        model__method=method, train__epochs=0, test__clips=1, text__templates=templates,
        bike__head_layers=1, bike__saliency=False, actionclip__head_layers=1,
    )  # fmt: skip
    copy_of_demo.run_here("embed_labels", "demo_shapes")
    copy_of_demo.run_here("train")
    monkeypatch.chdir(copy_of_demo.path)
    path = next(Path("data/raw/demo_shapes").rglob("*.mp4"))
    model = VideoModel(model_of_run(load_params()), "cpu")
    own = model.predict(path, top=48)
    named = model.predict(path, model.class_names, top=48, zero_shot=False)
    assert named.labels[0] == own.labels[0]
    (window,) = model.windows(path, every=1000, top=48)
    assert (window.labels, window.probabilities) == (own.labels, own.probabilities)
    assert (own.weights is not None) == (method == "bike"), "although bike.saliency is off"
    if own.weights:
        assert [sum(row) for row in own.weights.by_label] == [pytest.approx(1, abs=1e-5)] * 48
    np.testing.assert_allclose(named.probabilities, own.probabilities, atol=1e-5)


def test_a_method_of_words_is_refused(here):
    params = load_params()
    changed = params.model.model_copy(update={"inputs": "attributes"})
    with pytest.raises(ConfigError, match="the words that the stage attributes finds"):
        model_of_run(params.model_copy(update={"model": changed}))


def test_a_damaged_video_is_refused(here, of_run, tmp_path):
    path = measured()[0][0]
    cut = tmp_path / f"cut{path.suffix}"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(VideoError, match="cut"):
        VideoFile(cut, of_run.config.frames)

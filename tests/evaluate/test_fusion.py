"""Two branches' probabilities: reading, refusing and weighting them."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from torch import Tensor

from clipzoo.__main__ import main
from clipzoo.data.records import videos_sha256
from clipzoo.evaluate import fusion, predictions
from clipzoo.evaluate.fusion import FusionError, Scores
from clipzoo.files import write_json
from clipzoo.tensors import WeightsError, write_safetensors


def one_hot(*classes: int, share: float = 0.8) -> Tensor:
    """Probabilities [N, 3] with `share` for one class of each video, the rest in equal parts."""
    rows = torch.full((len(classes), 3), (1 - share) / 2)
    rows[torch.arange(len(classes)), torch.tensor(classes)] = share
    return rows


LABELS = torch.tensor([0, 1, 2, 0])
VIDEO = one_hot(0, 1, 2, 1)  # wrong on the last
ATTRIBUTES = one_hot(0, 2, 0, 0, share=0.9)  # right on the first and last


def scores(
    probabilities: Tensor, labels: Tensor | None = LABELS, ids: str | None = "abcd", name: str = "a"
) -> Scores:
    return Scores(
        name=name, probabilities=probabilities, labels=labels, video_ids=list(ids) if ids else None
    )


def test_the_curve_has_its_parts_at_its_ends_and_their_sum_between():
    curve = dict(fusion.weight_curve(scores(VIDEO), scores(ATTRIBUTES), LABELS))
    assert list(curve) == [step / 100 for step in range(101)]
    assert (curve[0.0], curve[1.0]) == (50, 75)
    # The video's right class wins where 0.8 w + 0.05 (1 - w) > 0.1 w + 0.9 (1 - w): w > 0.548;
    # the attributes' on the last one where w is below.
    assert (curve[0.54], curve[0.55]) == (50, 75)


@pytest.mark.parametrize(
    ("curve", "published", "best"),
    [
        ([(0.0, 50.0), (0.5, 75.0), (1.0, 60.0)], 0.7, 0.5),
        ([(0.2, 75.0), (0.6, 75.0), (0.9, 75.0)], 0.7, 0.6),
        ([(0.6, 75.0), (0.8, 75.0)], 0.7, 0.6),
    ],
)
def test_among_equal_weights_the_closest_to_the_published_one_is_best(curve, published, best):
    assert fusion.best_weight(curve, published) == best


def test_metrics_of_the_fusion_and_of_its_parts():
    both = (scores(VIDEO), scores(ATTRIBUTES), LABELS)
    values = fusion.compare(*both, 0.8)
    assert [values[f"{name}_top1"] for name in ("fused", "video", "attributes")] == [75, 75, 50]
    assert values["fused_top5"] == 100
    assert values["fused_gain_over_attributes"] == 25
    low, high = (values[f"fused_gain_over_video_ci95_{end}"] for end in ("low", "high"))
    assert -low == pytest.approx(high)  # they differ on no video, of 4
    assert high == pytest.approx(100 * 3.8415 / 7.8415, abs=1e-3)
    assert values["fused_gain_over_attributes_ci95_low"] < 0
    assert values["fused_gain_over_attributes_ci95_high"] > 25
    best = fusion.measure_best(*both, 0.2)
    assert (best["fused_best_weight"], best["fused_best_top1"]) == (0.2, 50)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (scores(VIDEO, ids="abce"), "only in a: d\n.*only in a: e"),
        (scores(VIDEO, ids="abdc"), "row 2: c and d\n.*row 3: d and c"),
        (scores(VIDEO[:3], ids="abc"), "only in a: d"),
        (scores(VIDEO[:3], LABELS[:3], ids=None), r"shapes \[4, 3\] and \[3, 3\]"),
        (scores(VIDEO, LABELS.flip(0)), "row 1: labels 1 and 2"),
    ],
)
def test_other_videos_are_refused_by_name(second, message):
    fusion.check_same_videos(scores(VIDEO), scores(ATTRIBUTES))
    fusion.check_same_videos(scores(VIDEO), scores(ATTRIBUTES, None, None))
    with pytest.raises(FusionError, match=f"(?s){message}"):
        fusion.check_same_videos(scores(VIDEO), second)


def test_more_rows_of_the_same_videos_are_refused():
    with pytest.raises(FusionError, match="4 and 3 rows"):
        fusion.check_same_videos(scores(VIDEO, ids="abca"), scores(VIDEO[:3], LABELS[:3], "abc"))


def test_rounded_probabilities_are_taken(tmp_path):
    """As float16 has them, with classes that are ruled out."""
    rounded = one_hot(0, 1, 2, 0, share=1.0) * torch.tensor([[1], [1.009], [0.991], [1]])
    torch.save(rounded, tmp_path / "a.pt")
    assert torch.equal(fusion.read_scores(tmp_path / "a.pt").probabilities, rounded)


def write_predictions(
    path: Path, probabilities: Tensor, train: Tensor | None = None, **about: str
) -> None:
    """Predictions as `test` writes them; `about` changes their metadata."""
    tensors = {"features": torch.zeros(4, 1, 2), "probabilities": probabilities, "labels": LABELS}
    metadata = {"dataset": "d", "protocol": "p", "num_videos": "4", "num_expected": "4"}
    metadata |= {"videos_sha256": videos_sha256("abcd"), "model_sha256": "m", "recipe": "demo/a"}
    if train is not None:
        tensors |= {"train_probabilities": train, "train_labels": torch.tensor([1, 2])}
        metadata["train_video_ids"] = json.dumps(["x", "y"])
    path.parent.mkdir(exist_ok=True, parents=True)
    write_safetensors(tensors, path, metadata | about)
    columns = {"video_id": list("abcd"), "label": LABELS.tolist(), "pos": range(4)}
    shown = predictions.readable(probabilities, LABELS, ["x", "y", "z"])
    parquet.write_table(pa.table({**columns, **shown}), path.with_suffix(".parquet"))


def test_prediction_files_are_read_with_ids_and_training_videos(tmp_path):
    first, second = tmp_path / "a/test.safetensors", tmp_path / "b/test.safetensors"
    write_predictions(first, VIDEO, one_hot(1, 2))
    write_predictions(second, ATTRIBUTES)
    found = fusion.read_scores(first)
    assert found.video_ids == list("abcd")
    assert torch.equal(found.probabilities, VIDEO)
    assert fusion.read_scores(second).training is None
    assert found.training is not None
    assert found.training.video_ids == ["x", "y"]
    assert torch.equal(found.training.probabilities, one_hot(1, 2))
    second.with_suffix(".parquet").unlink()
    with pytest.raises(ValueError, match=r"b/test\.parquet: cannot be read"):
        fusion.read_scores(second)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (VIDEO * 2, "4 of 4 rows do not sum to 1 .*sums to 2"),
        (VIDEO * torch.tensor([[1], [1.02], [1], [0.98]]), "2 of 4 rows do not sum to 1"),
        (torch.tensor([[1.01, -0.01]]), "the lowest value is -0.01"),
        (torch.tensor([[1.5, -0.5]]), "the lowest value is -0.5"),
        (torch.tensor([[float("nan"), 1.0]]), "1 of 1 rows do not sum to 1"),
        (LABELS, r"found torch.int64 \[4\]"),
        (torch.tensor([[float("inf"), -float("inf")]]), "1 of 1 rows do not sum to 1"),
        (torch.full((2, 1), 0.5).expand(2, 2), "a.pt: found a tensor that is expanded"),
        ({"a": VIDEO}, "holds a dict; allowed: one bare tensor"),
        (print, "refused, because it is damaged or would run code"),
    ],
)
def test_what_is_no_tensor_of_probabilities_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises((FusionError, WeightsError), match=message):
        fusion.read_scores(tmp_path / "a.pt")


ABOUT = [
    ({"num_videos": "5"}, r"test\.parquet: found 4 videos.*test\.safetensors has 5"),
    ({"videos_sha256": "0" * 64}, r"test\.parquet: found 4 videos, fingerprint"),
    ({"num_videos": "x"}, r"test\.safetensors: metadata\.num_videos: found 'x'; allowed: a whole"),
    ({"train_video_ids": "[1]"}, r"metadata\.train_video_ids: found '\[1\]'; allowed: a JSON"),
    ({"train_video_ids": '["x"]'}, r"training videos\): found 2 rows of probabilities, 1 ids"),
    ({"recipe": "demo/b"}, r"written by the run demo/b; allowed: predictions of demo/a"),
    ({"recipe": ""}, r"written by an older version; allowed: predictions of demo/a"),
]


@pytest.mark.parametrize(("about", "message"), ABOUT)
def test_predictions_whose_metadata_are_not_theirs_are_refused(tmp_path, about, message):
    path = tmp_path / "test.safetensors"
    write_predictions(path, VIDEO, one_hot(1, 2))
    assert fusion.read_scores(path, "demo/a").video_ids == list("abcd")
    write_predictions(path, VIDEO, one_hot(1, 2), **about)
    with pytest.raises(ValueError, match=message):
        fusion.read_scores(path, "demo/a")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"video_id": list("abce")}, "found 4 videos, fingerprint"),
        ({"pos": [0, 1, 3, 2]}, "in the order of `pos`"),
        ({"label": [0, 1, 2, 1]}, "other labels than"),
        ({"rank": None}, r"missing key row 0.rank.*written by an older version"),
        ({"video_id": ["a", "b", None, "d"]}, "row 2.video_id: found None"),
        ({"probability": [0.5, 2.0, 0.5, 0.5]}, "row 1.probability: found 2.0"),
    ],
)
def test_a_table_that_is_not_of_its_tensors_is_refused(tmp_path, columns, message):
    path = tmp_path / "test.safetensors"
    write_predictions(path, VIDEO)
    table = parquet.read_table(path.with_suffix(".parquet"))
    for name, values in columns.items():
        place = table.column_names.index(name)
        table = table.remove_column(place)
        table = table if values is None else table.append_column(name, [values])
    parquet.write_table(table, path.with_suffix(".parquet"))
    with pytest.raises(ValueError, match=rf"test\.parquet.*{message}"):
        fusion.read_scores(path)


def test_kept_predictions_are_of_their_recipe_unless_a_user_gave_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = fusion.KEPT_PREDICTIONS_DIR / "demo/b"
    write_predictions(folder / "test.safetensors", VIDEO)  # they say demo/a
    beside = folder / "test.json"
    with pytest.raises(ValueError, match=r"demo/b/test\.json: cannot be read"):
        fusion.read_kept("demo/b")
    write_json({"environment": "e", "source": "mine.safetensors, sha256 0"}, beside)
    scores, kept = fusion.read_kept("demo/b")
    assert (scores.video_ids, kept.source[:4]) == (list("abcd"), "mine")
    assert fusion.add_video_branch({"environment": "f"}, kept) == {
        "environment": "e; f",
        "video_source": kept.source,
    }
    write_json({"environment": "e"}, beside)
    with pytest.raises(FusionError, match=r"written by the run demo/a; allowed: .* of demo/b"):
        fusion.read_kept("demo/b")
    write_predictions(folder / "test.safetensors", VIDEO, recipe="demo/b")
    assert fusion.read_kept("demo/b")[1].environment == "e"
    write_json({"environment": "e", "model_sha256": "other"}, beside)
    with pytest.raises(FusionError, match=r"test\.json: model_sha256: found other; .* has m"):
        fusion.read_kept("demo/b")


def run(monkeypatch, capsys, *words: str) -> str:
    monkeypatch.setattr("sys.argv", ["clipzoo", "fuse", *words])
    main()
    return capsys.readouterr().out


def test_the_command_measures_the_authors_files(tmp_path, monkeypatch, capsys):
    paths = [str(tmp_path / name) for name in ("v.pt", "a.pt", "labels.pt")]
    for path, content in zip(paths, (VIDEO.half(), ATTRIBUTES, LABELS), strict=True):
        torch.save(content, path)
    shown = run(monkeypatch, capsys, *paths[:2], "--labels", paths[2], "--weight", "0.5")
    lines = shown.splitlines()
    assert lines[0] == "4 videos, 3 classes"
    assert lines[1].startswith("fused, 0.5 of the first")
    assert "top-1 50.0000" in lines[1]
    assert "top-1 75.0000" in lines[2]
    assert "top-1 50.0000" in lines[3]
    assert lines[-1] == (
        "best weight 0.55: top-1 75.0000, chosen on these very labels: not a result"
    )
    with pytest.raises(SystemExit):
        run(monkeypatch, capsys, *paths[:2])
    assert "no labels; give a file of them (--labels)" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(monkeypatch, capsys, *paths[:2], "--labels", paths[2], "--weight", "70")
    assert "--weight: found 70.0; allowed: 0 to 1" in capsys.readouterr().err


def test_the_command_takes_own_predictions_and_checks_labels_against_them(
    tmp_path, monkeypatch, capsys
):
    own, theirs, labels = (tmp_path / name for name in ("b/test.safetensors", "v.pt", "l.pt"))
    write_predictions(own, ATTRIBUTES)
    torch.save(VIDEO, theirs)
    shown = run(monkeypatch, capsys, str(theirs), str(own), "--weight", "1")
    assert "fused, 1 of the first" in shown
    assert shown.count("top-1 75.0000") == 3  # fused, the video branch, the best weight
    torch.save(LABELS.flip(0), labels)
    with pytest.raises(SystemExit):
        run(monkeypatch, capsys, str(theirs), str(own), "--labels", str(labels))
    assert "different labels" in capsys.readouterr().err
    torch.save(LABELS > 0, labels)
    with pytest.raises(SystemExit):
        run(monkeypatch, capsys, str(theirs), str(own), "--labels", str(labels))
    assert "l.pt: found torch.bool [4]; allowed: class ids" in capsys.readouterr().err

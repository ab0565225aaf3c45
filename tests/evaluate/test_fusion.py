"""Two branches' probabilities: reading, refusing and weighting them."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from torch import Tensor

from clipzoo.__main__ import main
from clipzoo.evaluate import fusion
from clipzoo.evaluate.fusion import FusionError, Scores
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
    values = fusion.compare(*both, 0.8, seed=1)
    assert [values[f"{name}_top1"] for name in ("fused", "video", "attributes")] == [75, 75, 50]
    assert values["fused_top5"] == 100
    assert values["fused_gain_over_attributes"] == 25
    assert values["fused_gain_over_video_ci95_low"] == 0
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


def write_predictions(path: Path, probabilities: Tensor, train: Tensor | None = None) -> None:
    tensors = {"features": torch.zeros(4, 1, 2), "probabilities": probabilities, "labels": LABELS}
    metadata = {"dataset": "d"}
    if train is not None:
        tensors |= {"train_probabilities": train, "train_labels": torch.tensor([1, 2])}
        metadata["train_video_ids"] = json.dumps(["x", "y"])
    path.parent.mkdir(exist_ok=True)
    write_safetensors(tensors, path, metadata)
    parquet.write_table(pa.table({"video_id": list("abcd")}), path.with_suffix(".parquet"))


def test_prediction_files_are_read_with_ids_and_training_videos(tmp_path):
    first, second = tmp_path / "a/test.safetensors", tmp_path / "b/test.safetensors"
    write_predictions(first, VIDEO, one_hot(1, 2))
    write_predictions(second, ATTRIBUTES)
    found = fusion.read_scores(first)
    assert found.video_ids == list("abcd")
    assert torch.equal(found.probabilities, VIDEO)
    assert fusion.read_training_scores(first, second) is None
    write_predictions(second, ATTRIBUTES, one_hot(1, 0))
    pair = fusion.read_training_scores(first, second)
    assert pair is not None
    assert [part.video_ids for part in pair] == [["x", "y"]] * 2
    assert torch.equal(pair[1].probabilities, one_hot(1, 0))
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

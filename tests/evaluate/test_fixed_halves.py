"""Open-VCLIP's sets: the videos of one official split, and lists of half of the classes."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from clipzoo.clips.selection import MeasuredSet
from clipzoo.config import ConfigError, load_params, replace
from clipzoo.data.records import Record, write_list
from clipzoo.evaluate import predictions, protocols
from clipzoo.evaluate.scoring import Scored
from clipzoo.models.text import ClassText
from parity.inputs import class_text, noise

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/openvclip_halves.json").read_text())


@pytest.mark.parametrize("name", ["ucf101", "hmdb51"])
def test_halves_are_those_of_the_authors_lists(name: str):
    case = GOLDEN[name]
    halves = protocols.fixed_half_classes(case["num_classes"])
    assert [half.tolist() for half in halves] == case["halves"]


def test_drawing_halves_leaves_other_random_numbers_alone():
    import random

    random.seed(1)
    expected = random.random()
    random.seed(1)
    protocols.fixed_half_classes(101)
    assert random.random() == expected


def cosine_score(features: Tensor, text: ClassText) -> Tensor:
    return (features[:, 0] @ text.class_embeddings[0].T).softmax(dim=-1)


def scored(num_classes: int, num_videos: int) -> Scored:
    text = class_text(functional.normalize(noise(1, 1, num_classes, 16), dim=-1))
    labels = torch.arange(num_videos) % num_classes
    features = noise(2, num_videos, 1, 16) + 1.5 * text.class_embeddings[0][labels][:, None]
    names = ["clip0-center"]
    return Scored(score=cosine_score, features=features, view_names=names, labels=labels, text=text)


def test_fixed_halves_and_listed_videos_are_measured():
    """Each half by hand: its videos of the listed ones, among its classes alone."""
    seen, listed = scored(11, 120), torch.arange(20, 120)
    names = ["listed", "fixed_halves"]
    values = protocols.evaluate_zero_shot(seen, protocols=names, listed=listed).values
    logits, labels = seen.features[:, 0] @ seen.text.class_embeddings[0].T, seen.labels
    right = logits.argmax(dim=-1) == labels
    assert values["listed_top1"] == pytest.approx(100 * right[20:].float().mean().item())
    assert values["listed_num_videos"] == 100
    assert values["listed_top1_ci95_low"] < values["listed_top1"] < values["listed_top1_ci95_high"]
    assert values["listed_top5"] >= values["listed_top1"]
    shares = []
    for half in protocols.fixed_half_classes(11):
        of_half = [i for i in range(20, 120) if labels[i] in half]
        guesses = half[logits[of_half][:, half].argmax(dim=-1)]
        shares.append(100 * float((guesses == labels[of_half]).float().mean()))
    found = (values["fixed_half_top1_mean"], values["fixed_half_top1_std"])
    shares = torch.tensor(shares, dtype=torch.float64)
    assert found == pytest.approx((shares.mean().item(), shares.std(correction=0).item()))
    assert found[1] > 0
    assert values.keys() >= {"listed_top1", "fixed_half_top1_mean"}
    assert not {"full_top1", "half_top1_mean"} & values.keys()


def test_without_the_videos_there_are_no_such_metrics():
    seen, names = scored(11, 22), ["full", "listed", "fixed_halves"]
    values = protocols.evaluate_zero_shot(seen, protocols=names).values
    assert not [key for key in values if key.startswith(("listed", "fixed"))]
    few = protocols.evaluate_zero_shot(
        scored(3, 9), protocols=["fixed_halves", "listed"], listed=torch.arange(9)
    )
    assert "listed_top1" in few.values
    assert "fixed_half_top1_mean" not in few.values


def test_listed_videos_are_positions_in_the_whole_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lists/ds").mkdir(parents=True)
    records = [Record(name, 9, 0) for name in "abcde"]
    write_list([records[3], records[0]], "lists/ds/train.csv")
    write_list([records[2]], "lists/ds/val.csv")

    def videos(lists: list[str], kept: list[Record]) -> MeasuredSet:
        return MeasuredSet(dataset="ds", records=kept, lists=lists, num_listed=5)

    found = predictions.read_listed(videos(["whole"], records))
    assert found is not None
    assert found.tolist() == [0, 2, 3]
    both = predictions.read_listed(videos(["train", "val"], records))
    assert both is not None
    assert both.tolist() == [0, 1, 2, 3, 4]
    assert predictions.read_listed(videos(["whole"], records[:2])) is None


def test_the_protocols_are_values_of_the_parameters():
    params = load_params()
    changed = replace(params, {"zero_shot.protocols": ["listed", "fixed_halves"]})
    assert changed.zero_shot.protocols == ["listed", "fixed_halves"]
    with pytest.raises(ConfigError, match=r"zero_shot\.protocols.*fixed_half'"):
        replace(params, {"zero_shot.protocols": ["fixed_half"]})


def test_windows_are_named_in_the_protocol():
    params = load_params()
    records = [Record("a", 9, 0)]
    videos = MeasuredSet(dataset="ds", records=records, lists=["whole"], num_listed=1)
    test = protocols.describe_test(params.test, videos, "windows")
    assert test == "clips 2, crops 1, windows"
    zero_shot = protocols.describe_zero_shot(params.zero_shot, videos, "windows")
    assert zero_shot == "clips 1, crops 1, windows, all videos (whole)"

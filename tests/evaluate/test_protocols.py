import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from clipzoo.clips.selection import MeasuredSet
from clipzoo.config import load_params
from clipzoo.evaluate import metrics, protocols
from clipzoo.evaluate.intervals import paired_interval
from clipzoo.evaluate.scoring import Score, Scored
from clipzoo.methods.parts.method import AuthorsMap
from clipzoo.models.text import ClassText
from parity.inputs import class_text

GOLDEN = Path(__file__).parents[1] / "golden"


def noise(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype("float32"))


def cosine_score(features: Tensor, text: ClassText) -> Tensor:
    """softmax(100 cos) of the mean over views, for one template."""
    videos = functional.normalize(features.mean(dim=1), dim=-1)
    return (100 * videos @ text.class_embeddings[0].T).softmax(dim=1)


def frame_score(features: Tensor, text: ClassText) -> Tensor:
    """BIKE's zero-shot score: softmax over classes per frame, mean over frames."""
    return (100 * features[:, 0] @ text.class_embeddings[0].T).softmax(dim=-1).mean(dim=1)


def scored(
    score: Score,
    features: Tensor,
    text: ClassText,
    labels: Tensor,
    view_names: Sequence[str] = ("clip0-center",),
) -> Scored:
    return Scored(score=score, features=features, view_names=view_names, labels=labels, text=text)


def golden(name: str, kind: str) -> dict:
    return next(c for c in json.loads((GOLDEN / name).read_text()) if c["kind"] == kind)


def bike_case() -> tuple[dict, Tensor, Tensor, ClassText]:
    case = golden("scores.json", "bike-zero-shot-frames")
    num, frames, dim, classes = (
        case[k] for k in ("num_videos", "num_frames", "dim", "num_classes")
    )
    text = functional.normalize(noise(case["text_seed"], classes, dim), dim=-1)
    labels = np.random.RandomState(case["label_seed"]).permutation(np.arange(num) % classes)
    labels = torch.from_numpy(labels)
    features = 0.3 * noise(case["feature_seed"], num, frames, dim) + 0.25 * text[labels][:, None]
    return case, features[:, None], labels, class_text(text[None])


def test_half_class_equals_the_golden_halves():
    case, features, labels, text = bike_case()
    halves = protocols.evaluate_halves(scored(frame_score, features, text, labels))
    assert halves["top1"] == pytest.approx(case["half_top1"], abs=1e-4)
    assert np.mean(halves["top5"]) == pytest.approx(case["half_top5_mean"])


def test_zero_shot_equals_the_golden_summary():
    case, features, labels, text = bike_case()
    seen = scored(frame_score, features, text, labels)
    values = protocols.evaluate_zero_shot(seen, protocols=["full", "half"]).values
    expected = [
        "full_top1",
        "full_top1_ci95_low",
        "full_top1_ci95_high",
        "full_top5",
        "half_top1_mean",
        "half_top1_std",
    ]
    assert list(values) == expected
    for key in ("full_top1", "full_top5", "half_top1_mean", "half_top1_std"):
        assert values[key] == pytest.approx(case[key], abs=1e-4)
    assert values["full_top1_ci95_low"] < values["full_top1"] < values["full_top1_ci95_high"]


def test_half_class_equals_the_golden_case_of_text4vis():
    case = golden("protocol.json", "half-class")
    num, classes, dim = case["num_videos"], case["num_classes"], case["dim"]
    text = functional.normalize(noise(case["text_seed"], classes, dim), dim=-1)
    labels = torch.from_numpy(np.random.RandomState(case["label_seed"]).randint(0, classes, num))
    features = functional.normalize(noise(case["feature_seed"], num, dim), dim=-1)
    features = features + case["mix"] * text[labels]
    seen = scored(cosine_score, features[:, None], class_text(text[None]), labels)
    halves = protocols.evaluate_halves(seen)
    assert halves["top1"] == pytest.approx(case["half_top1"], abs=1e-5)


def test_a_half_lets_only_its_own_classes_compete():
    text = class_text(torch.eye(4)[None])
    labels = torch.arange(4)
    features = torch.eye(4)[[1, 0, 3, 2]][:, None] + 0.5 * torch.eye(4)[:, None]  # all wrong
    seen = scored(cosine_score, features, text, labels)
    full = protocols.evaluate_zero_shot(seen, protocols=["full", "half"]).values
    assert full["full_top1"] == 0
    pairs = [set(protocols.half_classes(4, i).tolist()) for i in range(10)]
    rivals = [pair in ({0, 1}, {2, 3}) for pair in pairs]
    assert full["half_top1_mean"] == 100 * (1 - np.mean(rivals))
    assert 0 < np.mean(rivals) < 1


def test_fewer_than_four_classes_have_no_halves():
    text = class_text(torch.eye(3)[None])
    seen = scored(cosine_score, torch.eye(3)[:, None], text, torch.arange(3))
    evaluation = protocols.evaluate_zero_shot(seen, protocols=["full", "half"])
    values = evaluation.values
    assert "half_top1_mean" not in values
    assert values["full_top1"] == values["full_top5"] == 100


def test_protocols_that_are_not_asked_for_are_not_measured():
    _, features, labels, text = bike_case()
    seen = scored(frame_score, features, text, labels)
    values = protocols.evaluate_zero_shot(seen, protocols=["half"]).values
    assert list(values) == ["half_top1_mean", "half_top1_std"]


NAMES = ["clip0-left", "clip0-right", "clip0-center", "clip1-left", "clip1-right", "clip1-center"]


def test_single_view_is_clip_0_center_crop():
    features, text = torch.arange(12.0).view(2, 6, 1), class_text(torch.eye(2)[None])
    seen = scored(cosine_score, features, text, torch.arange(2), NAMES)
    assert seen.single_view().tolist() == [[[2.0]], [[8.0]]]
    with pytest.raises(ValueError, match="clip0-center"):
        replace(seen, features=features[:, :2], view_names=NAMES[:2]).single_view()


def test_test_reports_single_and_multi_view():
    text = class_text(torch.eye(2)[None])
    # The center of clip 0 is wrong on video 1; the mean of its views is right.
    features = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 3.0]]])
    labels = torch.tensor([0, 1])
    names = ["clip0-center", "clip1-center"]
    found = protocols.evaluate_test(
        scored(cosine_score, features, text, labels, names),
        trained_classes=[0, 1],
        dense=False,
        authors_batch=2,
    )
    values = found.values
    assert values["authors_top1"] == 100
    assert found.probabilities.argmax(dim=1).tolist() == [0, 1]
    assert found.single is not None
    assert found.single.argmax(dim=1).tolist() == [0, 0]
    assert (values["top1"], values["single_view_top1"]) == (100, 50)
    assert {"top1_ci95_low", "single_view_top1_ci95_low", "single_view_map"} <= set(values)


@pytest.mark.parametrize(("names", "dense"), [(["clip0-center"], False), (NAMES, True)])
def test_one_view_and_dense_windows_have_no_single_view(names: list[str], dense: bool):
    features = torch.eye(2)[:, None].expand(2, len(names), 2)
    found = protocols.evaluate_test(
        scored(cosine_score, features, class_text(torch.eye(2)[None]), torch.arange(2), names),
        trained_classes=[0, 1],
        dense=dense,
    )
    assert "top1" in found.values
    assert found.single is None
    assert not [key for key in found.values if key.startswith(("single_view", "authors"))]


def test_base_and_novel_classes_compete_apart():
    labels = torch.tensor([0, 1, 2, 3])
    seen_as = torch.eye(4)[[0, 2, 2, 1]]  # of classes 0, 1 alone: 0, a tie; of 2, 3: 2, a tie
    seen_as[1, 0], seen_as[3, 3] = 0.5, 0.5
    text = class_text(torch.eye(4)[None])
    seen = scored(cosine_score, seen_as[:, None], text, labels)
    values = protocols.evaluate_base_to_novel(seen, [0, 1])
    assert values == {
        "base_top1": 50,
        "novel_top1": 100,
        "base_to_novel_hmean": pytest.approx(200 / 3),
    }
    first = scored(cosine_score, seen_as[:2, None], text, labels[:2])
    with pytest.raises(metrics.MetricsError, match="no video of the novel classes"):
        protocols.evaluate_base_to_novel(first, [0, 1])


def test_splits_are_scored_one_by_one_over_all_classes():
    labels = torch.tensor([0, 1, 1, 0])
    features, text = torch.eye(2)[[0, 0, 1, 0]][:, None], class_text(torch.eye(2)[None])
    found = protocols.evaluate_zero_shot(
        scored(cosine_score, features, text, labels),
        protocols=["splits"],
        splits=[torch.tensor([0, 1]), torch.tensor([0, 2, 3])],
    )
    assert found.values == {
        "splits_top1_mean": 75,
        "splits_top1_std": 25,
        "splits_top5_mean": 100,
        "splits_top5_std": 0,
    }


def test_comparison_with_the_raw_model_is_paired():
    labels, text = torch.tensor([0, 1, 1, 0]), class_text(torch.eye(2)[None])
    tuned, raw = (
        protocols.evaluate_zero_shot(
            scored(cosine_score, torch.eye(2)[predicted][:, None], text, labels), protocols=["full"]
        )
        for predicted in (labels, [0, 0, 1, 0])
    )
    values = protocols.compare_zero_shot(tuned, raw)
    assert (values["full_top1"], values["raw_full_top1"], values["gain"]) == (100, 75, 25)
    assert (values["gain_ci95_low"], values["gain_ci95_high"]) == paired_interval(1, 0, 4)


def test_the_authors_tests_drop_the_videos_at_the_lists_end():
    """Of 5 videos in batches of 2, the first 4: 3 right, where all 5 have 4 right."""
    labels = torch.tensor([0, 1, 2, 0, 1])
    probabilities = functional.one_hot(torch.tensor([0, 1, 2, 1, 1])).float()
    values = protocols.evaluate_whole_batches(probabilities, labels, 2)
    assert values["authors_num_videos"] == 4
    assert values["authors_top1"] == 75
    assert values["authors_top5"] == 100
    assert values["authors_top1_ci95_low"] < 75 < values["authors_top1_ci95_high"]
    whole = protocols.evaluate_whole_batches(probabilities, labels, 5)
    assert (whole["authors_num_videos"], whole["authors_top1"]) == (5, 80)
    assert protocols.evaluate_whole_batches(probabilities, labels, 6) == {"authors_num_videos": 0}


def test_the_authors_number_of_kinetics_videos():
    probabilities = torch.ones(19_357, 2)
    labels = torch.zeros(19_357, dtype=torch.int64)
    for batch in (64, 128):
        values = protocols.evaluate_whole_batches(probabilities, labels, batch)
        assert values["authors_num_videos"] == 19_328


def test_protocols_in_words():
    params = load_params()
    videos = MeasuredSet(dataset="d", records=[], lists=["train", "val"], num_listed=0)
    some = replace(videos, num_listed=5)
    views = params.test.model_copy(update={"clips": 2, "crops": 1})
    assert protocols.describe_test(views, videos) == "clips 2, crops 1, uniform"
    assert protocols.describe_test(views, videos, "midpoints") == "clips 2, crops 1, uniform"
    assert protocols.describe_test(views, videos, "random") == "clips 2, crops 1, random"
    views = params.test.model_copy(update={"clips": 4, "crops": 3, "dense": True})
    assert protocols.describe_test(views, some) == "clips 4, crops 3, dense, 0 of 5 videos"
    views = params.zero_shot.model_copy(update={"clips": 2, "crops": 1})
    expected = "clips 2, crops 1, uniform, all videos (train + val)"
    assert protocols.describe_zero_shot(views, videos) == expected


def test_the_authors_running_map_is_of_the_softmaxes_they_take():
    generator = torch.Generator().manual_seed(3)
    probabilities = torch.rand(37, 5, generator=generator).softmax(dim=1)
    targets = (torch.rand(37, 5, generator=generator) < 0.4).long()
    once = AuthorsMap(softmaxes=1, running_batch=8)
    value = protocols.authors_map(probabilities, targets, once)
    assert value == metrics.running_map(probabilities, targets, 8)
    twice = AuthorsMap(softmaxes=2, running_batch=8)
    value = protocols.authors_map(probabilities, targets, twice)
    assert value == metrics.running_map(probabilities.softmax(dim=1), targets, 8)
    off = AuthorsMap(softmaxes=1, running_batch=0)
    expected = metrics.mean_average_precision(probabilities, targets)
    assert protocols.authors_map(probabilities, targets, off) == expected != value


def test_half_bounds_hold_for_every_class_and_outcome_of_the_missing_videos():
    """Brute force: 4 classes, so each half has 2 of them, and 2 missing videos."""
    num_classes, num, missing = 4, 7, 2
    text = ClassText(
        token_ids=torch.zeros(1, num_classes, 1, dtype=torch.int64),
        class_embeddings=torch.eye(num_classes)[None],
        class_names=list("abcd"),
    )

    def in_order(features: Tensor, text: ClassText) -> Tensor:
        return features[:, 0] @ text.class_embeddings[0].T  # [N, 4] -> [N, K]

    labels = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    scores = torch.rand(num + missing, num_classes, generator=torch.Generator().manual_seed(0))

    def mean(scores: Tensor, labels: Tensor) -> tuple[list[float], float]:
        halves = protocols.evaluate_halves(scored(in_order, scores[:, None], text, labels))["top1"]
        return halves, sum(halves) / len(halves)

    halves, _ = mean(scores[:num], labels)
    low, high = protocols.half_bounds(halves, labels, num_classes, missing)
    found = []
    for ids in itertools.product(range(num_classes), repeat=missing):
        for predicted in itertools.product(range(num_classes), repeat=missing):
            scores[num:] = torch.eye(num_classes)[list(predicted)]
            found.append(mean(scores, torch.cat([labels, torch.tensor(ids)]))[1])
    assert low <= min(found) <= max(found) <= high
    assert high - low < 60

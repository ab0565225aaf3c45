"""The attributes branch of BIKE: its head, sentences, scores and released files."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip.model import CLIP
from torch import Tensor
from torch.nn import functional

from clipzoo.config import ConfigError, build
from clipzoo.methods.bike_attributes import (
    BikeAttributes,
    Options,
    read_released,
)
from clipzoo.methods.parts.method import Batch
from clipzoo.models import archives
from clipzoo.models.clip import build_clip, load_strictly
from clipzoo.models.text import ClassText, tokenize
from clipzoo.tensors import WeightsError
from clipzoo.train.optim import parameter_groups
from parity.check import check
from parity.inputs import class_text, fill, noise
from tiny import attributes_options

GOLDEN = Path(__file__).parents[1] / "golden" / "bike_model.json"
ARCH, T, WORDS = "ViT-demo-16", 8, ["dog", "red fish", "an owl", "cat"]


@pytest.fixture(scope="module")
def model() -> BikeAttributes:
    torch.manual_seed(0)
    method = BikeAttributes(build_clip(ARCH, 32), attributes_options(), T)
    fill(method.fusion_model)
    return method.eval()


def test_the_head_is_the_authors():
    (case,) = (c for c in json.loads(GOLDEN.read_text()) if c["name"] == "bike-attribute-head")
    assert check(case) == "ok"
    case["similarity"][2][4] += 1e-3
    assert check(case).startswith("similarity differs by 0.001")
    case["shapes"]["query_fc.1.weight"] = [64]
    assert check(case) == "shapes has no query_fc.1.weight"


def test_new_heads_are_drawn_narrowly_and_without_bias():
    head = BikeAttributes(build_clip(ARCH, 32), attributes_options(), T).fusion_model
    for name, parameter in head.named_parameters():
        expected = 0.0 if name.endswith("bias") else 0.02
        assert float(parameter.detach().std()) == pytest.approx(expected, rel=0.03), name


def test_the_head_learns_faster_than_logit_scale_and_the_text_tower_is_frozen(model):
    clip, head = parameter_groups(model, lr=1.0, tower_lr_ratio=0.1)
    assert (clip["lr"], [p.shape for p in clip["params"]]) == (0.1, [torch.Size([])])
    assert (head["lr"], len(head["params"])) == (1.0, 8)
    assert not any(p.requires_grad for p in model.text.parameters())
    assert model.train().fusion_model.training
    assert not model.text.training
    model.eval()


@pytest.mark.parametrize(("number", "words"), [(1, "a"), (2, "a,b c"), (3, "a,b c,d")])
def test_a_sentence_has_the_first_attributes(number: int, words: str):
    options = attributes_options(num_attributes=number, prefix="about ")
    method = BikeAttributes(build_clip(ARCH, 32), options, T)
    assert method.sentence(["a", "b c", "d", "e"][: max(number, 3)]) == f"about {words}"
    with pytest.raises(ValueError, match=f"found {number - 1} attributes; .*, {number}, or more"):
        method.sentence(["a", "b c", "d"][: number - 1])


def test_features_and_scores_are_those_of_the_formula(model):
    tokens = tokenize(ARCH, WORDS, 12)
    raw = functional.normalize(model.text.tower.encode_text(tokens), dim=-1)
    features = model.encode(tokens)
    torch.testing.assert_close(features, model.fusion_model.sentence_fc(raw))
    assert features.requires_grad
    classes = noise(7, 1, 6, 128)
    text = model.class_text(class_text(5 * classes))  # the norm of what comes in does not matter
    queries = model.fusion_model.query_fc(functional.normalize(classes[0], dim=-1))
    torch.testing.assert_close(text.class_embeddings[0], queries)
    cosines = functional.cosine_similarity(features[:, None], queries[None], dim=-1)  # [4, 6]
    scores = model.score(features[:, None], text)
    torch.testing.assert_close(scores, cosines.softmax(dim=1))
    other = features.roll(1, 0)
    both = model.score(torch.stack([features, other], dim=1), text)
    torch.testing.assert_close(both, (scores + scores.roll(1, 0)) / 2)


def test_the_loss_is_infonce_of_scaled_cosines(model):
    features, labels = noise(1, 4, 128), torch.tensor([1, 0, 1, 2])
    text = class_text(noise(2, 1, 3, 128))
    with torch.no_grad():
        model.logit_scale.fill_(math.log(10))
    loss = model.loss(features, Batch(labels=labels, texts=labels), text)
    rows = [functional.normalize(x, dim=-1) for x in (features, text.class_embeddings[0][labels])]
    logits = 10 * rows[0] @ rows[1].T
    targets = (10.0 * (labels[:, None] == labels)).softmax(dim=1)
    both = [(targets * (targets.log() - x.log_softmax(1))).sum() / 4 for x in (logits, logits.T)]
    assert loss.item() == pytest.approx(float(sum(both)) / 2, rel=1e-5)


TEXT = {"context_length": 12, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 2}
VIT = {"image_size": 64, "layers": 4, "width": 128, "patch_size": 16}


def released(module: str = "") -> dict[str, Any]:
    """As the authors save it, with a whole CLIP and the optimizer's state."""
    torch.manual_seed(3)
    towers = CLIP(128, VIT, TEXT, quick_gelu=True).state_dict()  # pyright: ignore[reportArgumentType]
    head = BikeAttributes(build_clip(ARCH, 32), attributes_options(), T).fusion_model.state_dict()
    return {
        "epoch": 3,
        "model_state_dict": {f"{module}{k}": v.half() for k, v in towers.items()},
        "fusion_model_state_dict": {f"{module}{k}": v for k, v in head.items()},
        "optimizer_state_dict": {"state": {}},
    }


def load(content: dict[str, Any], path: Path) -> dict[str, Tensor]:
    torch.save(content, path)
    return read_released(archives.read_file(path), str(path))


@pytest.mark.parametrize("module", ["", "module."])
def test_released_files_load(model, tmp_path, module):
    content = released(module)
    tensors = load(content, tmp_path / "a.pt")
    other = BikeAttributes(build_clip(ARCH, 32), attributes_options(), T)
    load_strictly(other, tensors, "the file")
    weight = content["model_state_dict"][f"{module}token_embedding.weight"]
    found = other.state_dict()
    assert torch.equal(found["text.tower.token_embedding.weight"], weight.float())
    scale = content["model_state_dict"][f"{module}logit_scale"]
    assert float(other.logit_scale.detach()) == pytest.approx(float(scale))
    assert torch.equal(
        found["fusion_model.query_fc.2.weight"],
        content["fusion_model_state_dict"][f"{module}query_fc.2.weight"],
    )


def test_other_files_are_refused(tmp_path):
    video = released()
    video["fusion_model_state_dict"] = {"frame_position_embeddings.weight": torch.zeros(2)}
    with pytest.raises(
        WeightsError, match=r"found fusion_model_state_dict, .* BIKE \(model\.method bike\)"
    ):
        load(video, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=r"found the keys \['epoch', 'model_state_dict'\]"):
        load({k: video[k] for k in ("epoch", "model_state_dict")}, tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attributes": 0}, "num_attributes: found 0; allowed: .* equal to 1"),
        ({"top_k": 5}, "unknown key bike_attributes.top_k; allowed: prefix, num_attributes"),
    ],
)
def test_wrong_options_are_named(changes: dict[str, Any], message: str):
    values = attributes_options().model_dump() | changes
    with pytest.raises(ConfigError, match=message):
        build(Options, values, "params.yaml", "bike_attributes")


def test_a_class_text_of_several_templates_is_averaged(model):
    embeddings = functional.normalize(noise(5, 3, 4, 128), dim=-1)
    text = ClassText(
        token_ids=torch.zeros(3, 4, 1, dtype=torch.int64),
        class_embeddings=embeddings,
        class_names=WORDS,
    )
    queries = functional.normalize(model.class_text(text).class_embeddings, dim=-1).mean(dim=0)
    features = noise(6, 2, 1, 128)
    expected = functional.normalize(features, dim=-1) @ functional.normalize(queries, dim=-1).T
    probabilities = model.score(features, model.class_text(text))
    torch.testing.assert_close(probabilities, expected[:, 0].softmax(dim=-1))


def test_zero_shot_is_refused(model):
    with pytest.raises(ConfigError, match=r"data\.zero_shot: .*allowed: \[\], because .*method"):
        model.for_zero_shot()

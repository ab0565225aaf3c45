"""Every method is exported by torch as a graph for any number of videos and classes.

No other test notices what breaks that. `len(tensor)` and the rounds of a loop over blocks become
constants of the graph, which then fits the example's numbers alone, and a cached tensor that was
made during an export has no values in later calls. The cases are read from METHODS and the choices
of its options, so that the next method, head or in-network option is exported without an edit here.
"""

import sys
import typing
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.export import Dim, export
from torch.nn import functional

import tiny
from clipzoo.methods import METHODS
from clipzoo.methods.parts.text_tower import TextTower
from clipzoo.serve.classifier import Classifier
from parity.inputs import class_text

T, P = 3, 2
PLAIN = {"text4vis": {"head": "None"}, "actionclip": {"head": "meanP"}}
"""The heads beside other choices. Joint needs meanP; BIKE's Transf is that of Text4Vis."""
OUTSIDE = {
    "loss",
    "train_sampler",
    "test_sampler",
    "text_tower",  # the class text is computed once, before
    "zero_shot_scoring",  # chooses another method, which is raw's with fusion softmax
    "authors_map_softmaxes",
    "saliency",
    "score_training",
}
"""Choices that change nothing in the graph."""
IN_THE_TOWER = {"temporal_module", "joint"}
"""Choices of what is in the vision tower. The others are exported after a tower without blocks, and
so in half the time: its blocks are in the case `raw`."""


class Case(NamedTuple):
    method: str
    changes: dict[str, Any]
    """Of the options in params.yaml."""
    tower: str


def choices(kind: Any) -> tuple[Any, ...]:
    return (False, True) if kind is bool else typing.get_args(kind)


def cases() -> dict[str, Case]:
    """Each method with the options of params.yaml and a plain head, and with each other choice."""
    found: dict[str, Case] = {}
    for name, spec in METHODS.items():
        plain = PLAIN.get(name, {})
        found[name] = Case(name, plain, "vit" if name == "raw" else "stem")
        for key, field in spec.options.model_fields.items():
            for value in choices(field.annotation) if key not in OUTSIDE else ():
                changes = {**plain, key: value}
                if tiny.options(name, **changes) != tiny.options(name, **plain):
                    tower = "vit" if key in IN_THE_TOWER else "stem"
                    found[f"{name}-{key}-{value}"] = Case(name, changes, tower)
    shifts = {"head": "None", "temporal_module": "tsm"}
    found["text4vis-resnet"] = Case("text4vis", shifts, "resnet")
    found["bike-None-DP"] = Case("bike", {"head": "None", "interaction": "DP"}, "stem")
    return found


CASES = cases()
SLOW = {"actionclip-head-Transf", "actionclip-temporal_module-tsm", "actionclip-joint-True"}
SLOW |= {"bike-head-None", "bike-None-DP"}
"""Their modules are in other cases, those of Text4Vis and of BIKE with its head."""


def test_the_cases_are_all_methods_and_choices():
    assert {case.method for case in CASES.values()} == METHODS.keys()
    assert {"raw-fusion-softmax", "text4vis-temporal_module-tokent1d"} <= CASES.keys()
    assert {"actionclip-head-Transf_cls", "bike-interaction-DP", *SLOW} <= CASES.keys()
    assert {k for spec in METHODS.values() for k in spec.options.model_fields} >= OUTSIDE


@pytest.fixture
def empty_caches() -> None:
    """A tensor that an earlier test left in a cache would hide what an export leaves there."""
    for name, module in list(sys.modules.items()):
        if name.startswith(("clipzoo.methods", "clipzoo.models")):
            for value in vars(module).values():
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


def arguments(case: Case, batch: int, classes: int) -> tuple[Tensor, ...]:
    """What the exported module of a method takes."""
    px = 2 * tiny.INPUT_PX if case.tower == "resnet" else tiny.INPUT_PX
    inputs = torch.randint(0, 256, (batch, T, 3, px, px), dtype=torch.uint8)
    if case.method == "bike_attributes":
        inputs = torch.randint(0, tiny.WORDS, (batch, tiny.CONTEXT))
    embeddings = functional.normalize(torch.randn(P, classes, tiny.DIM), dim=-1)
    if METHODS[case.method].needs_tokens(tiny.options(case.method, **case.changes)):
        return inputs, embeddings, torch.randn(classes, tiny.CONTEXT, tiny.DIM)
    return inputs, embeddings


# torch's LSTM lists its weights again when they are replaced; export restores the list, and warns
# nevertheless (github.com/pytorch/pytorch/pull/163809).
@pytest.mark.filterwarnings("ignore:The tensor attributes .*_flat_weights:UserWarning")
@pytest.mark.usefixtures("empty_caches")
@pytest.mark.parametrize(
    "name", [pytest.param(c, marks=[pytest.mark.slow] if c in SLOW else []) for c in CASES]
)
@torch.no_grad()
def test_the_graph_of_a_method_holds_for_any_number_of_videos_and_classes(name: str):
    case = CASES[name]
    model = Classifier(tiny.method(case.method, T, case.tower, **case.changes)).eval()
    torch.manual_seed(1)
    example = arguments(case, 2, 4)
    videos, classes = Dim("videos"), Dim("classes")
    shapes = ({0: videos}, {1: classes}, {0: classes})[: len(example)]
    graph = export(model, example, dynamic_shapes=shapes).module()
    for sizes in ((1, 7), (2, 4), (3, 4), (5, 7)):
        given = arguments(case, *sizes)
        expected = model(*given)
        assert {type(value) for value in expected.values()} == {Tensor}  # not the export's own
        torch.testing.assert_close(graph(*given), expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_graph_of_a_trained_text_tower_holds_for_any_number_of_texts():
    tower, texts = TextTower(tiny.clip()).eval(), torch.randint(0, tiny.WORDS, (P, 4, tiny.CONTEXT))
    graph = export(tower, (texts,), dynamic_shapes=({1: Dim("classes")},)).module()
    for classes in (1, 3, 300):  # without a graph, the last are several blocks
        texts = torch.randint(0, tiny.WORDS, (P, classes, tiny.CONTEXT))
        torch.testing.assert_close(graph(texts), tower(texts), rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["text4vis", "bike"])
def test_the_module_gives_what_the_method_gives(name: str):
    method = tiny.method(name, T)
    inputs, embeddings, *words = arguments(CASES[name], 2, 4)
    text = replace(class_text(embeddings), token_embeddings=words[0] if words else None)
    found, features = Classifier(method)(inputs, embeddings, *words), method.encode(inputs)
    views = features[:, None]
    torch.testing.assert_close(found["probabilities"], method.score(views, text))
    torch.testing.assert_close(found["cosines"], method.similarity(views, text)[:, 0])
    video = features.mean(dim=1) if name == "bike" else features  # with VCS, of frames
    torch.testing.assert_close(found["embedding"], functional.normalize(video, dim=-1))
    assert found["embedding"].shape == (2, tiny.DIM)

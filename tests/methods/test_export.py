"""Every method is exported by torch as a graph for any number of videos and classes.

No other test notices what breaks that. `len(tensor)` and the rounds of a loop over blocks become
constants of the graph, which then fits the example's numbers alone, and a cached tensor that was
made during an export has no values in later calls. The cases are read from METHODS and the choices
of its options, so that the next method, head or in-network option is exported without an edit here.
"""

import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.export import Dim, export
from torch.nn import functional

import tiny
from clipzoo.methods import METHODS
from clipzoo.methods.parts.text_tower import TextTower
from clipzoo.serve.classifier import Classifier
from exporting import CASES, OUTSIDE, P, T, arguments
from parity.inputs import class_text

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

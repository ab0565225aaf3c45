"""The cases that are exported: each method, with each choice of its options that changes the graph.

They are read from METHODS and the choices of its options, so that the next method, head or
in-network option is exported without an edit here.
"""

import typing
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

import tiny
from clipzoo.config import TestConfig
from clipzoo.methods import METHODS
from clipzoo.models.clip import ClipMetadata
from clipzoo.serve.folder import FolderConfig, FramesOfVideos, ModelFolder
from parity.inputs import class_text

T, P = 3, 2
PLAIN = {"text4vis": {"head": "None"}, "actionclip": {"head": "meanP"}}
"""The heads beside other choices. Joint needs meanP; BIKE's Transf is that of Text4Vis."""
OUTSIDE = {
    "loss",
    "train_sampler",
    "test_sampler",
    "windows",
    "text_tower",  # the class text is computed once, before
    "trained",
    "zero_shot_scoring",  # chooses another method, which is raw's with fusion softmax
    "authors_map_softmaxes",
    "saliency",
    "score_training",
}
"""Choices that change nothing in the graph."""
IN_THE_TOWER = {"temporal_module", "joint", "attention"}
"""Choices of what is in the vision tower. The others are exported after a tower without blocks, and
so in half the time: its blocks are in the case `raw`."""
WITH_BLOCKS = {"raw", "openvclip"}
"""Methods whose blocks are not those of another one."""


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
        found[name] = Case(name, plain, "vit" if name in WITH_BLOCKS else "stem")
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


def folder(name: str, num_classes: int = 4) -> ModelFolder:
    """A closed model folder of a case, as `read_folder` returns it."""
    case = CASES[name]
    torch.manual_seed(1)
    inputs, embeddings, *words = arguments(case, 1, num_classes)
    text = class_text(embeddings)
    px = inputs.shape[-1]
    config = FolderConfig(
        format=1,
        kind="closed",
        method=case.method,
        options=tiny.options(case.method, **case.changes).model_dump(),
        num_segments=T,
        clip=ClipMetadata(
            arch="ViT-demo-16", input_px=px, quick_gelu=True, source="random", environment=""
        ),
        frames=FramesOfVideos(size=2 * px, quality=3),
        views=TestConfig(clips=1, crops=1, dense=False, short_side_px=px, precision="fp32"),
        templates=["{}"] * P,
        class_names=text.class_names,
        recipe="demo",
        weights_sha256="0",
        version="0",
    )
    method = tiny.method(case.method, T, case.tower, **case.changes).requires_grad_(False)
    text = replace(text, token_embeddings=words[0] if words else None)
    return ModelFolder(config=config, method=method, text=text, towers=None)

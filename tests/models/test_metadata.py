"""Model files whose metadata or tensors are not ours: one error that names file and key."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from clipzoo import methods
from clipzoo.models.clip import build_clip, load_clip, load_strictly, read_clip_metadata, save_clip
from clipzoo.models.pixels import OPENAI
from clipzoo.models.text import load_class_text
from clipzoo.settings import training_settings
from clipzoo.tensors import WeightsError, write_safetensors

CLIP = {
    "arch": "ViT-demo-16",
    "input_px": 32,
    "quick_gelu": True,
    "pixels": OPENAI.model_dump(mode="json"),
    "source": "demo",
    "environment": "",
}
OPTIONS = {
    "head": "Transf",
    "head_layers": 1,
    "temporal_module": "none",
    "joint": False,
    "loss": "ce",
    "text_tower": "frozen",
}
MODEL = {"clip": CLIP, "method": "text4vis", "num_segments": 2, "options": OPTIONS}


def write(path: Path, key: str, text: str) -> Path:
    write_safetensors({"a": torch.zeros(1)}, path, {key: text})
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"input_px": 10**9},
            "metadata.clip.input_px: found 1000000000; allowed: less than or equal to 4096",
        ),
        ({"input_px": "32"}, "metadata.clip.input_px: found '32'"),
        (
            {"arch": "ViT-demo-17"},
            "metadata.clip.arch: found 'ViT-demo-17'; allowed: .*ViT-demo-16",
        ),
        ({"quick_gelu": float("nan")}, "metadata.clip.quick_gelu: found nan"),
        ({"size": 1}, "unknown key metadata.clip.size; allowed: arch"),
    ],
)
def test_wrong_metadata_of_clip_is_named(tmp_path, changes: dict[str, Any], message: str):
    path = write(tmp_path / "clip.safetensors", "clip", json.dumps({**CLIP, **changes}))
    for read in (read_clip_metadata, load_clip):
        with pytest.raises(WeightsError, match=rf"clip\.safetensors: {message}"):
            read(path)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "1", '"x"', "[" * 100_000])
def test_metadata_that_is_no_object_is_named(tmp_path, text: str):
    path = write(tmp_path / "clip.safetensors", "clip", text)
    with pytest.raises(WeightsError, match=r"clip\.safetensors: metadata\.clip: "):
        read_clip_metadata(path)
    path = write(tmp_path / "model.safetensors", "model", text)
    with pytest.raises(WeightsError, match=r"model\.safetensors: metadata\.model: "):
        methods.read_model_metadata(path)


def test_a_file_that_is_not_a_model_is_named(tmp_path):
    """Such as one that `fuse` finds, which loads no model."""
    path = write(tmp_path / "other.safetensors", "clip", "{}")
    with pytest.raises(WeightsError, match=r"other\.safetensors: not written by train"):
        methods.read_model_metadata(path)


def test_empty_metadata_names_every_missing_key(tmp_path):
    path = write(tmp_path / "clip.safetensors", "clip", "{}")
    with pytest.raises(WeightsError, match=r"(?s)5 faults.*missing key metadata\.clip\.arch"):
        load_clip(path)
    path = write(tmp_path / "model.safetensors", "model", "{}")
    with pytest.raises(WeightsError, match=r"(?s)4 faults.*missing key metadata\.model\.options"):
        methods.read_model_metadata(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"method": "raww"},
            r"metadata\.model\.method: found 'raww'; allowed: raw, text4vis, .*\(did",
        ),
        (
            {"num_segments": 10**9},
            r"metadata\.model\.num_segments: found 1000000000; allowed: less than or equal to 1024",
        ),
        ({"clip": {}}, r"5 faults.*missing key metadata\.model\.clip\.input_px"),
        ({"options": {}}, r"6 faults.*missing key metadata\.model\.options\.head "),
        ({"options": {**OPTIONS, "heads": 1}}, r"unknown key metadata\.model\.options\.heads"),
        (
            {"options": {**OPTIONS, "head_layers": 10**6}},
            r"metadata\.model\.options\.head_layers: found 1000000",
        ),
        ({"epoch": 3}, r"unknown key metadata\.model\.epoch"),
    ],
)
def test_wrong_metadata_of_a_model_is_named(params_for, tmp_path, changes, message: str):
    params = params_for("mine")
    model = {**MODEL, "settings": training_settings(params.settings()), **changes}
    path = write(tmp_path / "model.safetensors", "model", json.dumps(model))
    with pytest.raises(ValueError, match=rf"(?s)model\.safetensors: {message}"):
        methods.load_model(params, path)


def test_weights_that_are_not_finite_are_named(tmp_path):
    model = build_clip("ViT-demo-16", 32)
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    tensors["logit_scale"].fill_(float("nan"))
    tensors["visual.proj"][0, 0] = float("inf")
    with pytest.raises(
        WeightsError, match=r"(?s)w\.pt: 2 tensors .*logit_scale.*visual\.proj|proj"
    ):
        load_strictly(model, tensors, "w.pt")
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_a_saved_clip_is_read_back(tmp_path):
    save_clip(
        build_clip("ViT-demo-16", 32), tmp_path / "c.safetensors", arch="ViT-demo-16", input_px=32,
        source="demo",
    )  # fmt: skip
    assert read_clip_metadata(tmp_path / "c.safetensors") == CLIP


TOKENS = torch.tensor([[[49406, 320, 49407], [49406, 321, 49407]]])  # [1, 2, 3]
TEXT = {"token_ids": TOKENS, "class_embeddings": torch.eye(2)[None]}


@pytest.mark.parametrize(
    ("metadata", "tensors", "message"),
    [
        ({}, {"class_embeddings": None}, "class_embeddings: missing"),
        ({"class_names": '["a"]'}, {}, r"token_ids: found torch.int64 \[1, 2, 3\]; .*K = 1"),
        ({}, {"class_embeddings": torch.ones(2, 2, 2)}, r"float32 \[2, 2, 2\]; .*P = 1, K = 2"),
        ({}, {"class_embeddings": torch.ones(1, 2, 0)}, r"class_embeddings: found .*\[1, 2, 0\]"),
        ({}, {"class_embeddings": torch.ones(1, 2, 4).half()}, "found torch.float16 .*float32"),
        ({}, {"class_embeddings": torch.full((1, 2, 4), torch.inf)}, "found 8 values that are not"),
        ({}, {"token_embeddings": torch.ones(2, 4, 2)}, r"token_embeddings: .*L = 3, D = 2"),
        ({}, {"x": torch.ones(1)}, "x: unknown; allowed: token_ids, class_embeddings"),
        ({}, {"token_ids": TOKENS + 1}, "found 321 to 49408; allowed with ViT-demo-16: 0 to 49407"),
        ({}, {"token_ids": TOKENS - 400}, "token_ids: found -80 to"),
        ({}, {"token_ids": TOKENS.float()}, "token_ids: found torch.float32"),
        ({"arch": "ViT-demo-17"}, {}, "metadata.arch: found 'ViT-demo-17'"),
        ({"class_names": '["a", "a"]'}, {}, "metadata.class_names: found 'a' more than once"),
        ({"class_names": "[1, 2]"}, {}, "metadata.class_names: found no list of names"),
        ({"class_names": "{"}, {}, "metadata.class_names: found no list of names"),
        ({"class_names": "[" * 100_000}, {}, "metadata.class_names: found no list of names"),
    ],
)
def test_a_class_text_that_embed_labels_did_not_write(project, metadata, tensors, message):
    found = {name: value for name, value in {**TEXT, **tensors}.items() if value is not None}
    about = {"class_names": '["a", "b"]', "arch": "ViT-demo-16", **metadata}
    write_safetensors(found, "data/text/mine.safetensors", about)
    with pytest.raises(
        WeightsError, match=rf"(?s)mine\.safetensors: .*embed_labels@mine.*{message}"
    ):
        load_class_text("mine")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "given_embeddings: missing"),
        ({"given_embeddings": torch.ones(1, 3, 4)}, r"\[1, 3, 4\]; allowed: .*with P = 1, K = 2"),
        ({"given_embeddings": torch.ones(2, 4)}, r"found torch.float32 \[2, 4\]"),
        ({"given_embeddings": torch.full((1, 2, 4), torch.nan)}, "found 8 values that are not"),
        ({"given_embeddings": torch.ones(1, 2, 4), "x": torch.ones(1)}, "x: unknown"),
    ],
)
def test_a_classifier_that_train_did_not_write(project, tensors, message):
    write_safetensors(tensors, methods.CLASSIFIER_FILE, {})
    with pytest.raises(
        WeightsError, match=rf"(?s)classifier\.safetensors: .*repro --force train.*{message}"
    ):
        methods.load_classifier(2)
    methods.save_classifier(torch.ones(1, 2, 4))
    assert methods.load_classifier(2).shape == (1, 2, 4)

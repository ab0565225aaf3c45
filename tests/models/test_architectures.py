"""open_clip's architectures: input sizes, and what each of them can do here."""

import importlib.util
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm.layers.weight_init
import torch

from clipzoo.config import ConfigError, load_params, replace
from clipzoo.methods import build
from clipzoo.methods.parts.text_tower import TextTower
from clipzoo.models import architectures
from clipzoo.models.architectures import (
    check_text_extra,
    context_length,
    embed_dim,
    input_size,
    model_config,
    native_px,
)
from clipzoo.models.clip import build_clip, encode_images
from clipzoo.models.text import ClassText, embed_class_names, embed_tokens, tokenize

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arch", "asked", "side"),
    [
        ("ViT-B/32", 64, 64),
        ("ViT-L-14", 64, 70),
        ("RN50", 65, 96),
        ("EVA02-B-16", 65, 80),  # the towers from here on are timm's
        ("EVA02-L-14", 64, 70),
        ("MobileCLIP2-L-14", 64, 70),
        ("PE-Core-L-14-336", 64, 70),
        ("ViT-SO400M-14-SigLIP2", 64, 70),
        ("ViTamin-S", 65, 80),  # convolutions, then a ViT whose patch is one of their positions
        ("convnext_tiny", 65, 96),
        ("swin_base_patch4_window7_224", 65, 96),
        ("MobileCLIP2-S0", 65, 96),
        ("MobileCLIP2-S3", 65, 128),
        # Trained on the first 378 of 384 pixels: 392 would resize its position embeddings.
        ("ViT-SO400M-14-SigLIP-384", 384, 384),
        ("ViT-SO400M-14-SigLIP-384", 383, 392),
    ],
)
def test_input_sizes_are_rounded_up_to_a_multiple_of_the_stride(arch: str, asked: int, side: int):
    assert input_size(arch, asked) == side
    assert input_size(arch, side) == side


def without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "transformers" else find(name)
    )


def test_an_architecture_that_needs_transformers_says_so(monkeypatch: pytest.MonkeyPatch):
    without_transformers(monkeypatch)
    message = (
        r"model\.arch: {} needs the package transformers for {}, .*clipzoo\[text\] .*'\.\[text\]'"
    )
    tokenizer, tower = r"its tokenizer \({}\)", r"its text tower \(roberta-base\)"
    siglip = message.format("ViT-B-16-SigLIP2", tokenizer.format("timm/ViT-B-16-SigLIP2"))
    with pytest.raises(ConfigError, match=siglip):
        tokenize("ViT-B-16-SigLIP2", ["a dog"], 64)
    both = f"{tower} and {tokenizer.format('roberta-base')}"
    with pytest.raises(ConfigError, match=message.format("roberta-ViT-B-32", both)):
        check_text_extra("roberta-ViT-B-32")
    with pytest.raises(ConfigError, match=message.format("roberta-ViT-B-32", tower)):
        build_clip("roberta-ViT-B-32", 64)
    check_text_extra("ViT-B-16-SigLIP2", tokenizer=False)
    check_text_extra("ViT-B-16")


def test_own_sizes_are_kept():
    assert native_px("PE-Core-T-16-384") == 384
    assert native_px("ViT-B-32") == 224


PAGE = ROOT / "docs/architectures.md"
HEADER = "| architecture | own px | 64 px | D | L | texts | tokens | trains |"


@contextmanager
def quickly() -> Iterator[None]:
    """Without transformers, and without the initialization of timm's layers, of which the meta
    device keeps nothing."""
    with pytest.MonkeyPatch.context() as patch:
        without_transformers(patch)
        patch.setattr(timm.layers.weight_init, "_trunc_normal_", lambda tensor, *_: tensor)
        yield


TEXT = {"context_length": 8, "vocab_size": 99, "width": 64, "heads": 1, "layers": 1}
VISION = {"layers": 1, "width": 64, "image_size": 32, "patch_size": 16}
DECODER = {"context_length": 8, "width": 64, "heads": 1, "layers": 1}


def row(arch: str) -> str:
    """The line of an architecture, from what it does."""
    config = model_config(arch)
    text, own, side = config["text_cfg"], native_px(arch), input_size(arch, 64)
    line = f"| {arch} | {own} | {side} | {embed_dim(arch)} | {context_length(arch)}"
    if "hf_model_name" in text:
        with pytest.raises(ConfigError, match="for its text tower"):
            build_clip(arch, 64)
        return f"{line} | extra | no | not tested |"
    if needs_extra := "hf_tokenizer_name" in text:
        with pytest.raises(ConfigError, match="for its tokenizer"):
            tokenize(arch, ["a dog"], 8)
    is_coca = "multimodal_cfg" in config
    part = {"embed_dim": config["embed_dim"], "custom_text": config.get("custom_text", False)}
    part |= {"multimodal_cfg": DECODER} if is_coca else {}
    layers = {} if "timm_model_name" in config["vision_cfg"] else shallow(config["vision_cfg"])
    vision = part | {"vision_cfg": config["vision_cfg"] | layers, "text_cfg": TEXT}
    vision["text_cfg"] = TEXT | ({"embed_cls": True, "output_tokens": True} if is_coca else {})
    # CLIP's tokenizer in place of others, whose files are elsewhere.
    text = {key: value for key, value in text.items() if "tokenizer" not in key}
    texts = part | {"text_cfg": text | {"layers": 1, "vocab_size": 49408}}
    texts["vision_cfg"] = VISION | (
        {"attentional_pool": True, "output_tokens": True} if is_coca else {}
    )
    without = without_gradient(json.dumps(vision), own, side)
    number, without_too = text_facts(json.dumps(texts))
    tokens = {context_length(arch): "yes", context_length(arch) + 1: "L + 1"}[number]
    trains = f"no: {', '.join(without + without_too)}" if without + without_too else "yes"
    return f"{line} | {'extra' if needs_extra else 'yes'} | {tokens} | {trains} |"


def shallow(vision: dict[str, Any]) -> dict[str, Any]:
    """Two layers instead of many equal ones, unless it is a ResNet."""
    return {} if isinstance(vision["layers"], list) else {"layers": 2}


@cache
def without_gradient(config: str, own: int, side: int) -> list[str]:
    """Parameters of ActionCLIP around a vision tower that a step at 64 px leaves without gradient;
    and the tower encodes frames of its own size."""
    content, name = json.loads(config), "local-dir:a vision tower"
    values = {"model.method": "actionclip", "actionclip.head": "meanP", "model.num_segments": 2}
    params = replace(load_params(ROOT / "params.yaml"), values)
    with torch.device("meta"):
        model = build(params, build_clip(name, 64, device="meta", config=content)).train()
        text = ClassText(
            token_ids=torch.zeros(1, 3, 8, dtype=torch.int64),  # [P, K, L]
            class_embeddings=torch.zeros(1, 3, content["embed_dim"]),
            class_names=["a", "b", "c"],
        )
        features = model.encode(torch.zeros(2, 2, 3, side, side, dtype=torch.uint8))
        classes = model.class_text(text).class_embeddings
        assert features.shape == (2, content["embed_dim"])
        (features.mean() * classes.mean() * model.get_parameter("logit_scale")).backward()
        with torch.no_grad():
            towers = build_clip(name, own, device="meta", config=content)
            images = encode_images(towers, torch.zeros(2, 3, own, own))
            assert images.shape == (2, content["embed_dim"])
    return [name for name, value in model.named_parameters() if value.grad is None]


@cache
def text_facts(config: str) -> tuple[int, list[str]]:
    """Number of token embeddings of a text, and the parameters of a trained text tower that get no
    gradient."""
    with pytest.MonkeyPatch.context() as patch:
        name, content = "local-dir:a text tower", json.loads(config)
        patch.setattr(architectures, "_elsewhere", {name: content})
        towers = build_clip(name, 32, config=content)
        text = embed_class_names(towers, name, ["a dog", "a red cat"], ["{}"])
        tokens = embed_tokens(towers, text)
    tower = TextTower(towers)
    tower(text.token_ids.clone()).sum().backward()
    without = [name for name, value in tower.named_parameters() if value.grad is None]
    return tokens.shape[1], without


def rows(archs: list[str]) -> list[str]:
    with warnings.catch_warnings(), quickly():
        warnings.simplefilter("ignore")
        return [row(arch) for arch in archs]


PARTS = 8
"""Parts of the list of architectures, so that several processes share the work."""
SOME = range(PARTS) if os.environ.get("CLIPZOO_LONG") else (0, 3, 6)


@pytest.mark.slow
@pytest.mark.parametrize("part", SOME)
def test_the_page_says_what_each_architecture_does(part: int):
    archs = open_clip.list_models()
    _, table = PAGE.read_text(encoding="utf-8").split(HEADER)
    lines = table.splitlines()[2:]  # after the header's end and the line below it
    assert [line.split(" | ")[0] for line in lines] == [f"| {arch}" for arch in archs]
    assert lines[part::PARTS] == rows(archs[part::PARTS])


def test_the_page_shows_the_message(monkeypatch: pytest.MonkeyPatch):
    without_transformers(monkeypatch)
    with pytest.raises(ConfigError) as caught:
        check_text_extra("ViT-B-16-SigLIP2")
    assert f"error: {caught.value}" in " ".join(PAGE.read_text(encoding="utf-8").split())


if __name__ == "__main__":
    prose, _ = PAGE.read_text(encoding="utf-8").split(HEADER)
    table = [HEADER, "|---" * 8 + "|", *rows(open_clip.list_models())]
    PAGE.write_text(prose + "\n".join(table) + "\n", encoding="utf-8")

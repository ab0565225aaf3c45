"""Prompts, tokens and class embeddings."""

from dataclasses import replace

import pytest
import torch

from clipzoo.config import ConfigError
from clipzoo.models.clip import build_clip
from clipzoo.models.text import (
    ClassText,
    class_text_path,
    embed_class_names,
    embed_tokens,
    load_class_text,
    save_class_text,
    tokenize,
)
from clipzoo.tensors import WeightsError, write_safetensors

ARCH = "ViT-demo-16"
NAMES = ["archery", "playing crème brûlée", "a red circle becoming large"]
TEMPLATES = ["a video of a person {}.", "{}"]


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    return build_clip(ARCH, 64)


def test_class_embeddings_are_the_text_towers(clip):
    text = embed_class_names(clip, ARCH, NAMES, TEMPLATES)
    assert text.token_ids.shape == (2, 3, 12)
    assert text.class_embeddings.shape == (2, 3, 128)
    torch.testing.assert_close(text.class_embeddings.norm(dim=-1), torch.ones(2, 3))
    ids = tokenize(ARCH, ["a video of a person archery."], 12)
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(clip.encode_text(ids), dim=-1)[0]
    torch.testing.assert_close(text.class_embeddings[0, 0], expected)


def test_tokens_begin_and_end_as_clip_does():
    assert tokenize(ARCH, ["a dog"], 6).tolist() == [[49406, 320, 1929, 49407, 0, 0]]


def test_class_text_survives_the_file(clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = embed_class_names(clip, ARCH, NAMES, TEMPLATES)
    save_class_text(text, class_text_path("ds"), arch=ARCH)
    read = load_class_text("ds")
    assert read.class_names == NAMES
    assert torch.equal(read.class_embeddings, text.class_embeddings)
    assert torch.equal(read.token_ids, text.token_ids)


def test_token_embeddings_are_those_of_every_position(clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = embed_class_names(clip, ARCH, NAMES, ["{}"])
    tokens = embed_tokens(clip, text)
    assert tokens.shape == (3, 12, 128)
    ends = text.token_ids[0].argmax(dim=1)  # the end token has the largest id
    rows = tokens[torch.arange(3), ends]
    torch.testing.assert_close(
        torch.nn.functional.normalize(rows, dim=-1), text.class_embeddings[0]
    )
    assert not torch.allclose(rows.norm(dim=-1), torch.ones(3), atol=1e-2), "not normalised"
    # A position sees only what stands before it: another word at the end changes no token before.
    other = embed_tokens(
        clip, embed_class_names(clip, ARCH, ["a red circle becoming small"], ["{}"])
    )
    same = text.token_ids[0, 2] == tokenize(ARCH, ["a red circle becoming small"], 12)[0]
    first_other = int(same.logical_not().nonzero()[0])
    torch.testing.assert_close(tokens[2, :first_other], other[0, :first_other])
    assert not torch.allclose(tokens[2, -1], other[0, -1], atol=1e-3), "padding sees the sentence"
    save_class_text(replace(text, token_embeddings=tokens), class_text_path("ds"), arch=ARCH)
    read = load_class_text("ds")
    assert read.token_embeddings is not None
    assert torch.equal(read.token_embeddings, tokens)
    two = read.of_classes([2, 0]).token_embeddings
    assert two is not None
    assert torch.equal(two, tokens[[2, 0]])


def test_single_prompts_of_templates_and_classes():
    token_ids = torch.arange(2 * 3 * 4).view(2, 3, 4)
    text = ClassText(
        token_ids=token_ids,
        class_embeddings=token_ids.float() / 2,
        class_names=["a", "b", "c"],
    )
    prompts = text.of_prompts([1, 0, 1], [2, 2, 0])
    rows = [token_ids[1, 2], token_ids[0, 2], token_ids[1, 0]]
    assert torch.equal(prompts.token_ids, torch.stack(rows)[None])
    assert torch.equal(prompts.class_embeddings, torch.stack(rows)[None] / 2)
    assert prompts.class_names == ["c", "c", "a"]


def test_token_embeddings_need_one_template(clip):
    with pytest.raises(ConfigError, match=r"text\.templates: found 2; allowed: one"):
        embed_tokens(clip, embed_class_names(clip, ARCH, NAMES, TEMPLATES))


def test_a_text_tower_without_tokens_is_refused(clip):
    text = embed_class_names(clip, ARCH, NAMES, ["{}"])
    turned = replace(text, class_embeddings=-text.class_embeddings)
    with pytest.raises(ConfigError, match=r"model\.arch: .* none of its tokens"):
        embed_tokens(clip, turned)


def test_a_missing_or_foreign_class_text_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=r"data/text/ds\.safetensors: no such file"):
        load_class_text("ds")
    write_safetensors({"x": torch.zeros(1)}, class_text_path("ds"), {})
    with pytest.raises(WeightsError, match="not written by embed_labels"):
        load_class_text("ds")

"""Prompts, tokens and class embeddings."""

import copy
from dataclasses import replace

import pytest
import torch
from open_clip import factory, get_model_config

from clipzoo.config import ConfigError
from clipzoo.methods.parts.text_tower import TextTower
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
    save_class_text(text, class_text_path("ds"), arch=ARCH, templates='["a {}."]')
    with pytest.raises(WeightsError, match=r"for the templates \[\"a \{\}\.\"\], but text\.temp"):
        load_class_text("ds", ["the {}."])
    read = load_class_text("ds", ["a {}."])
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
    assert not torch.allclose(rows.norm(dim=-1), torch.ones(3), atol=1e-2), "not normalized"
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


def test_the_tokens_of_coca_end_with_the_one_that_it_appends(tmp_path, monkeypatch):
    """Its class embedding is that of the appended token, and not of the end token."""
    monkeypatch.chdir(tmp_path)
    arch = "coca-demo"
    config = copy.deepcopy(get_model_config("coca_ViT-B-32"))
    assert config is not None
    config["vision_cfg"] |= {"layers": 1, "width": 64, "image_size": 32}
    config["text_cfg"] |= {"layers": 2, "width": 64, "heads": 2}
    config["multimodal_cfg"] |= {"layers": 1, "width": 64, "heads": 2}
    monkeypatch.setitem(factory._MODEL_CONFIGS, arch, {**config, "embed_dim": 64})
    torch.manual_seed(0)
    towers = build_clip(arch, 32)
    text = embed_class_names(towers, arch, NAMES, ["{}"])
    tokens = embed_tokens(towers, text)
    assert tokens.shape == (3, 76 + 1, 64)
    rows = torch.nn.functional.normalize(tokens[:, -1], dim=-1)
    torch.testing.assert_close(rows, text.class_embeddings[0])
    assert not torch.allclose(tokens[:, 1], tokens[:, 2], atol=1e-3)
    save_class_text(replace(text, token_embeddings=tokens), class_text_path("ds"), arch=arch)
    read = load_class_text("ds").token_embeddings
    assert read is not None
    assert torch.equal(read, tokens)
    # Nothing is left in the text tower that captions alone have.
    tower = TextTower(towers)
    tower(text.token_ids.clone()).sum().backward()
    assert [name for name, p in tower.named_parameters() if p.grad is None] == []
    assert [name for name, _ in tower.tower.named_children()] == ["text"]


def test_siglips_bias_is_not_part_of_a_trained_text_tower(monkeypatch):
    config = {**(get_model_config(ARCH) or {}), "init_logit_bias": -10}
    monkeypatch.setitem(factory._MODEL_CONFIGS, "ViT-demo-bias", config)
    towers = build_clip("ViT-demo-bias", 64)
    assert "logit_bias" in dict(towers.named_parameters())
    tower = TextTower(towers)
    tower(torch.zeros(1, 1, 12, dtype=torch.int64)).sum().backward()
    assert [name for name, p in tower.named_parameters() if p.grad is None] == []


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


LONG = "someone moves the small red block from the left side over to the right and then"


def test_prompts_that_become_equal_at_the_cut_are_refused_by_name(clip):
    names = ["a dog", f"{LONG} puts it down", f"{LONG} throws it away", "a cat"]
    with pytest.raises(ConfigError) as caught:
        embed_class_names(clip, ARCH, names, ["{}", "a video of {}"])
    message = str(caught.value)
    assert message.startswith("2 groups of prompts are the same in their first 12 tokens")
    assert f"'{LONG} puts it down' (21 tokens) and '{LONG} throws it away' (21 tokens)" in message
    assert f"'a video of {LONG} puts it down' (24 tokens)" in message
    assert "a dog" not in message


def test_a_prompt_that_ends_at_the_cut_of_another_is_refused_too(clip):
    short = "one two three four five six seven eight nine ten"  # 12 tokens with start and end
    assert tokenize(ARCH, [short], 13)[0].tolist()[11:] == [49407, 0]
    with pytest.raises(ConfigError, match=r"'one .* ten' and 'one .* ten eleven' \(13 tokens\)"):
        embed_class_names(clip, ARCH, [short, f"{short} eleven"], ["{}"])


def test_a_cut_without_a_clash_is_a_note(clip):
    notes: list[str] = []
    short = "one two three four five six seven eight nine ten"
    names = [short, f"two {short}", f"three {short * 20}"]
    text = embed_class_names(clip, ARCH, names, ["{}"], say=notes.append)
    (note,) = notes
    assert note.startswith("note: 2 of 3 prompts are longer than the 12 tokens")
    assert f"'two {short}' (13 tokens)" in note
    assert text.token_ids[0, :, -1].tolist() == [49407] * 3, "each ends with the end token"


def test_names_with_the_same_tokens_are_a_note(clip):
    notes: list[str] = []
    embed_class_names(clip, ARCH, ["A dog", "a dog", "a cat"], ["{}"], say=notes.append)
    (note,) = notes
    assert "same embedding: 'A dog' and 'a dog'" in note


def test_words_of_a_lexicon_may_become_equal(clip):
    notes: list[str] = []
    names = [f"{LONG} puts it down", f"{LONG} throws it away"]
    embed_class_names(clip, ARCH, names, ["{}"], distinct=False, say=notes.append)
    assert len(notes) == 2
    assert "the same tokens" in notes[0]
    assert "(21 tokens)" in notes[1]


def test_progress_counts_every_prompt(clip):
    steps: list[int] = []
    names = [f"class {number}" for number in range(200)]
    text = embed_class_names(clip, ARCH, names, TEMPLATES, advance=steps.append)
    assert steps == [256, 144]
    steps.clear()
    embed_tokens(clip, text.of_prompts([0] * 200, list(range(200))), advance=steps.append)
    assert steps == [200]

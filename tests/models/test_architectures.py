"""open_clip's architectures: input sizes, and what each of them can do here."""

import importlib.util

import pytest

from clipzoo.config import ConfigError
from clipzoo.models.architectures import check_text_extra, input_size, native_px
from clipzoo.models.clip import build_clip
from clipzoo.models.text import tokenize


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
    message = r"model\.arch: {} needs the package transformers for {}, .*'clipzoo\[text\]'"
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

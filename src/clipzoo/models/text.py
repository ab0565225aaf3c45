"""Prompt templates x class names -> token ids and frozen class embeddings.

The class embeddings are the classifier of Text4Vis (arXiv 2207.01297, section 3.2): row k is the
text tower's embedding of class k's prompt, L2-normalized and never trained.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import open_clip
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.nn import functional

from clipzoo.config import ConfigError
from clipzoo.files import raise_all
from clipzoo.models.architectures import (
    check_text_extra,
    context_length,
    is_elsewhere,
    known_name,
    model_config,
    open_clip_name,
)
from clipzoo.models.clip import encode_texts
from clipzoo.tensors import WeightsError, read_safetensors, send_indices, write_safetensors

BATCH = 256
LONGEST = 8
"""The tokens of a long text are counted up to this many contexts."""
SHOWN = 3
"""Number of texts that a note names."""
TOKENS = "token_embeddings"
SHAPES = {"token_ids": "PKL", "class_embeddings": "PKD", TOKENS: "KLD"}
"""Dimensions of the tensors in a class text's file; the last one is not in every file."""


@dataclass(frozen=True, kw_only=True)
class ClassText:
    """The texts of a dataset's classes, as tokens and embeddings."""

    token_ids: Tensor
    """Tokens of the prompts, [P, K, L] int64: P templates, K classes, L tokens."""
    class_embeddings: Tensor
    """Embeddings of the prompts, [P, K, D] float32, L2-normalized."""
    class_names: list[str]
    """K names, in label order."""
    token_embeddings: Tensor | None = None
    """Output of the text tower for each token of the only template, [K, M, D] float32, projected
    like the class embeddings and not normalized. M is L, or L + 1 where the tower appends a token
    (CoCa). None where the method does not need it."""

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return len(self.class_names)

    @property
    def dim(self) -> int:
        """D, the size of the embeddings."""
        return self.class_embeddings.shape[-1]

    def ensemble(self) -> Tensor:
        """One embedding for each class, [K, D] float32 L2-normalized: the mean over templates."""
        mean = self.class_embeddings.float().mean(dim=0)  # [P, K, D] -> [K, D]
        return functional.normalize(mean, dim=-1)

    def to(self, device: torch.device | str) -> "ClassText":
        """A copy on another device."""
        tokens = self.token_embeddings
        return replace(
            self,
            token_ids=self.token_ids.to(device),
            class_embeddings=self.class_embeddings.to(device),
            token_embeddings=None if tokens is None else tokens.to(device),
        )

    def of_classes(self, classes: Sequence[int]) -> "ClassText":
        """The class text of some classes, in the given order."""
        tokens = self.token_embeddings
        columns = send_indices(classes, self.token_ids.device)  # [k]
        return ClassText(
            token_ids=self.token_ids[:, columns],  # [P, K, L] -> [P, k, L]
            class_embeddings=self.class_embeddings[:, columns],  # [P, K, D] -> [P, k, D]
            class_names=[self.class_names[label] for label in classes],
            # [K, L, D] -> [k, L, D]
            token_embeddings=None if tokens is None else tokens[columns],
        )

    def of_prompts(self, templates: Sequence[int], classes: Sequence[int]) -> "ClassText":
        """Single prompts, each of one template and one class, as columns of a single template."""
        device = self.token_ids.device
        rows, columns = send_indices(templates, device), send_indices(classes, device)  # [u], [u]
        return ClassText(
            token_ids=self.token_ids[rows, columns][None],  # [P, K, L] -> [1, u, L]
            class_embeddings=self.class_embeddings[rows, columns][None],  # [P, K, D] -> [1, u, D]
            class_names=[self.class_names[label] for label in classes],
        )


def class_text_path(dataset: str) -> Path:
    """Path of the file that embed_labels writes for a dataset."""
    return Path("data/text") / f"{dataset}.safetensors"


def tokenize(arch: str, texts: list[str], context_length: int) -> Tensor:
    """Token ids [N, context_length] int64, zero-padded, from the architecture's tokenizer.

    Raises:
        ConfigError: the tokenizer is of the package transformers, which is not installed; or it has
            to be downloaded, and the hub cannot be reached.
    """
    check_text_extra(arch)
    name = open_clip_name(arch)
    source = model_config(name)["text_cfg"].get("hf_tokenizer_name")
    # A tokenizer of transformers lies beside the model, or on the hub; CLIP's own is in open_clip.
    with nullcontext(name) if source else known_name(name, None) as known:
        try:
            tokenizer = open_clip.get_tokenizer(known, context_length=context_length)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"model.arch: {arch} needs the tokenizer {source}, which cannot be loaded: it is "
                f"neither in the model hub's cache nor can it be downloaded ({error}); fill the "
                "cache on another machine (HF_HOME), or choose an architecture with CLIP's "
                "tokenizer"
            ) from error
    return tokenizer(texts)


def check_tokenizer(arch: str) -> None:
    """Load an architecture's tokenizer, which downloads it to the model hub's cache if it is not
    open_clip's, so that later stages need no network.

    Raises:
        ConfigError: as `tokenize`.
    """
    tokenize(arch, ["a"], context_length(arch))


def cut_texts(arch: str, texts: list[str], token_ids: Tensor) -> dict[int, int]:
    """The texts that are longer than a text tower's context; `tokenize` gave their tokens [N, L].

    Returns:
        position -> number of tokens, start and end included, counted up to 8 L.
    """
    length = token_ids.shape[1]
    full = (token_ids[:, -1] != 0).nonzero().flatten().tolist()  # some tokenizers pad with 1
    if not full:
        return {}
    whole = tokenize(arch, [texts[position] for position in full], LONGEST * length)  # [n, 8 L]
    # What differs from the last column is no padding; the last such position is the length.
    used = whole != whole[:, -1:]  # [n, 8 L]
    counts = (used * torch.arange(1, whole.shape[1] + 1)).amax(dim=1).tolist()  # [n]
    return {p: count for p, count in zip(full, counts, strict=True) if count > length}


def check_prompts(
    arch: str,
    texts: list[str],
    names: list[str],
    token_ids: Tensor,
    *,
    distinct: bool,
    say: Callable[[str], None],
) -> None:
    """Refuse prompts of one template that became equal when they were cut off at the context's end.

    Args:
        texts: P K prompts, template by template.
        names: K class names, or words, that are in them.
        token_ids: the tokens of the prompts according to `tokenize`, [P K, L] int64.
        distinct: whether such prompts are an error, or only a note.
        say: is called with notes: on prompts that are cut off, and on equal ones.

    Raises:
        ConfigError: names the prompts and their numbers of tokens.
    """
    length, cut = token_ids.shape[1], cut_texts(arch, texts, token_ids)
    tokens = {position: f"{texts[position]!r} ({count} tokens)" for position, count in cut.items()}
    groups: dict[tuple[int, bytes], list[int]] = {}
    for position, row in enumerate(token_ids.numpy()):
        groups.setdefault((position // len(names), row.tobytes()), []).append(position)
    equal: dict[bool, list[str]] = {True: [], False: []}  # with a prompt that was cut off?
    for group in groups.values():
        if len(group) > 1:
            quoted = [tokens.get(position, repr(texts[position])) for position in group]
            equal[not cut.keys().isdisjoint(group)].append(" and ".join(quoted))
    if distinct:
        raise_all(
            f"{len(equal[True])} groups of prompts are the same in their first {length} tokens, "
            f"where the text tower of {arch} cuts them off, so their classes cannot be told apart; "
            "give the classes shorter names, or use shorter templates (text.templates)",
            equal[True],
            ConfigError,
        )
    if same := equal[True] + equal[False]:
        say(f"note: prompts with the same tokens, and so the same embedding: {_first(same)}")
    if cut:
        say(
            f"note: {len(cut)} of {len(texts)} prompts are longer than the {length} tokens of the "
            f"text tower and are cut off there: {_first(list(tokens.values()))}"
        )


def _first(items: Sequence[str]) -> str:
    more = f"; and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return f"{'; '.join(items[:SHOWN])}{more}"


@torch.inference_mode()
def embed_class_names(
    towers: nn.Module,
    arch: str,
    class_names: list[str],
    templates: list[str],
    *,
    distinct: bool = True,
    say: Callable[[str], None] = print,
    advance: Callable[[int], object] = lambda count: None,
) -> ClassText:
    """Embed K class names in P templates, with one {} each, with the frozen text tower.

    Args:
        towers: an open_clip model in evaluation mode; `arch` determines the tokenizer.
        distinct: as in `check_prompts`, whose ConfigError is raised here; so is `say`.
        advance: is called with the number of prompts, of P K, that were embedded since.
    """
    texts = [template.format(name) for template in templates for name in class_names]
    length = context_length(arch)
    token_ids = tokenize(arch, texts, length)  # [P K, L]
    check_prompts(arch, texts, class_names, token_ids, distinct=distinct, say=say)
    embeddings = _encode(towers, token_ids, advance)  # [P K, L] -> [P K, D]
    embeddings = functional.normalize(embeddings.float(), dim=-1)
    shape = (len(templates), len(class_names), -1)
    return ClassText(
        token_ids=token_ids.view(shape),  # [P K, L] -> [P, K, L]
        class_embeddings=embeddings.view(shape),  # [P K, D] -> [P, K, D]
        class_names=class_names,
    )


def _encode(towers: nn.Module, token_ids: Tensor, advance: Callable[[int], object]) -> Tensor:
    """Embeddings [N, D] of token ids [N, L], batch by batch."""
    rows: list[Tensor] = []
    for batch in token_ids.split(BATCH):
        rows.append(encode_texts(towers, batch))  # [<= BATCH, L] -> [<= BATCH, D]
        advance(len(batch))
    return torch.cat(rows)  # of [<= BATCH, D] -> [N, D]


@torch.inference_mode()
def embed_tokens(
    towers: nn.Module, text: ClassText, *, advance: Callable[[int], object] = lambda count: None
) -> Tensor:
    """Output of the text tower for each token of the class prompts, padding included.

    Like a class embedding, each is normalized by the last layer norm and projected. Source: BIKE,
    clip/model.py (`encode_text` with `return_token`). CoCa's text tower appends a token of its own,
    whose output is the class embedding, to the L of a text: it is the last of L + 1.

    Args:
        text: the class text of one template.
        advance: is called with the number of prompts, of K, that were embedded since.

    Returns:
        [K, L, D] float32, not L2-normalized; the row of a prompt's end token is its class
        embedding before normalization. [K, L + 1, D] of CoCa.

    Raises:
        ConfigError: there are several templates, or the text tower has no such tokens.
    """
    if len(text.token_ids) != 1:
        raise ConfigError(
            f"text.templates: found {len(text.token_ids)}; allowed: one, because the method "
            "compares frames with the tokens of a class's only prompt"
        )
    tower: Any = getattr(towers, "text", towers)  # CustomTextCLIP has a module
    norm, projection = getattr(tower, "ln_final", None), getattr(tower, "text_projection", None)
    if norm is None or projection is None:
        raise ConfigError("model.arch: its text tower has no token embeddings; choose a ViT")
    # open_clip returns the end token's embedding alone: take what goes into its last layer norm.
    # CoCa's norm is given the last token alone, but its Transformer returns all of them.
    rows: list[Tensor] = []
    blocks = tower.transformer
    handle = blocks.register_forward_hook(lambda *args: rows.append(args[-1]))  # [<= BATCH, L, W]
    try:
        _encode(towers, text.token_ids[0], advance)
    finally:
        handle.remove()
    tokens = torch.cat(rows)  # [K, L, W]
    project = projection if isinstance(projection, nn.Linear) else lambda x: x @ projection
    tokens = project(norm(tokens)).float()  # [K, L, W] -> [K, L, D]
    # Each class embedding must be one of its tokens' embeddings, up to its length.
    classes = text.class_embeddings[0][:, None]  # [P, K, D] -> [K, 1, D]
    distances = torch.cdist(functional.normalize(tokens, dim=-1), classes)  # [K, L, 1]
    if float(distances.amin(dim=1).max()) > 1e-2:
        raise ConfigError(
            "model.arch: its text tower's class embedding is none of its tokens' embeddings; "
            "choose one that pools the end token, as OpenAI's do"
        )
    return tokens


def save_class_text(text: ClassText, path: str | Path, **metadata: str) -> None:
    """Write the class text and its metadata (arch, weights' sha256, templates, classifier)."""
    tensors = {k: v.contiguous().clone() for k in SHAPES if (v := getattr(text, k)) is not None}
    names = json.dumps(text.class_names, ensure_ascii=False)
    write_safetensors(tensors, path, {"class_names": names, **metadata})


def load_class_text(dataset: str, templates: Sequence[str] | None = None) -> ClassText:
    """Read the class text that embed_labels wrote for a dataset.

    Args:
        templates: the templates that it must have (`text.templates` of a run); None = any.

    Raises:
        WeightsError: the file is missing or not a class text; names every fault.
    """
    path = class_text_path(dataset)
    tensors, metadata = read_safetensors(path)
    if "class_names" not in metadata:
        raise WeightsError(f"{path}: not written by embed_labels (no class_names in its metadata)")
    try:
        names = TypeAdapter(list[str]).validate_json(metadata["class_names"])
    except ValueError:
        names = []
    used = metadata.get("templates")
    if templates is not None and used != json.dumps(list(templates), ensure_ascii=False):
        raise WeightsError(
            f"{path}: embed_labels wrote it for the templates {used}, but text.templates is "
            f"{templates}; `dvc repro` writes it again"
        )
    found = "no list of names" if not names else None
    if repeated := [name for name, number in Counter(names).items() if number > 1]:
        found = f"{repeated[0]!r} more than once"
    faults = [f"metadata.class_names: found {found}; allowed: distinct names"] if found else []
    expected = {name: SHAPES[name] for name in SHAPES if name in tensors or name != TOKENS}
    if TOKENS in expected and _appends_token(metadata.get("arch", "")):
        expected[TOKENS] = "KMD"
    faults += tensor_faults(tensors, expected, {"K": len(names)} if names else {})
    faults += [] if faults else _token_faults(tensors["token_ids"], metadata.get("arch", ""))
    raise_all(
        f"{path}: not as embed_labels writes it; `dvc repro --force embed_labels@{dataset}` writes "
        "it again",
        faults,
        WeightsError,
    )
    return ClassText(**tensors, class_names=names)


def _appends_token(arch: str) -> bool:
    """Whether an architecture's text tower appends a token of its own to those of a text."""
    known = is_elsewhere(arch) or arch in open_clip.list_models()
    return known and bool(model_config(arch)["text_cfg"].get("embed_cls"))


def _token_faults(token_ids: Tensor, arch: str) -> list[str]:
    if not is_elsewhere(arch) and arch not in open_clip.list_models():
        return [f"metadata.arch: found {arch!r}; allowed: an architecture of open_clip"]
    largest = model_config(arch)["text_cfg"].get("vocab_size", math.inf) - 1
    low, high = int(token_ids.min()), int(token_ids.max())
    fault = f"token_ids: found {low} to {high}; allowed with {arch}: 0 to {largest}"
    return [] if low >= 0 and high <= largest else [fault]


def tensor_faults(
    tensors: Mapping[str, Tensor], expected: Mapping[str, str], sizes: Mapping[str, int]
) -> list[str]:
    """The faults of the tensors of a file; all values must be finite.

    Args:
        expected: name -> a letter for each dimension, as PKD; token ids are int64, others float32.
        sizes: the sizes of dimensions that are known; equal letters are equal sizes.
    """
    sizes = dict(sizes)
    others = sorted(tensors.keys() - expected)
    faults = [f"{name}: unknown; allowed: {', '.join(expected)}" for name in others]
    for name, letters in expected.items():
        if name not in tensors:
            faults.append(f"{name}: missing")
            continue
        tensor, shape = tensors[name], list(tensors[name].shape)
        pairs = list(zip(letters, shape, strict=False))
        fits = len(shape) == len(letters) and all(sizes.setdefault(k, n) == n > 0 for k, n in pairs)
        kind = "int64" if name == "token_ids" else "float32"
        if not fits or str(tensor.dtype) != f"torch.{kind}":
            known = ", ".join(f"{k} = {sizes[k]}" for k in letters if k in sizes)
            faults.append(
                f"{name}: found {tensor.dtype} {shape}; allowed: {kind} [{', '.join(letters)}] "
                f"with {known or 'sizes of 1 or more'}"
            )
        elif wrong := int((~tensor.isfinite()).sum()):
            faults.append(f"{name}: found {wrong} values that are not finite; allowed: finite ones")
    return faults

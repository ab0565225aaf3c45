"""The stand-in for published weights: a small CLIP trained on captioned stills of the demo world.

A still shows the end of a change and its caption is the label of that class: an object drawn small
is "becoming small", a dim scene "becoming dark". So this CLIP knows all objects of the world,
including those of demo_unseen (as a web-trained CLIP knows most things), and what the words of the
labels look like, but it has seen no video.

Loss: cross entropy of image to caption and of caption to image over the batch (Radford et al. 2021,
arXiv 2103.00020); identical captions count as one caption with several images.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import simplejpeg
import torch
from torch import Tensor, nn
from torch.nn import functional

from clipzoo.config import DemoConfig
from clipzoo.demo.world import ALL_CLASSES, render, sample_still
from clipzoo.models.clip import (
    build_clip,
    encode_images,
    encode_texts,
    num_parameters,
    open_clip_name,
)
from clipzoo.models.pixels import OPENAI, Pixels, normalize, pixels_of
from clipzoo.models.text import tokenize
from clipzoo.runtime.progress import progress_bar

MAX_STILLS = 16384
"""Largest number of different training stills; longer runs repeat them, mirrored at random."""
HELD_OUT_PER_CLASS = 4
JPEG_QUALITY = (60, 95)
LARGE_MODEL = 200_000_000
"""Number of parameters above which pre-training uses bfloat16, if the processor supports it."""
OTHER_LR = 1e-4
"""Peak learning rate of other architectures: large towers diverge at `demo.pretrain_lr`."""
WARMUP = 0.1
"""Share of the steps in which the learning rate rises."""
WEIGHT_DECAY = 0.1
MAX_LOGIT_SCALE = math.log(100)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long to pre-train, counted in steps so that no result depends on the clock."""

    steps: int
    batch: int
    """Stills in one step."""
    lr: float
    """Peak learning rate."""


def pretrain_budget(arch: str, demo: DemoConfig) -> Budget:
    """The budget of an architecture: `demo.pretrain_*` for `demo.arch`, or `demo.other_archs`."""
    if open_clip_name(arch) == open_clip_name(demo.arch):
        return Budget(steps=demo.pretrain_steps, batch=demo.pretrain_batch, lr=demo.pretrain_lr)
    return Budget(
        steps=demo.other_archs.pretrain_steps, batch=demo.other_archs.pretrain_batch, lr=OTHER_LR
    )


def draw_stills(count: int, side_px: int, seed: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Draw N = `count` captioned stills of all classes of the world, one class after the other.

    Returns:
        stills [N, 3, side, side] uint8 RGB, 0 to 255, with JPEG artifacts as in decoded frames, and
        positions [N] int64 in `ALL_CLASSES`, whose names are the captions.
    """
    rng = np.random.default_rng(seed)
    stills = torch.empty(count, 3, side_px, side_px, dtype=torch.uint8)
    labels = torch.arange(count) % len(ALL_CLASSES)  # [N]
    for still, label in zip(stills, labels.tolist(), strict=True):
        frame = render(sample_still(ALL_CLASSES[label], rng, side_px))[0]  # [side, side, 3]
        jpeg = simplejpeg.encode_jpeg(frame, int(rng.integers(*JPEG_QUALITY)))
        decoded = torch.from_numpy(simplejpeg.decode_jpeg(jpeg))  # [side, side, 3]
        still.copy_(decoded.permute(2, 0, 1))  # [side, side, 3] -> [3, side, side]
    return stills, labels


def caption_tokens(model: nn.Module, arch: str, templates: list[str]) -> Tensor:
    """Token ids [P, K, L] int64: P templates x the names of all K classes of the world."""
    captions = [template.format(c.name) for template in templates for c in ALL_CLASSES]
    length = int(getattr(model, "context_length", 77))
    token_ids = tokenize(open_clip_name(arch), captions, length)  # [P K, L]
    return token_ids.view(len(templates), -1, length)  # [P K, L] -> [P, K, L]


def contrastive_loss(images: Tensor, texts: Tensor, positions: Tensor, scale: Tensor) -> Tensor:
    """Symmetric cross entropy with several images to a caption.

    Args:
        images: embeddings [B, D], float.
        texts: embeddings [U, D], float, of different captions, each of one image or more.
        positions: [B] int64 in [0, U), the caption of each image.
        scale: factor on the cosines, a scalar.
    """
    images = functional.normalize(images.float(), dim=-1)  # [B, D]
    logits = scale * images @ functional.normalize(texts.float(), dim=-1).T  # [B, U]
    matches = functional.one_hot(positions, len(texts)).float()  # [B] -> [B, U]
    # For each caption, the mean log-probability of its images.
    to_image = (matches * logits.log_softmax(0)).sum(0) / matches.sum(0)  # [B, U] -> [U]
    return (functional.cross_entropy(logits, positions) - to_image.mean()) / 2


def stand_in_clip(
    arch: str,
    input_px: int,
    templates: list[str],
    budget: Budget,
    seed: int,
    pixels: Pixels = OPENAI,
) -> tuple[nn.Module, dict[str, float | int]]:
    """Build and pre-train a CLIP; the same arguments give the same weights on one machine.

    Args:
        arch: an open_clip architecture whose tokenizer needs no download.
        input_px: input side, a multiple of the patch.
        templates: prompt templates; each caption is put into one of them at random.
        seed: decides initialization, stills, order, mirroring and templates.
        pixels: mean and std of its input; how a frame is resized is for later stages.

    Returns:
        the model in evaluation mode, and its metrics: steps, loss and those of `retrieval`.
    """
    torch.manual_seed(seed)
    model = build_clip(arch, input_px, pixels=pixels)
    token_ids = caption_tokens(model, arch, templates)
    losses = pretrain(model, token_ids, input_px, budget, seed)
    last = losses[-max(1, len(losses) // 10) :]
    accuracies = retrieval(model, token_ids, input_px, seed)
    return model, {"steps": budget.steps, "loss": float(np.mean(last)), **accuracies}


def pretrain(
    model: nn.Module, token_ids: Tensor, side_px: int, budget: Budget, seed: int
) -> list[float]:
    """Train an open_clip model in place, on the CPU, on stills; returns the loss of every step.
    ValueError if one is not finite.

    `token_ids` [P, K, L] int64 come from `caption_tokens`.
    """
    pixels = pixels_of(model)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=budget.lr, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY, fused=True
    )
    scale = model.get_parameter("logit_scale")
    losses = []
    model.train()
    bar = progress_bar("pretrain", budget.steps, "step")
    batches = _batches(token_ids, side_px, budget, seed)
    for step, (stills, captions, positions) in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = budget.lr * _schedule(step, budget.steps)
        with _precision(model):
            images = encode_images(model, normalize(stills, pixels))  # [B, 3, S, S] -> [B, D]
            texts = encode_texts(model, captions)  # [U, L] -> [U, D]
        loss = contrastive_loss(images, texts, positions, scale.exp())
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise ValueError(
                f"pre-training: the loss is {losses[-1]} at step {step}; lower demo.pretrain_lr"
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():  # the bound of CLIP's authors, against instability
            scale.clamp_(max=MAX_LOGIT_SCALE)
        bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
        bar.update()
    bar.close()
    model.eval()
    return losses


def _batches(
    token_ids: Tensor, side_px: int, budget: Budget, seed: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Stills [B, 3, S, S] uint8, token ids [U, L] int64 of their captions, and each still's caption
    [B] int64 in [0, U).

    All stills are used once before any is repeated.
    """
    rng = np.random.default_rng([seed, 1])
    total = budget.steps * budget.batch
    stills, classes = draw_stills(min(MAX_STILLS, total), side_px, (seed, 2))
    rounds = math.ceil(total / len(stills))
    order = np.concatenate([rng.permutation(len(stills)) for _ in range(rounds)])  # [rounds N]
    for step in range(budget.steps):
        batch = torch.from_numpy(order[step * budget.batch : (step + 1) * budget.batch])
        images = stills[batch]  # [N, 3, S, S] -> [B, 3, S, S]
        mirrored = torch.from_numpy(rng.random(budget.batch) < 0.5)  # [B]
        images[mirrored] = images[mirrored].flip(-1)  # no class differs from its mirror image
        captions, positions = classes[batch].unique(return_inverse=True)  # [U], [B]
        template = torch.from_numpy(rng.integers(len(token_ids), size=len(captions)))  # [U]
        yield images, token_ids[template, captions], positions  # token ids [P, K, L] -> [U, L]


def _precision(model: nn.Module) -> torch.autocast:
    """bfloat16 for large models if the processor has instructions for it (twice as fast).

    With AVX-512 alone oneDNN supports it too, by converting to float32: more than twice as slow.
    """
    converted = torch.cpu._is_avx512_supported() and not torch.cpu._is_avx512_bf16_supported()
    fast = torch.ops.mkldnn._is_mkldnn_bf16_supported() and not converted
    large = num_parameters(model) > LARGE_MODEL
    return torch.autocast("cpu", torch.bfloat16, enabled=fast and large)


def _schedule(step: int, steps: int) -> float:
    """Learning rate as a share of its peak: linear warm-up, then half a cosine to 0."""
    warmup = max(1, round(WARMUP * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


@torch.inference_mode()
def retrieval(
    model: nn.Module, token_ids: Tensor, side_px: int, seed: int
) -> dict[str, float | int]:
    """Retrieval accuracy between captions and held-out stills.

    Args:
        model: a model in evaluation mode.
        token_ids: [P, K, L] int64; the first template is used.
        side_px: the model's input size.
        seed: decides the stills, which differ from all training stills.

    Returns:
        image_to_text_top1, the share of stills nearest to their own caption, and
        text_to_image_top1, the share of captions nearest to one of their stills, both in percent;
        num_stills.
    """
    stills, labels = draw_stills(HELD_OUT_PER_CLASS * len(ALL_CLASSES), side_px, (seed, 3))
    with _precision(model):
        parts = [normalize(part, pixels_of(model)) for part in stills.split(64)]
        images = torch.cat([encode_images(model, part) for part in parts])  # [N, D]
        texts = torch.cat([encode_texts(model, t) for t in token_ids[0].split(64)])  # [K, D]
    images, texts = (functional.normalize(x.float(), dim=-1) for x in (images, texts))
    cosines = images @ texts.T  # [N, K]
    to_text = (cosines.argmax(1) == labels).double().mean()  # of [N]
    to_image = (labels[cosines.argmax(0)] == torch.arange(len(texts))).double().mean()  # of [K]
    return {
        "image_to_text_top1": 100 * to_text.item(),
        "text_to_image_top1": 100 * to_image.item(),
        "num_stills": len(stills),
    }

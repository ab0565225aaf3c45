"""From features to probabilities: how each method fuses views, templates and frames.

Published accuracies depend on where the authors average and where they take a softmax, so there is
one plain function per method. All run on a CPU from saved features. Probabilities are float32, sum
to 1 over classes (as does a weighted mean of them) and are never rescaled.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

TEST_SCALE = 100.0
"""Scale of cosines in testing; in training it is learned (`logit_scale`)."""
VIDEOS_AT_ONCE = 256
"""Videos whose frames Video Concept Spotting weighs at once: a whole step in training."""
BLOCK = 1 << 24
"""Numbers in the largest tensor of Video Concept Spotting: 64 MB."""


def scaled_cosines(
    features: Tensor, class_embeddings: Tensor, scale: Tensor | float = TEST_SCALE
) -> Tensor:
    """`scale` times the cosine of every feature with every class, in float32 even under autocast.

    In half precision a cosine has three digits, too few for a scale of 100.

    Args:
        features: [..., D], any norm.
        class_embeddings: [K, D], any norm, or [P, K, D]: the templates' normalized embeddings are
            averaged first (the prompt ensemble of CLIP).

    Returns:
        [..., K] float32 in [-scale, scale].
    """
    classes = functional.normalize(class_embeddings.float(), dim=-1)
    if classes.dim() == 3 and classes.shape[0] > 1:
        classes = functional.normalize(classes.mean(dim=0), dim=-1)  # [P, K, D] -> [K, D]
    elif classes.dim() == 3:
        classes = classes[0]  # [1, K, D] -> [K, D]
    with torch.autocast(features.device.type, enabled=False):
        # The scale comes first, as in the authors' code, so that probabilities agree to the last
        # digit.
        return scale * functional.normalize(features.float(), dim=-1) @ classes.T  # [..., K]


def template_cosines(
    features: Tensor, class_embeddings: Tensor, scale: Tensor | float = TEST_SCALE
) -> Tensor:
    """`scaled_cosines` with each template: [..., P, K] of features [..., D] and [P, K, D]."""
    prompts = class_embeddings.flatten(0, 1)  # [P, K, D] -> [P K, D]
    cosines = scaled_cosines(features, prompts, scale)  # [..., P K]
    return cosines.unflatten(-1, class_embeddings.shape[:2])  # [..., P K] -> [..., P, K]


def text4vis_probabilities(features: Tensor, class_embeddings: Tensor) -> Tensor:
    """softmax(100 cos) [N, K] of video embeddings [N, V, D] and classes [K, D] or [P, K, D]; views
    are averaged *before* normalization.

    Source: Text4Vis, arXiv 2207.01297 (multi-view testing).
    """
    videos = features.float().mean(dim=1)  # [N, V, D] -> [N, D]
    return scaled_cosines(videos, class_embeddings).softmax(dim=-1)  # [N, K]


def spotted_cosines(
    frames: Tensor, class_embeddings: Tensor, token_embeddings: Tensor, temperature: float
) -> Tensor:
    """Video Concept Spotting: frames are weighted for each class by how well they fit its words.

    With h_t, w_l and c of unit length, for one video and one class:

        weights_t = mean over l of softmax over t of (w_l . h_t / temperature)
        score     = sum over t of weights_t (h_t . c)

    Source: BIKE, arXiv 2301.00182, section 3.3; as in the authors' code, all L tokens take part,
    padding included, and the weighted sum of frames is not normalized again. The weights of the
    words, [B, K, L, T] in all, are computed for a few videos and classes at a time, and again in
    the backward pass. In float32 even under autocast.

    Args:
        frames: frame embeddings [B, T, D], any norm.
        class_embeddings: [K, D], any norm.
        token_embeddings: those of the classes' prompts, [K, L, D], any norm.
        temperature: divides the logits of the softmax over frames; 0.01 in the paper.

    Returns:
        [B, K] float32 in [-1, 1].
    """
    with torch.autocast(frames.device.type, enabled=False):
        rows = []
        for part in _video_blocks(frames):  # [b, T, D]
            cosines = torch.einsum("btd,kd->kbt", part, _unit(class_embeddings))  # [K, b, T]
            columns = [
                _spot(part, words, of_class, temperature)  # [k, b]
                for words, of_class in _class_blocks(part, token_embeddings, cosines)
            ]
            rows.append(torch.cat(columns).T)  # [K, b] -> [b, K]
        return torch.cat(rows)  # [B, K]


def frame_weights(frames: Tensor, token_embeddings: Tensor, temperature: float) -> Tensor:
    """The weights of `spotted_cosines`, with the same arguments: how much each class looks at each
    frame, [B, K, T] float32. They are positive and sum to 1 over frames."""
    rows = []
    for part in _video_blocks(frames):  # [b, T, D]
        blocks = _class_blocks(part, token_embeddings)
        weights = [_weigh(part, words, temperature) for (words,) in blocks]
        rows.append(torch.cat(weights).transpose(0, 1))  # [K, b, T] -> [b, K, T]
    return torch.cat(rows)  # [B, K, T]


def _video_blocks(frames: Tensor) -> tuple[Tensor, ...]:
    """The unit vectors of frames [B, T, D], for VIDEOS_AT_ONCE videos at a time.

    An exported graph has one block: a loop would freeze the number of its rounds in it.
    """
    unit = _unit(frames)  # [B, T, D]
    return (unit,) if torch.compiler.is_exporting() else unit.split(VIDEOS_AT_ONCE)


def _class_blocks(frames: Tensor, *by_class: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors [K, ...], the first of them [K, L, D], for as many classes at a time as keep the
    weights of all words within BLOCK numbers; in an exported graph, for all of them."""
    if torch.compiler.is_exporting():
        yield by_class
        return
    per_class = frames.shape[0] * frames.shape[1] * by_class[0].shape[1]  # b T L
    size = max(1, BLOCK // per_class)
    yield from zip(*(tensor.split(size) for tensor in by_class), strict=True)


def _spot(frames: Tensor, words: Tensor, cosines: Tensor, temperature: float) -> Tensor:
    """Scores [k, b] of unit frames [b, T, D], words [k, L, D] and cosines [k, b, T]."""

    def block(frames: Tensor, words: Tensor, cosines: Tensor) -> Tensor:
        return (_weigh(frames, words, temperature) * cosines).sum(dim=-1)  # [k, b, T] -> [k, b]

    if not torch.is_grad_enabled() or torch.compiler.is_exporting():
        return block(frames, words, cosines)
    scores: Any = checkpoint(block, frames, words, cosines, use_reentrant=False)
    return scores


def _weigh(frames: Tensor, words: Tensor, temperature: float) -> Tensor:
    """Weights [k, b, T] of unit frames [b, T, D] for words [k, L, D] of any norm."""
    fit = torch.einsum("kld,btd->klbt", _unit(words), frames)  # [k, L, b, T]
    return (fit / temperature).softmax(dim=-1).mean(dim=1)  # [k, L, b, T] -> [k, b, T]


def _unit(vectors: Tensor) -> Tensor:
    return functional.normalize(vectors.float(), dim=-1)


def bike_frame_probabilities(features: Tensor, class_embeddings: Tensor) -> Tensor:
    """softmax(100 x t) of each frame, averaged over frames, [N, K], of frames [N, T, D] of the raw
    vision tower, which are *not* normalized, and L2-normalized classes [K, D].

    Source: BIKE's zero-shot evaluation on UCF101, HMDB51 and ActivityNet.
    """
    logits = TEST_SCALE * features.float() @ class_embeddings.float().T  # [N, T, D] -> [N, T, K]
    return logits.softmax(dim=-1).mean(dim=1)  # [N, T, K] -> [N, K]


def actionclip_probabilities(features: Tensor, class_embeddings: Tensor) -> Tensor:
    """softmax(100 cos) of each template, averaged over templates, [N, K], of video embeddings
    [N, D] and classes [P, K, D].

    Source: ActionCLIP, arXiv 2109.08472 (testing with 16 templates).
    """
    logits = template_cosines(features, class_embeddings)  # [N, P, K]
    return logits.softmax(dim=-1).mean(dim=1)  # [N, P, K] -> [N, K]


def fuse_attributes(video: Tensor, attributes: Tensor, video_weight: float = 0.7) -> Tensor:
    """Weighted sum of the video branch's and the attributes branch's probabilities, both [N, K].

    Source: BIKE, arXiv 2301.00182 (0.7 for the video branch, 0.3 for the attributes).
    """
    return video_weight * video + (1 - video_weight) * attributes

"""From features to probabilities: how each method fuses views, templates and frames.

Each published accuracy depends on where its authors average and where they take a softmax, so each
method has its own plain function here. All of them run on a CPU from saved features. Probabilities
are float32, sum to 1 over classes (or are a fixed mixture of such), and are never rescaled.
"""

import torch
from torch import Tensor
from torch.nn import functional

TEST_SCALE = 100.0
"""The scale of a cosine in testing; training learns its own (`logit_scale`)."""


def cosines(features: Tensor, class_embeddings: Tensor) -> Tensor:
    """Cosine of every feature with every class, in float32 whatever the autocast.

    In half precision a cosine keeps three digits, and it is multiplied by 100 afterwards.

    Args:
        features: [..., D], any norm.
        class_embeddings: [K, D], any norm, or [P, K, D]: the templates' normalised embeddings are
            averaged first (the prompt ensemble of CLIP).

    Returns:
        [..., K] float32 in [-1, 1].
    """
    classes = functional.normalize(class_embeddings.float(), dim=-1)
    if classes.dim() == 3:
        classes = functional.normalize(classes.mean(dim=0), dim=-1)  # [P, K, D] -> [K, D]
    with torch.autocast(features.device.type, enabled=False):
        return functional.normalize(features.float(), dim=-1) @ classes.T


def text4vis_probabilities(features: Tensor, class_embeddings: Tensor) -> Tensor:
    """softmax(100 cos), of the video embedding averaged over views *before* normalisation.

    Source: Text4Vis, arXiv 2207.01297 (multi-view testing).

    Args:
        features: video embeddings [N, V, D] before normalisation.
        class_embeddings: [K, D] or [P, K, D].

    Returns:
        [N, K].
    """
    return (TEST_SCALE * cosines(features.float().mean(dim=1), class_embeddings)).softmax(dim=-1)


def bike_probabilities(similarities: Tensor) -> Tensor:
    """Softmax per view without a temperature, mean over views, softmax once more.

    The second softmax is the authors'; it keeps the order of classes and flattens the values.
    Source: BIKE, arXiv 2301.00182 (multi-view testing).

    Args:
        similarities: cosines of videos and classes [N, V, K].

    Returns:
        [N, K].
    """
    return similarities.float().softmax(dim=-1).mean(dim=1).softmax(dim=-1)


def bike_frame_probabilities(features: Tensor, class_embeddings: Tensor) -> Tensor:
    """softmax(100 x t) per frame, mean over frames; frame features are *not* normalised.

    Source: BIKE's zero-shot evaluation on UCF101, HMDB51 and ActivityNet.

    Args:
        features: frame features of the raw vision tower [N, T, D].
        class_embeddings: [K, D], L2-normalised.

    Returns:
        [N, K].
    """
    logits = TEST_SCALE * features.float() @ class_embeddings.float().T  # [N, T, K]
    return logits.softmax(dim=-1).mean(dim=1)


def actionclip_probabilities(features: Tensor, class_embeddings: Tensor) -> Tensor:
    """softmax(100 cos) per template, mean over templates.

    Source: ActionCLIP, arXiv 2109.08472 (testing with 16 templates).

    Args:
        features: video embeddings [N, D].
        class_embeddings: [P, K, D].

    Returns:
        [N, K].
    """
    per_template = [TEST_SCALE * cosines(features, classes) for classes in class_embeddings]
    return torch.stack(per_template).softmax(dim=-1).mean(dim=0)  # [P, N, K] -> [N, K]


def fuse_attributes(video: Tensor, attributes: Tensor, video_weight: float = 0.7) -> Tensor:
    """Weighted sum of the video branch's and the attributes branch's probabilities, both [N, K].

    Source: BIKE, arXiv 2301.00182 (0.7 for the video branch, 0.3 for the attributes).
    """
    return video_weight * video + (1 - video_weight) * attributes

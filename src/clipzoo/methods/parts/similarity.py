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


def scaled_cosines(
    features: Tensor, class_embeddings: Tensor, scale: Tensor | float = TEST_SCALE
) -> Tensor:
    """`scale` times the cosine of every feature with every class, float32 whatever the autocast.

    In half precision a cosine keeps three digits, too few for a scale of 100.

    Args:
        features: [..., D], any norm.
        class_embeddings: [K, D], any norm, or [P, K, D]: the templates' normalised embeddings are
            averaged first (the prompt ensemble of CLIP).
        scale: 100 in testing.

    Returns:
        [..., K] float32 in [-scale, scale].
    """
    classes = functional.normalize(class_embeddings.float(), dim=-1)
    if classes.dim() == 3 and len(classes) > 1:
        classes = functional.normalize(classes.mean(dim=0), dim=-1)  # [P, K, D] -> [K, D]
    elif classes.dim() == 3:
        classes = classes[0]
    with torch.autocast(features.device.type, enabled=False):
        # The scale goes first, as in the authors' code: probabilities then agree to the last digit.
        return scale * functional.normalize(features.float(), dim=-1) @ classes.T


def text4vis_probabilities(features: Tensor, class_embeddings: Tensor) -> Tensor:
    """softmax(100 cos), of the video embedding averaged over views *before* normalisation.

    Source: Text4Vis, arXiv 2207.01297 (multi-view testing).

    Args:
        features: video embeddings [N, V, D] before normalisation.
        class_embeddings: [K, D] or [P, K, D].

    Returns:
        [N, K].
    """
    return scaled_cosines(features.float().mean(dim=1), class_embeddings).softmax(dim=-1)


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
    logits = scaled_cosines(features, class_embeddings.flatten(0, 1))  # [N, P K]
    return logits.unflatten(1, (len(class_embeddings), -1)).softmax(dim=-1).mean(dim=1)


def fuse_attributes(video: Tensor, attributes: Tensor, video_weight: float = 0.7) -> Tensor:
    """Weighted sum of the video branch's and the attributes branch's probabilities, both [N, K].

    Source: BIKE, arXiv 2301.00182 (0.7 for the video branch, 0.3 for the attributes).
    """
    return video_weight * video + (1 - video_weight) * attributes

"""From features to probabilities: how each method fuses views, templates and frames.

Published accuracies depend on where the authors average and where they take a softmax, so there is
one plain function per method. All run on a CPU from saved features. Probabilities are float32, sum
to 1 over classes (as does a weighted mean of them) and are never rescaled.
"""

import torch
from torch import Tensor
from torch.nn import functional

TEST_SCALE = 100.0
"""Scale of cosines in testing; in training it is learned (`logit_scale`)."""


def scaled_cosines(
    features: Tensor, class_embeddings: Tensor, scale: Tensor | float = TEST_SCALE
) -> Tensor:
    """`scale` times the cosine of every feature with every class, in float32 even under autocast.

    In half precision a cosine has three digits, too few for a scale of 100.

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
        classes = classes[0]  # [1, K, D] -> [K, D]
    with torch.autocast(features.device.type, enabled=False):
        # The scale comes first, as in the authors' code, so that probabilities agree to the last
        # digit.
        return scale * functional.normalize(features.float(), dim=-1) @ classes.T  # [..., K]


def text4vis_probabilities(features: Tensor, class_embeddings: Tensor) -> Tensor:
    """softmax(100 cos), of the video embedding averaged over views *before* normalisation.

    Source: Text4Vis, arXiv 2207.01297 (multi-view testing).

    Args:
        features: video embeddings [N, V, D] before normalisation.
        class_embeddings: [K, D] or [P, K, D].

    Returns:
        [N, K].
    """
    videos = features.float().mean(dim=1)  # [N, V, D] -> [N, D]
    return scaled_cosines(videos, class_embeddings).softmax(dim=-1)  # [N, K]


def bike_probabilities(similarities: Tensor) -> Tensor:
    """Softmax per view without a temperature, mean over views, softmax once more.

    The authors' code has the second softmax; it keeps the order of classes and flattens the values.
    Source: BIKE, arXiv 2301.00182 (multi-view testing).

    Args:
        similarities: cosines of videos and classes [N, V, K].

    Returns:
        [N, K].
    """
    per_view = similarities.float().softmax(dim=-1)  # [N, V, K]
    return per_view.mean(dim=1).softmax(dim=-1)  # [N, V, K] -> [N, K]


def bike_frame_probabilities(features: Tensor, class_embeddings: Tensor) -> Tensor:
    """softmax(100 x t) per frame, mean over frames; frame features are *not* normalised.

    Source: BIKE's zero-shot evaluation on UCF101, HMDB51 and ActivityNet.

    Args:
        features: frame features of the raw vision tower [N, T, D].
        class_embeddings: [K, D], L2-normalised.

    Returns:
        [N, K].
    """
    logits = TEST_SCALE * features.float() @ class_embeddings.float().T  # [N, T, D] -> [N, T, K]
    return logits.softmax(dim=-1).mean(dim=1)  # [N, T, K] -> [N, K]


def actionclip_probabilities(features: Tensor, class_embeddings: Tensor) -> Tensor:
    """softmax(100 cos) per template, mean over templates.

    Source: ActionCLIP, arXiv 2109.08472 (testing with 16 templates).

    Args:
        features: video embeddings [N, D].
        class_embeddings: [P, K, D].

    Returns:
        [N, K].
    """
    prompts = class_embeddings.flatten(0, 1)  # [P, K, D] -> [P K, D]
    logits = scaled_cosines(features, prompts)  # [N, P K]
    logits = logits.unflatten(1, (len(class_embeddings), -1))  # [N, P K] -> [N, P, K]
    return logits.softmax(dim=-1).mean(dim=1)  # [N, P, K] -> [N, K]


def fuse_attributes(video: Tensor, attributes: Tensor, video_weight: float = 0.7) -> Tensor:
    """Weighted sum of the video branch's and the attributes branch's probabilities, both [N, K].

    Source: BIKE, arXiv 2301.00182 (0.7 for the video branch, 0.3 for the attributes).
    """
    return video_weight * video + (1 - video_weight) * attributes

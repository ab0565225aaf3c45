"""Training losses."""

from torch import Tensor
from torch.nn import functional


def cosine_cross_entropy(
    features: Tensor, labels: Tensor, class_embeddings: Tensor, logit_scale: Tensor
) -> Tensor:
    """Cross entropy of exp(logit_scale) * cos(video, class): the loss of Text4Vis.

    Source: arXiv 2207.01297, equation 2, with the learned temperature of CLIP.

    Args:
        features: video embeddings [B, D] before normalisation.
        labels: int64 [B].
        class_embeddings: [K, D], L2-normalised.
        logit_scale: log-space parameter, a scalar.

    Returns:
        the mean loss over the batch, a float32 scalar.
    """
    video = functional.normalize(features.float(), dim=-1)
    logits = logit_scale.float().exp() * video @ class_embeddings.float().T  # [B, K]
    return functional.cross_entropy(logits, labels)

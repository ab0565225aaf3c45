"""Training losses over a batch of videos and their texts.

The cross entropy against all classes is `Text4Vis.loss`.
"""

from torch import Tensor
from torch.nn import functional

SAME_CLASS = 10.0
"""Logit, in the softened targets, of a text of the same class as the video."""


def nce_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """InfoNCE in both directions, with all texts of a video's class as its positives.

    Each direction is the mean of all entries of KL(targets || softmax(logits)) times the batch
    size, with targets softmax(10 * same class); the loss is the mean of both. Source: KL loss of
    ActionCLIP (arXiv 2109.08472, equation 5), which Text4Vis and BIKE use.

    Args:
        logits: cosines of video i and text j of the batch times exp(logit_scale), float [B, B].
        labels: class ids, int64 [B].

    Returns:
        a float32 scalar.
    """
    same = (labels[:, None] == labels[None, :]).float()  # [B, 1] == [1, B] -> [B, B]
    targets = (SAME_CLASS * same).softmax(dim=1)  # symmetric, so it serves both directions
    directions = [
        functional.kl_div(rows.float().log_softmax(dim=1), targets, reduction="none").mean()
        for rows in (logits, logits.T)
    ]
    return len(labels) * (directions[0] + directions[1]) / 2

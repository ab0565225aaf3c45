"""Training losses over a batch of videos and their own texts.

The cross entropy against all classes is `Text4Vis.loss`.
"""

from torch import Tensor
from torch.nn import functional

SAME_CLASS = 10.0
"""Logit of a text of the video's own class in the softened targets."""


def nce_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """InfoNCE in both directions, with all texts of a video's class as its positives.

    Each direction is the mean of all entries of KL(targets || softmax(logits)) times the batch
    size, with targets softmax(10 * same class); the loss is the mean of both. Source: KL loss of
    ActionCLIP (arXiv 2109.08472, equation 5), which Text4Vis and BIKE use.

    Args:
        logits: similarity of video i and text j of the batch, [B, B], scaled by exp(logit_scale).
        labels: int64 [B].

    Returns:
        a float32 scalar.
    """
    same = (labels[:, None] == labels[None, :]).float()
    targets = (SAME_CLASS * same).softmax(dim=1)  # symmetric, so it serves both directions
    directions = [
        functional.kl_div(rows.float().log_softmax(dim=1), targets, reduction="none").mean()
        for rows in (logits, logits.T)
    ]
    return len(labels) * (directions[0] + directions[1]) / 2

"""Training losses over a batch of videos and their texts.

The cross entropy against all classes is `Text4Vis.loss`.
"""

import torch
from torch import Tensor
from torch.nn import functional

SAME_CLASS = 10.0
"""Logit, in the softened targets, of a text of the same class as the video."""
DUAL_TEMPERATURE = 1000.0
"""The temperature of the second softmax of `ds_loss`."""


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy with soft targets: the mean over clips of -sum_k targets_k log softmax_k.

    In float32 even under autocast. Of one-hot targets it is the cross entropy of the labels.

    Args:
        logits: float [b, K].
        targets: [b, K] float32, rows sum to 1 (`Batch.targets`).

    Returns:
        a float32 scalar.
    """
    with torch.autocast(logits.device.type, enabled=False):
        return -(targets * logits.float().log_softmax(dim=-1)).sum(dim=-1).mean()  # [b, K] -> [b]


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
    rows = logits.float()
    return _both_directions(rows, rows.T, labels)


def ds_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """`nce_loss` of logits that are weighted by a dual softmax: row i of either direction is
    multiplied by the softmax over all rows of logits / 1000, times the batch size.

    Source: BIKE's code (NCELoss.py, class DS); no published config uses it.
    """
    by_video, by_text = (
        rows * (rows / DUAL_TEMPERATURE).softmax(dim=0) * len(labels)
        for rows in (logits.float(), logits.float().T)
    )
    return _both_directions(by_video, by_text, labels)


def _both_directions(by_video: Tensor, by_text: Tensor, labels: Tensor) -> Tensor:
    """Mean of both directions' losses, of logits [B, B] whose rows are videos, and texts."""
    return (one_direction(by_video, labels) + one_direction(by_text, labels)) / 2


def one_direction(rows: Tensor, labels: Tensor) -> Tensor:
    """The mean of all entries of KL(targets || softmax(row)) times the batch size, a scalar, of
    logits [B, B] and labels [B]."""
    same = (labels[:, None] == labels[None, :]).float()  # [B, 1] == [1, B] -> [B, B]
    targets = (SAME_CLASS * same).softmax(dim=1)  # symmetric, so it serves both directions
    return (
        len(labels) * functional.kl_div(rows.log_softmax(dim=1), targets, reduction="none").mean()
    )

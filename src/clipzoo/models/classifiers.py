"""Classifiers that are not made from class names: the other initializations of the ablation.

Source: Text4Vis, arXiv 2207.01297, section 4 (random, orthogonal, linear discriminant analysis).
All are class embeddings [1, K, D] float32, L2-normalized and frozen, like the text classifier.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from clipzoo.config import ConfigError

SHRINKAGE = 0.1
"""Share of the scaled identity in the within-class covariance of LDA."""


def random_classifier(num_classes: int, dim: int, seed: int, *, orthogonal: bool) -> Tensor:
    """Random class embeddings: independent, or with `orthogonal` at right angles to each other.

    Raises:
        ConfigError: `orthogonal` with K > D.
    """
    if orthogonal and num_classes > dim:
        raise ConfigError(
            f"text.classifier: 'orthogonal' fits at most {dim} classes (embedding size), "
            f"found {num_classes}; use 'random' or 'text'"
        )
    rows = np.random.default_rng(seed).standard_normal((num_classes, dim))  # [K, D]
    if orthogonal:
        rows = np.linalg.qr(rows.T)[0].T  # Q [D, K] -> [K, D]
    return functional.normalize(torch.from_numpy(rows).float(), dim=-1)[None]  # [1, K, D]


def lda_classifier(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Class embeddings from linear discriminant analysis.

    Row k is S^-1 (mean_k - mean): S is the pooled within-class covariance of the L2-normalized
    features, shrunk towards the identity so that it can be inverted with few videos.

    Args:
        features: raw CLIP's video embeddings [N, D] of the training videos, float, any norm.
        labels: int64 [N], in 0 .. K - 1.

    Raises:
        ConfigError: a class has no video.
    """
    rows = functional.normalize(features.double(), dim=-1).numpy()  # [N, D]
    counts = np.bincount(labels.numpy(), minlength=num_classes)
    if (counts == 0).any():
        raise ConfigError(
            f"text.classifier: 'lda' needs a training video of every class; classes without one: "
            f"{np.flatnonzero(counts == 0).tolist()}"
        )
    # K x [D] -> [K, D]
    means = np.stack([rows[labels.numpy() == k].mean(axis=0) for k in range(num_classes)])
    centered = rows - means[labels.numpy()]  # [K, D] -> [N, D]
    within = centered.T @ centered / len(rows)  # [D, D]
    scale = np.trace(within) / len(within)  # the mean variance, so that S keeps its trace
    within = (1 - SHRINKAGE) * within + SHRINKAGE * scale * np.eye(len(within))
    classes = np.linalg.solve(within, (means - rows.mean(axis=0)).T).T  # [D, K] -> [K, D]
    return functional.normalize(torch.from_numpy(classes).float(), dim=-1)[None]  # [1, K, D]

"""Classifiers that do not come from the class names: the other initialisations of the ablation.

Source: Text4Vis, arXiv 2207.01297, section 4 (random, orthogonal, linear discriminant analysis).
All are frozen, as the text classifier is.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from clipzoo.config import ConfigError

SHRINKAGE = 0.1
"""Share of the scaled identity in the within-class covariance of LDA."""


def random_classifier(num_classes: int, dim: int, seed: int, *, orthogonal: bool) -> Tensor:
    """Class embeddings [1, K, D] that know nothing of the names, L2-normalised.

    Args:
        num_classes: K.
        dim: D.
        seed: of the draw.
        orthogonal: rows at right angles to each other (needs K <= D) instead of independent ones.

    Raises:
        ConfigError: more orthogonal rows than dimensions.
    """
    if orthogonal and num_classes > dim:
        raise ConfigError(
            f"text.classifier: 'orthogonal' fits at most {dim} classes (embedding size), "
            f"found {num_classes}; use 'random' or 'text'"
        )
    rows = np.random.default_rng(seed).standard_normal((num_classes, dim))
    if orthogonal:
        rows = np.linalg.qr(rows.T)[0].T
    return functional.normalize(torch.from_numpy(rows).float(), dim=-1)[None]


def lda_classifier(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Class embeddings [1, K, D] by linear discriminant analysis, L2-normalised.

    Row k is S^-1 (mean_k - mean): S is the pooled within-class covariance of the L2-normalised
    features, shrunk towards the identity so that it can be inverted with few videos.

    Args:
        features: raw CLIP's video embeddings [N, D] of the training videos.
        labels: int64 [N].
        num_classes: K.

    Raises:
        ConfigError: a class has no video.
    """
    rows = functional.normalize(features.double(), dim=-1).numpy()
    counts = np.bincount(labels.numpy(), minlength=num_classes)
    if (counts == 0).any():
        raise ConfigError(
            f"text.classifier: 'lda' needs a training video of every class; classes without one: "
            f"{np.flatnonzero(counts == 0).tolist()}"
        )
    means = np.stack([rows[labels.numpy() == k].mean(axis=0) for k in range(num_classes)])
    centred = rows - means[labels.numpy()]
    within = centred.T @ centred / len(rows)
    scale = np.trace(within) / len(within)
    within = (1 - SHRINKAGE) * within + SHRINKAGE * scale * np.eye(len(within))
    classes = np.linalg.solve(within, (means - rows.mean(axis=0)).T).T
    return functional.normalize(torch.from_numpy(classes).float(), dim=-1)[None]

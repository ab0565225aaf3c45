"""Classifiers that do not use the class names."""

import pytest
import torch

from clipzoo.config import ConfigError
from clipzoo.models.classifiers import lda_classifier, random_classifier


@pytest.mark.parametrize("orthogonal", [False, True])
def test_random_classifiers_are_normalized_and_seeded(orthogonal):
    rows = random_classifier(5, 16, 3, orthogonal=orthogonal)
    assert rows.shape == (1, 5, 16)
    torch.testing.assert_close(rows[0].norm(dim=-1), torch.ones(5))
    assert torch.equal(rows, random_classifier(5, 16, 3, orthogonal=orthogonal))
    assert not torch.equal(rows, random_classifier(5, 16, 4, orthogonal=orthogonal))
    gram = rows[0] @ rows[0].T - torch.eye(5)
    if orthogonal:
        assert gram.abs().max() < 1e-6
    else:
        assert gram.abs().max() > 1e-3


def test_more_orthogonal_rows_than_dimensions_are_refused():
    with pytest.raises(ConfigError, match="at most 4 classes"):
        random_classifier(5, 4, 0, orthogonal=True)


def test_lda_separates_what_class_means_do_not():
    """Noise along one direction hides the classes; LDA discounts that direction."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 3
    features = 0.1 * torch.randn(300, 8, generator=generator)
    features[torch.arange(300), labels] += 0.3
    features[:, 7] += 3 * torch.randn(300, generator=generator).abs()
    rows = lda_classifier(features, labels, 3)
    assert rows.shape == (1, 3, 8)
    torch.testing.assert_close(rows.norm(dim=-1), torch.ones(1, 3))
    scores = torch.nn.functional.normalize(features, dim=-1) @ rows[0].T
    means = torch.stack([features[labels == k].mean(dim=0) for k in range(3)])
    plain = torch.nn.functional.normalize(features, dim=-1) @ means.T
    accuracy = [(s.argmax(dim=1) == labels).float().mean().item() for s in (scores, plain)]
    assert accuracy[0] > 0.7
    assert accuracy[0] > accuracy[1] + 0.1


def test_lda_names_classes_without_videos():
    with pytest.raises(ConfigError, match=r"classes without one: \[1\]"):
        lda_classifier(torch.eye(3), torch.tensor([0, 2, 2]), 3)

"""The loss of labels that stand for several classes."""

from __future__ import annotations

import numpy as np
import torch

from alc_backend.segmentation.partial_labels import MergedPositiveLoss

LOGITS = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(1))


def test_single_classes_have_the_loss_of_cross_entropy():
    labels = LABELS.clone()
    labels[0, :2] = 255
    ours = MergedPositiveLoss(np.eye(3, dtype=bool))(LOGITS, labels)
    theirs = torch.nn.functional.cross_entropy(LOGITS, labels, ignore_index=255, reduction="sum")
    torch.testing.assert_close(ours, theirs)


def test_the_probabilities_of_all_classes_of_a_set_are_merged():
    sets = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [1, 1, 1]], dtype=bool)
    probabilities = LOGITS.softmax(dim=1)
    loss = MergedPositiveLoss(sets)
    expected = -(probabilities[:, 0] + probabilities[:, 2]).log().sum()
    torch.testing.assert_close(loss(LOGITS, torch.full_like(LABELS, 3)), expected)
    assert abs(float(loss(LOGITS, torch.full_like(LABELS, 4)))) < 1e-4  # nothing to learn


def test_void_alone_has_no_loss():
    loss = MergedPositiveLoss(np.eye(3, dtype=bool))
    logits = LOGITS.clone().requires_grad_()
    value = loss(logits, torch.full_like(LABELS, 255))
    value.backward()
    assert value.item() == 0
    assert float(logits.grad.abs().sum()) == 0

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_confusion_matrix

from alc_backend.core.metrics import class_iou, confusion_matrix, mean_iou
from alc_backend.core.selection import Scored, ranked, top


def test_confusion_matrix_agrees_with_torchmetrics():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, (40, 50)).astype(np.uint8)
    labels = rng.integers(0, 5, (40, 50)).astype(np.uint8)
    truth[:5] = 255
    expected = multiclass_confusion_matrix(
        torch.from_numpy(labels.astype(np.int64)),
        torch.from_numpy(truth.astype(np.int64)),
        num_classes=5,
        ignore_index=255,
    )
    assert np.array_equal(confusion_matrix(truth, labels, 5)[:, :5], expected.numpy())


def test_mean_iou_by_hand():
    truth = np.array([[0, 0, 1, 1, 255]], dtype=np.uint8)
    labels = np.array([[0, 1, 1, 255, 0]], dtype=np.uint8)
    confusion = confusion_matrix(truth, labels, 3)
    # class 0: 1 hit of union 2; class 1: 1 hit, 1 false, 1 missed (void); class 2 has no truth
    iou = class_iou(confusion)
    assert iou[:2] == pytest.approx([1 / 2, 1 / 3])
    assert np.isnan(iou[2])
    assert mean_iou(confusion) == pytest.approx((1 / 2 + 1 / 3) / 2)


def test_a_class_without_truth_still_costs_the_class_it_covers():
    truth = np.zeros((1, 4), dtype=np.uint8)
    labels = np.array([[0, 0, 0, 2]], dtype=np.uint8)
    assert mean_iou(confusion_matrix(truth, labels, 3)) == pytest.approx(3 / 4)


def test_no_truth_at_all_has_no_mean():
    void = np.full((2, 2), 255, dtype=np.uint8)
    assert np.isnan(mean_iou(confusion_matrix(void, void, 3)))


def test_unknown_class_is_an_error():
    with pytest.raises(ValueError, match="class id 7"):
        confusion_matrix(np.full((1, 1), 7, np.uint8), np.zeros((1, 1), np.uint8), 3)


def test_ranking_breaks_ties_by_image_key_then_superpixel():
    items = [Scored(1.0, "b", 1), Scored(1.0, "a", 10), Scored(2.0, "z", 1), Scored(1.0, "a", 9)]
    order = [(item.key, item.superpixel) for item in ranked(items)]
    assert order == [("z", 1), ("a", 9), ("a", 10), ("b", 1)]
    assert top(items, 2) == ranked(items)[:2]
    with pytest.raises(ValueError, match="budget"):
        top(items, -1)

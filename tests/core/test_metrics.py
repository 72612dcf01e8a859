from __future__ import annotations

import numpy as np
import pytest
import torch

from alc_backend.core.metrics import class_iou, confusion_matrix, mean_iou, selection_counts


def test_confusion_matrix_agrees_with_torchmetrics():
    # imported here: that takes seconds, in each of the processes that collect all tests
    from torchmetrics.functional.classification import (
        multiclass_confusion_matrix,
        multiclass_jaccard_index,
    )

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
    confusion = confusion_matrix(truth, labels, 5)
    assert np.array_equal(confusion[:, :5], expected.numpy())
    iou = multiclass_jaccard_index(
        torch.from_numpy(labels.astype(np.int64)),
        torch.from_numpy(truth.astype(np.int64)),
        num_classes=5,
        ignore_index=255,
        average="none",
    )
    assert class_iou(confusion) == pytest.approx(iou.numpy())
    assert mean_iou(confusion) == pytest.approx(float(iou.mean()))


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


def test_selection_counts_agree_with_torchmetrics():
    from torchmetrics.functional.classification import binary_precision, binary_recall

    rng = np.random.default_rng(0)
    truth, labels = rng.integers(0, 3, (2, 30, 40)).astype(np.uint8)
    selected = rng.random((30, 40)) < 0.3
    counts = selection_counts(selected, labels, truth)
    as_tensors = torch.from_numpy(selected).int(), torch.from_numpy(labels != truth).int()
    assert counts.precision == pytest.approx(float(binary_precision(*as_tensors)))
    assert counts.recall == pytest.approx(float(binary_recall(*as_tensors)))


def test_selection_counts_by_hand():
    truth = np.array([[0, 0, 1, 1, 255, 255]], dtype=np.uint8)
    labels = np.array([[0, 1, 1, 255, 0, 1]], dtype=np.uint8)
    selected = np.array([[True, True, False, False, True, False]])
    counts = selection_counts(selected, labels, truth)
    assert counts == (2, 2, 1)  # the void pixel counts nowhere
    assert (counts.precision, counts.recall) == (0.5, 0.5)
    both = counts.plus(selection_counts(~selected, labels, truth))
    assert (both, both.recall) == ((4, 4, 2), 0.5)


def test_without_a_selection_there_is_no_precision():
    truth = np.zeros((1, 2), dtype=np.uint8)
    counts = selection_counts(np.zeros((1, 2), dtype=bool), truth, truth)
    assert np.isnan(counts.precision)
    assert np.isnan(counts.recall)


def test_a_selection_must_be_a_mask():
    truth = np.zeros((1, 2), dtype=np.uint8)
    with pytest.raises(ValueError, match="selected must be bool"):
        selection_counts(truth, truth, truth)

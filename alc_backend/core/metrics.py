"""The quality of label maps and predictions, measured against ground truth."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alc_backend.core.arrays import VOID, checked_labels


def confusion_matrix(truth: Any, labels: Any, classes: int) -> NDArray[np.int64]:
    """The number of pixels by (ground truth, label), int64 (C, C + 1).

    ``truth`` and ``labels`` are uint8 (H, W). Pixels whose ground truth is 255 (void) do not count;
    the last column counts pixels labelled void, which are wrong whatever their class. Matrices of
    several images can be added. Raises ValueError for differing shapes or class ids of C or more.
    """
    truth = np.asarray(truth)
    if truth.ndim != 2:
        raise ValueError(f"truth must have shape (H, W), not {truth.shape}")
    truth = checked_labels(truth, truth.shape, classes)
    labels = checked_labels(labels, truth.shape, classes)
    counted = truth != VOID
    columns = np.where(labels == VOID, classes, labels).astype(np.int64)
    cells = truth[counted].astype(np.int64) * (classes + 1) + columns[counted]
    return np.bincount(cells, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


def class_iou(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """The IoU of each class, float64 (C,); NaN for classes that ground truth lacks."""
    classes = confusion.shape[0]
    hit = np.diagonal(confusion[:, :classes]).astype(np.float64)
    in_truth = confusion.sum(axis=1)
    union = in_truth + confusion[:, :classes].sum(axis=0) - hit
    return np.where(in_truth > 0, hit / np.maximum(union, 1), np.nan)


def mean_iou(confusion: NDArray[np.int64]) -> float:
    """The mean IoU over the classes that occur in ground truth; NaN when there are none."""
    iou = class_iou(confusion)
    present = iou[~np.isnan(iou)]
    return float(present.mean()) if len(present) else float("nan")


def known(value: float) -> float | None:
    """``value``, or None for NaN, which neither JSON nor databases can store."""
    return None if math.isnan(value) else value


class SelectionCounts(NamedTuple):
    """The numbers of selected pixels S, of wrong pixels W, and of both (S ∩ W)."""

    selected: int
    wrong: int
    both: int

    @property
    def precision(self) -> float:
        """|S ∩ W| / |S|; NaN when nothing is selected."""
        return self.both / self.selected if self.selected else float("nan")

    @property
    def recall(self) -> float:
        """|S ∩ W| / |W|; NaN when nothing is wrong."""
        return self.both / self.wrong if self.wrong else float("nan")

    def plus(self, other: SelectionCounts) -> SelectionCounts:
        """The sums of these counts and ``other``, those of another image."""
        return SelectionCounts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


def selection_counts(selected: Any, labels: Any, truth: Any) -> SelectionCounts:
    """How well a selection finds wrong labels: S = ``selected``, W = pixels of ``labels`` in error.

    ``selected`` bool (H, W) are the expanded pixels of the queried superpixels, ``labels`` uint8
    (H, W) the label map before the answers, ``truth`` uint8 (H, W). Pixels whose ground truth is
    void count nowhere; a pixel labelled void is wrong. Raises ValueError for another dtype or
    differing shapes.
    """
    selected = np.asarray(selected)
    if selected.dtype != np.bool_ or selected.ndim != 2:
        raise ValueError(
            f"selected must be bool (H, W), not {selected.dtype} of shape {selected.shape}"
        )
    labels = checked_labels(labels, selected.shape)
    truth = checked_labels(truth, selected.shape)
    known = truth != VOID
    wrong = known & (labels != truth)
    return SelectionCounts(
        selected=int(np.count_nonzero(selected & known)),
        wrong=int(np.count_nonzero(wrong)),
        both=int(np.count_nonzero(selected & wrong)),
    )

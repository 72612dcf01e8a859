"""The diversified pixel pool: one representative pixel per superpixel (paper, eqs. 3-6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alc_backend.core.arrays import checked_probabilities, checked_superpixels, segments
from alc_backend.core.similarity import cosines


@dataclass(frozen=True)
class Pool:
    """One entry per superpixel of an image, ids ascending; every array has shape (N,).

    ``ids`` int32 superpixel ids; ``rows``, ``cols`` of the representative pixels; ``dominant``
    class ids D(s), eq. 5; ``sizes`` in pixels.
    """

    ids: NDArray[np.int32]
    rows: NDArray[np.intp]
    cols: NDArray[np.intp]
    dominant: NDArray[np.intp]
    sizes: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.ids)


def representative_pixels(probabilities: Any, superpixels: Any) -> Pool:
    """Choose the representative pixel of every superpixel (eqs. 3-6).

    ``probabilities`` float32 (C, H, W), softmax over C; ``superpixels`` int32 (H, W), 0 = not
    queryable. The dominant class is the mode of the pixels' predicted classes (a tie goes to the
    lowest id); the representative pixel is the one, among those predicted as the dominant class,
    whose prediction has the largest cosine with their mean (a tie goes to the first in raster
    order). Raises ValueError naming the argument when an array does not meet this.
    """
    probabilities = checked_probabilities(probabilities)
    classes, height, width = probabilities.shape
    superpixels = checked_superpixels(superpixels, (height, width))
    groups = segments(superpixels)
    count = len(groups.ids)
    if count == 0:
        empty = np.zeros(0, dtype=np.intp)
        return Pool(groups.ids, empty, empty, empty, empty)

    predictions = probabilities.reshape(classes, -1)[:, groups.pixels]
    predicted = predictions.argmax(axis=0)
    votes = np.bincount(groups.group * classes + predicted, minlength=count * classes)
    dominant = votes.reshape(count, classes).argmax(axis=1)

    agrees = predicted == dominant[groups.group]
    means: NDArray[np.float64] = np.stack(
        [np.bincount(groups.group, weights=row * agrees, minlength=count) for row in predictions]
    )
    means /= np.bincount(groups.group, weights=agrees, minlength=count)

    similarity = np.where(agrees, cosines(predictions, means, groups.group), -1.0)
    best = np.maximum.reduceat(similarity, groups.starts)
    candidates = np.flatnonzero(similarity == best[groups.group])
    _, first = np.unique(groups.group[candidates], return_index=True)
    rows, cols = np.divmod(groups.pixels[candidates[first]], width)
    return Pool(groups.ids, rows, cols, dominant, groups.sizes)

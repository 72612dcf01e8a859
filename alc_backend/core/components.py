"""Connected components of label maps, and how well a prediction matches each (for AIoU)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def components(classes: NDArray[np.uint8]) -> NDArray[np.intp]:
    """The index of each pixel's 8-connected component of equal class, intp (H, W), from 0.

    ``classes`` is uint8 (H, W); void pixels (255) belong to no component and get -1.
    """
    from cc3d import connected_components

    if classes.size == 0:
        return np.zeros(classes.shape, dtype=np.intp)
    numbered = connected_components(
        classes + np.uint8(1), connectivity=8
    )  # void becomes 0, cc3d's background
    return np.asarray(numbered, dtype=np.intp) - 1


def adjusted_iou(given: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The adjusted IoU of the component of ``given`` that each pixel belongs to, float64 (H, W).

    ``given`` and ``predicted``: class ids (H, W). For a component k of ``given`` let K be the
    union of the components of ``predicted`` that have k's class and share a pixel with it. The
    adjusted IoU is |k ∩ K| / |k ∪ K|, where pixels of K inside other components of ``given`` of the
    same class do not count, since those components account for them (Rottmann & Reese 2023).
    """
    parts, found = components(given).ravel(), components(predicted).ravel()
    agrees = (given == predicted).ravel()
    missed, shared = _counts(parts, agrees)
    spare, _ = _counts(found, agrees)  # pixels of the match that are not labelled with its class
    part, match = _pairs(parts, found, agrees)
    union = missed + shared + np.bincount(part, weights=spare[match], minlength=len(shared))
    iou: NDArray[np.float64] = (shared / union)[parts]
    return iou.reshape(given.shape)


def _counts(numbered: NDArray[np.intp], flag: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The number of pixels of each component without and with the flag, (2, M)."""
    last = int(numbered.max(initial=-1))
    return np.bincount(2 * numbered + flag, minlength=2 * last + 2).reshape(-1, 2).T


def _pairs(
    parts: NDArray[np.intp], found: NDArray[np.intp], where: NDArray[np.bool_]
) -> NDArray[np.intp]:
    """The distinct pairs (part, found) of the pixels selected by ``where``, (2, M)."""
    count = int(found.max(initial=0)) + 1
    keys = parts * count + found
    first = where.copy()
    first[1:] &= (keys[1:] != keys[:-1]) | ~where[:-1]  # most pixels repeat their neighbour's pair
    return np.stack(np.divmod(np.unique(keys[first]), count))

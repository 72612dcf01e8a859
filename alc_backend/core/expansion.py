"""Which pixels an answer reaches: the superpixel, or its part similar to the asked pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from alc_backend.core.arrays import checked_probabilities, checked_superpixels, segments
from alc_backend.core.pool import Pool
from alc_backend.core.similarity import cosines


def checked_epsilon(epsilon: float) -> float:
    """Return ``epsilon``; ValueError unless 0 <= epsilon <= 1."""
    if not 0.0 <= epsilon <= 1.0:
        raise ValueError(f"epsilon must lie in [0, 1], not {epsilon!r}")
    return float(epsilon)


def expand(
    probabilities: Any,
    superpixels: Any,
    superpixel_id: int,
    row: int,
    col: int,
    epsilon: float = 0.0,
) -> NDArray[np.bool_]:
    """The pixels s(x_r, ε) that an answer about pixel (row, col) is written to (eq. 12).

    ``probabilities`` float32 (C, H, W); ``superpixels`` int32 (H, W). Returns bool (H, W): pixels
    of superpixel ``superpixel_id`` whose prediction has a cosine of at least ``epsilon`` with the
    one at (row, col); that pixel always belongs. Raises ValueError when it lies outside the
    superpixel, or naming the array that does not fit.
    """
    epsilon = checked_epsilon(epsilon)
    probabilities = checked_probabilities(probabilities)
    _, height, width = probabilities.shape
    superpixels = checked_superpixels(superpixels, (height, width))
    inside: NDArray[np.bool_] = superpixels == superpixel_id
    if not (superpixel_id > 0 and 0 <= row < height and 0 <= col < width) or not inside[row, col]:
        raise ValueError(f"pixel (row {row}, col {col}) is not in superpixel {superpixel_id}")
    if epsilon == 0.0:
        return inside
    reached = np.zeros((height, width), dtype=np.bool_)
    predictions = probabilities[:, inside]
    reference = probabilities[:, row, col].astype(np.float64)[:, None]
    alone = np.zeros(predictions.shape[1], dtype=np.intp)
    reached[inside] = cosines(predictions, reference, alone) >= epsilon
    reached[row, col] = True
    return reached


def expand_all(
    probabilities: Any, superpixels: Any, pool: Pool, epsilon: float
) -> NDArray[np.bool_]:
    """The union over all superpixels of ``expand`` at their representative pixels, bool (H, W).

    Superpixels do not overlap, so ``expand_all(...) & (superpixels == id)`` is ``expand`` of that
    id: one picture keeps every possible expansion of a round.
    """
    epsilon = checked_epsilon(epsilon)
    probabilities = checked_probabilities(probabilities)
    classes, height, width = probabilities.shape
    superpixels = checked_superpixels(superpixels, (height, width))
    if epsilon == 0.0:
        queryable: NDArray[np.bool_] = superpixels > 0
        return queryable
    groups = segments(superpixels)
    predictions = probabilities.reshape(classes, -1)[:, groups.pixels]
    references = probabilities[:, pool.rows, pool.cols].astype(np.float64)
    reached = np.zeros(height * width, dtype=np.bool_)
    reached[groups.pixels] = cosines(predictions, references, groups.group) >= epsilon
    reached = reached.reshape(height, width)
    reached[pool.rows, pool.cols] = True
    return reached

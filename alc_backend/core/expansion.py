"""The pixels that an answer is written to: a superpixel, or its part like the queried pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alc_backend.core.pool import Pool
from alc_backend.core.statistics import ImageStatistics


def checked_epsilon(epsilon: float) -> float:
    """``epsilon`` as a float; ValueError unless 0 <= epsilon <= 1."""
    if not 0.0 <= epsilon <= 1.0:
        raise ValueError(f"epsilon must lie in [0, 1], not {epsilon!r}")
    return float(epsilon)


def reach(
    image: ImageStatistics,
    pixels: NDArray[np.intp],
    members: NDArray[np.intp],
    epsilon: float,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Cosines with the queried pixels, float64 (P,), and the pixels s(x_r, ε), bool (P,) (eq. 12).

    ``pixels`` (M,) are flat indices of the queried pixels, at most one in each superpixel;
    ``members`` (M,) are the indices of their superpixels in ``image.ids``. A pixel belongs to
    s(x_r, ε) when its cosine with the queried pixel of its superpixel is at least ``epsilon``; the
    queried pixel always does. Cosines in superpixels without a query are meaningless.
    """
    references = np.zeros(len(image), dtype=np.intp)
    references[members] = pixels
    similarity = image.similarities(references)
    asked = np.zeros(len(image) + 1, dtype=np.bool_)
    asked[members + 1] = True
    reached = (similarity >= epsilon) & asked[image.index]
    reached[pixels] = True
    return similarity, reached


def expand(
    image: ImageStatistics, superpixel_id: int, row: int, col: int, epsilon: float = 0.0
) -> NDArray[np.bool_]:
    """The pixels s(x_r, ε) that an answer about pixel (row, col) is written to (eq. 12).

    Returns bool (H, W): the pixels of superpixel ``superpixel_id`` whose prediction has a cosine of
    at least ``epsilon`` with that of the pixel, and the pixel itself. Raises ValueError when the
    pixel lies outside the superpixel, or for an ``epsilon`` outside [0, 1].
    """
    epsilon = checked_epsilon(epsilon)
    height, width = image.shape
    inside = 0 <= row < height and 0 <= col < width
    member = int(image.index[row * width + col]) - 1 if inside else -1
    if member < 0 or image.ids[member] != superpixel_id:
        raise ValueError(f"pixel (row {row}, col {col}) is not in superpixel {superpixel_id}")
    if epsilon == 0.0:
        superpixel: NDArray[np.bool_] = image.index == member + 1
        return superpixel.reshape(image.shape)
    asked = np.array([row * width + col])
    return reach(image, asked, np.array([member]), epsilon)[1].reshape(image.shape)


def expand_all(image: ImageStatistics, pool: Pool, epsilon: float) -> NDArray[np.bool_]:
    """The union of the expansions of all candidates of a pool, bool (H, W).

    Superpixels do not overlap, so ``expand_all(...) & (superpixels == id)`` is the expansion of
    that superpixel: one array stores every expansion that a round may need.
    """
    epsilon = checked_epsilon(epsilon)
    pixels = pool.rows * image.shape[1] + pool.cols
    if epsilon == 0.0:
        asked = np.zeros(len(image) + 1, dtype=np.bool_)
        asked[pool.members + 1] = True
        return asked[image.index].reshape(image.shape)
    union = np.zeros(len(image.index), dtype=np.bool_)
    for part in pool.layers():
        union |= reach(image, pixels[part], pool.members[part], epsilon)[1]
    return union.reshape(image.shape)

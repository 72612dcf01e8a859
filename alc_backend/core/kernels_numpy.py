"""The kernels in plain NumPy.

In every function ``probabilities`` is float32 (C, P), the pixels of an image in raster order;
``index`` int32 (P,) names each pixel's superpixel, 1..N, 0 = in none; tables by superpixel have
N + 1 rows, row 0 for the pixels in none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from alc_backend.core.arrays import TOLERANCE, VOID


def survey(
    probabilities: NDArray[np.float32],
    labels: NDArray[np.uint8],
    index: NDArray[np.int32],
    predicted: NDArray[np.uint8],
    confidence: NDArray[np.float32],
    squares: NDArray[np.float64],
    votes: NDArray[np.int32],
) -> int:
    """Look at every pixel once; returns how many are not a probability distribution.

    Fills, for every pixel, ``predicted`` ŷ (the first of equals), ``confidence`` f(y; x), 1 at
    most, with void labels replaced by ŷ, ``squares`` ‖f‖²; and adds to ``votes`` (N + 1, C) how
    many pixels of a superpixel each class has.
    """
    best, predicted[:] = probabilities[0].copy(), 0
    lowest, total = best.copy(), best.copy()
    squares[:] = best.astype(np.float64) ** 2
    for number, row in enumerate(probabilities[1:], start=1):
        total += row
        np.minimum(lowest, row, out=lowest)
        predicted[row > best] = number
        np.maximum(best, row, out=best)
        squares += row.astype(np.float64) ** 2
    given = np.where(labels == VOID, predicted, labels)
    np.minimum(probabilities[given, np.arange(len(given))], np.float32(1), out=confidence)
    np.add.at(votes, (index, predicted), 1)
    sound = (np.abs(total - np.float32(1)) <= TOLERANCE) & (lowest >= 0)
    return int(np.count_nonzero(~sound))


def rivalry(
    probabilities: NDArray[np.float32], predicted: NDArray[np.uint8], out: NDArray[np.float64]
) -> None:
    """Fill ``out`` (P,) with the second largest probability over the largest."""
    best, second = np.zeros((2, len(out)), dtype=np.float32)
    for number, row in enumerate(probabilities):
        wins = predicted == number
        best[wins] = row[wins]
        np.maximum(second, np.where(wins, np.float32(0), row), out=second)
    np.divide(second, best, out=out, dtype=np.float64)


def totals(index: NDArray[np.int32], values: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    """Fill ``out`` (N + 1,) with the sums of ``values`` (P,) by superpixel."""
    out[:] = np.bincount(index, weights=values, minlength=len(out))


def sums(
    probabilities: NDArray[np.float32],
    index: NDArray[np.int32],
    predicted: NDArray[np.uint8],
    dominant: NDArray[np.uint8],
    confidence: NDArray[np.float32],
    squares: NDArray[np.float64],
    pull: NDArray[np.float64],
    total: NDArray[np.float64],
) -> None:
    """Add Σ f/‖f‖·(1 - f(y)) over s to ``pull`` (N + 1, C), and Σ f over s' to ``total`` (eq. 6).

    Row 0 of both stays as it is.
    """
    weights = (1.0 - confidence.astype(np.float64)) / np.sqrt(squares)
    agrees = (predicted == dominant[index]).astype(np.float64)
    for number, row in enumerate(probabilities):
        values = row.astype(np.float64)
        for table, weighted in ((pull, values * weights), (total, values * agrees)):
            table[1:, number] += np.bincount(index, weights=weighted, minlength=len(table))[1:]


def dots(
    probabilities: NDArray[np.float32],
    index: NDArray[np.int32],
    references: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Fill ``out`` (P,) with f · the superpixel's row of ``references`` (N + 1, C); 0 in none."""
    out[:] = 0.0
    for number, row in enumerate(probabilities):
        out += row.astype(np.float64) * references[index, number]
    out[index == 0] = 0.0


def representatives(
    probabilities: NDArray[np.float32],
    index: NDArray[np.int32],
    predicted: NDArray[np.uint8],
    dominant: NDArray[np.uint8],
    squares: NDArray[np.float64],
    means: NDArray[np.float64],
    out: NDArray[np.intp],
) -> None:
    """Fill ``out`` (N + 1,) with the pixel of s' closest to its mean, the first of equals (eq. 4).

    ``means`` (N + 1, C) of s'.
    """
    products = np.empty(len(index))
    dots(probabilities, index, means, products)
    mean_squares = np.zeros(len(means))
    for column in means.T:
        mean_squares += column * column
    members: NDArray[Any] = np.flatnonzero((index > 0) & (predicted == dominant[index]))
    group = index[members]
    cosine = np.minimum(products[members] / np.sqrt(mean_squares[group] * squares[members]), 1.0)
    best = np.full(len(out), -1.0)
    np.maximum.at(best, group, cosine)
    closest = members[cosine == best[group]][::-1]
    out[index[closest]] = closest

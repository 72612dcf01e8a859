"""The kernels in plain NumPy, which also document the compiled ones.

``probabilities`` is float32 (C, P), the pixels of an image in raster order; ``index`` int32 (P,) is
each pixel's superpixel, 1..N, 0 = in none; tables by superpixel have N + 1 rows, row 0 for the
pixels in none. Results are written into the caller's arrays.
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
    self_confidence: NDArray[np.float32],
    squares: NDArray[np.float64],
    votes: NDArray[np.int32],
) -> int:
    """The number of pixels whose values are not a probability distribution; fills the statistics.

    Fills for every pixel ``predicted`` ŷ (of equals the lowest class), ``self_confidence`` (capped
    at 1, void labels replaced by ŷ) and ``squares`` ‖f‖²; adds to ``votes`` (N + 1, C) the number
    of pixels of each superpixel that are predicted as each class.
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
    np.minimum(probabilities[given, np.arange(len(given))], np.float32(1), out=self_confidence)
    np.add.at(votes, (index, predicted), 1)
    sound = (np.abs(total - np.float32(1)) <= TOLERANCE) & (lowest >= 0)
    return int(np.count_nonzero(~sound))


def rivalry(
    probabilities: NDArray[np.float32], predicted: NDArray[np.uint8], out: NDArray[np.float64]
) -> None:
    """Fill ``out`` (P,) with the second largest probability divided by the largest."""
    best, second = np.zeros((2, len(out)), dtype=np.float32)
    for number, row in enumerate(probabilities):
        wins = predicted == number
        best[wins] = row[wins]
        np.maximum(second, np.where(wins, np.float32(0), row), out=second)
    np.divide(second, best, out=out, dtype=np.float64)


def totals(index: NDArray[np.int32], values: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    """Fill ``out`` (N + 1,) with the sums of ``values`` (P,) by superpixel."""
    out[:] = np.bincount(index, weights=values, minlength=len(out))


def class_totals(
    probabilities: NDArray[np.float32], index: NDArray[np.int32], out: NDArray[np.float64]
) -> None:
    """Fill ``out`` (N + 1, C) with the sums of ``probabilities`` (C, P) by superpixel."""
    for number, row in enumerate(probabilities):
        out[:, number] = np.bincount(index, weights=row, minlength=len(out))


def rounder_for(pixels: int) -> float:
    """What :func:`exact` needs to round terms of at most 1, one for each of so many pixels."""
    return 1.5 * 2.0 ** max(pixels - 1, 1).bit_length()


def exact(terms: NDArray[np.float64], rounder: float) -> NDArray[np.float64]:
    """The ``terms`` rounded so that they add up without any error, in whatever order.

    A float64 has 53 bits. Near ``rounder``, one and a half times 2^L, its last bit is worth
    2^(L - 52), so that adding ``rounder`` rounds a term to a multiple of that. As long as a sum of
    such terms stays below 2^(L + 1), it is one as well, and no addition rounds. For an image of
    375 × 500 pixels the terms are rounded to 2^-34.
    """
    return (terms + rounder) - rounder


def sums(
    probabilities: NDArray[np.float32],
    index: NDArray[np.int32],
    predicted: NDArray[np.uint8],
    dominant: NDArray[np.uint8],
    self_confidence: NDArray[np.float32],
    squares: NDArray[np.float64],
    rounder: float,
    pull: NDArray[np.float64],
    total: NDArray[np.float64],
) -> None:
    """Add Σ doubt·f/‖f‖ over s to ``pull`` and Σ f over s' to ``total``, both (N + 1, C) (eq. 6).

    s' are the pixels of s that are predicted as its dominant class. Row 0 of both is unchanged.
    Terms are rounded by :func:`exact` with ``rounder``, so that their order does not matter.
    """
    weights = (1.0 - self_confidence.astype(np.float64)) / np.sqrt(squares)
    agrees = (predicted == dominant[index]).astype(np.float64)
    for number, row in enumerate(probabilities):
        values = row.astype(np.float64)
        for table, weighted in ((pull, values * weights), (total, values * agrees)):
            terms = exact(weighted, rounder)
            table[1:, number] += np.bincount(index, weights=terms, minlength=len(table))[1:]


def dots(
    probabilities: NDArray[np.float32],
    index: NDArray[np.int32],
    references: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Fill ``out`` (P,) with f · the row of ``references`` (N + 1, C) of the pixel's superpixel.

    Pixels that are in no superpixel get 0.
    """
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
    """Fill ``out`` (N + 1,) with the index of the representative pixel of each superpixel (eq. 4).

    That is the pixel of s' whose prediction has the largest cosine with ``means`` (N + 1, C), the
    mean over s'; of equals the first.
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


def gains(
    queue: NDArray[np.int64],
    end: NDArray[np.int64],
    wrong: NDArray[np.float64],
    union: NDArray[np.float64],
    pixel: float,
    order: NDArray[np.int64],
) -> None:
    """Fills ``order`` (M,) with the superpixels in which ``default`` takes them.

    ``queue`` (M,) has the superpixels of each pair of classes, the label y and the dominant class
    D, one pair after the other and each in descending order of its ``wrong`` pixels (M,); ``end``
    (C, C) is where the queue of a pair ends. ``union`` (C,) is U(c), which is changed here, and
    ``pixel`` what a pixel put right is worth beside that. Of equal gains the lower index is taken.

    Superpixels with the same two classes never overtake each other: only the first one of each
    pair can be the best. A union that shrinks changes the gains of one row and one column of the
    pairs, so that the work for each superpixel grows with the number of classes, not with that of
    pairs.
    """
    best = _Best(queue, end, wrong, union, pixel)
    for step in range(len(order)):
        order[step] = best.take()


class _Best:
    """The superpixels of :func:`gains`, of which one after the other is taken."""

    def __init__(
        self,
        queue: NDArray[np.int64],
        end: NDArray[np.int64],
        wrong: NDArray[np.float64],
        union: NDArray[np.float64],
        pixel: float,
    ) -> None:
        classes = len(union)
        self._queue, self._end, self._wrong = queue, end, wrong
        self._union, self._worth, self._pixel = union, 1 / union, pixel
        self._next = np.concatenate(([0], end.reshape(-1)[:-1])).reshape(classes, classes)
        # of each pair, the superpixel that comes first and its wrong pixels; no pixels at the end
        self._first = np.full((classes, classes), len(wrong))
        self._waiting = np.zeros((classes, classes))
        for row, column in zip(*np.nonzero(self._next < end), strict=True):
            self._advance(row, column)
        # of each row, the greatest gain, and the column and the superpixel that have it
        self._gain = np.zeros(classes)
        self._column = np.zeros(classes, dtype=np.intp)
        self._candidate = np.full(classes, len(wrong))
        for row in range(classes):
            self._compare_row(row, self._worths(row))

    def take(self) -> int:
        """The index of the best superpixel, the first one of equals, which is then gone."""
        row = self._first_of_best(self._gain, self._candidate)
        column, taken = int(self._column[row]), int(self._candidate[row])
        self._union[row] = max(self._union[row] - self._waiting[row, column], 1.0)
        self._worth[row] = 1 / self._union[row]
        self._advance(row, column)
        worths = self._worths(row)
        self._compare_row(row, worths)
        self._compare_column(row, worths)
        return taken

    def _worths(self, class_id: int) -> NDArray[np.float64]:
        """What a pixel put right is worth, (C,), by the other class of the pair."""
        others: NDArray[np.float64] = self._worth + self._worth[class_id]
        others[class_id] = self._worth[class_id]
        others += self._pixel
        return others

    def _advance(self, row: int, column: int) -> None:
        """Let the next superpixel of a pair be its first one."""
        position = self._next[row, column]
        if position < self._end[row, column]:
            self._first[row, column] = self._queue[position]
            self._waiting[row, column] = self._wrong[self._queue[position]]
            self._next[row, column] += 1
        else:
            self._first[row, column], self._waiting[row, column] = len(self._wrong), 0.0

    def _compare_row(self, row: int, worths: NDArray[np.float64]) -> None:
        found = self._waiting[row] * worths
        column = self._first_of_best(found, self._first[row])
        self._column[row], self._gain[row] = column, found[column]
        self._candidate[row] = self._first[row, column]

    def _compare_column(self, column: int, worths: NDArray[np.float64]) -> None:
        """Take up what the pairs in a column have gained: unions shrink, so gains only grow."""
        found = self._waiting[:, column] * worths
        for row in (found >= self._gain).nonzero()[0]:
            candidate = self._first[row, column]
            if found[row] > self._gain[row] or candidate < self._candidate[row]:
                self._gain[row], self._candidate[row] = found[row], candidate
                self._column[row] = column

    @staticmethod
    def _first_of_best(found: NDArray[np.float64], first: NDArray[np.int64]) -> int:
        """The index of the greatest gain; of equals, the one whose superpixel comes first."""
        best = (found == found[found.argmax()]).nonzero()[0]
        return int(best[0] if len(best) == 1 else best[first[best].argmin()])

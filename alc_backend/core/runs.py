"""Runs: the stretches of equal values of a map in raster order, found in one pass over it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from alc_backend.core.arrays import strips


def runs(
    shape: tuple[int, int], read: Callable[[slice], NDArray[np.integer]], most: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Where the runs of a map (H, W) begin, int64 (R,) flat indices, and their values, int64 (R,).

    ``read`` is called with some rows of the map after the others and returns their values, so that
    the map need not exist as a whole. Two runs beside each other have different values. Returns
    None where there are more than ``most`` runs, as soon as that is known.
    """
    count = 0
    begins: list[NDArray[np.int64]] = []
    values: list[NDArray[np.int64]] = []
    last: int | None = None
    for rows in strips(shape):
        strip = read(rows).ravel()
        if not strip.size:
            continue
        changes = np.flatnonzero(strip[1:] != strip[:-1]) + 1
        if strip[0] != last:
            changes = np.concatenate([[0], changes])
        begins.append(changes + rows.start * shape[1])
        values.append(strip[changes].astype(np.int64))
        last = int(strip[-1])
        count += len(changes)
        if most is not None and count > most:
            return None
    empty = np.empty(0, dtype=np.int64)
    return np.concatenate([empty, *begins]), np.concatenate([empty, *values])


class SuperpixelRuns:
    """Where the pixels of each superpixel of a map lie.

    Making it takes one pass over the map; asking for a superpixel then takes no more than its own
    pixels do, however many superpixels are asked for.
    """

    def __init__(self, superpixels: NDArray[np.int32]) -> None:
        found = runs((superpixels.shape[0], superpixels.shape[1]), lambda rows: superpixels[rows])
        assert found is not None  # any number of runs is welcome
        begins, numbers = found
        self._width = superpixels.shape[1]
        order = np.argsort(numbers, kind="stable")
        self._numbers = numbers[order]
        self._begins = begins[order]
        self._lengths = np.diff(begins, append=superpixels.size)[order]

    def part(self, number: int) -> tuple[NDArray[np.bool_], int, int]:
        """A superpixel as a mask, bool (h, w), of its box, with the box's first row and column.

        The mask is empty, and the box at the corner, where there is no such superpixel.
        """
        rows, cols = np.divmod(self.pixels(number), self._width)
        if not rows.size:
            return np.zeros((0, 0), dtype=np.bool_), 0, 0
        top, left = int(rows[0]), int(cols.min())
        mask = np.zeros((int(rows[-1]) - top + 1, int(cols.max()) - left + 1), dtype=np.bool_)
        mask[rows - top, cols - left] = True
        return mask, top, left

    def pixels(self, number: int) -> NDArray[np.int64]:
        """The flat indices of a superpixel's pixels, int64 (P,), ascending; P = 0 without any."""
        first, end = np.searchsorted(self._numbers, [number, number + 1])
        lengths = self._lengths[first:end]
        before = np.cumsum(lengths) - lengths
        pixels: NDArray[np.int64] = np.arange(lengths.sum())
        pixels += np.repeat(self._begins[first:end] - before, lengths)
        return pixels

"""A label map with superpixels as a list of segments, one per superpixel and class in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alc_backend.core.arrays import VOID


@dataclass(frozen=True)
class Segment:
    """The pixels of one class in one superpixel (0: outside all superpixels).

    ``id`` counts from 1 in each image, by superpixel, then class; ``area`` is in pixels; ``box`` is
    (x, y, width, height) in pixels.
    """

    id: int
    superpixel: int
    class_id: int
    area: int
    box: tuple[int, int, int, int]


def segments(
    labels: NDArray[np.uint8], superpixels: NDArray[np.int32]
) -> tuple[NDArray[np.int32], list[Segment]]:
    """The segment id of each pixel, int32 (H, W), 0 = void, and the segments.

    ``labels`` is uint8 (H, W), 255 = void, which belongs to no segment; ``superpixels`` is int32
    (H, W).
    """
    codes = np.where(labels == VOID, -1, superpixels.astype(np.int64) * 256 + labels)
    begins_run = np.ones(codes.shape, dtype=np.bool_)  # a run is a part of one row
    begins_run[:, 1:] = codes[:, 1:] != codes[:, :-1]
    rows, left = np.nonzero(begins_run)
    lengths = np.diff(np.flatnonzero(begins_run), append=codes.size)
    found, runs = np.unique(codes[rows, left], return_inverse=True)
    runs = runs.reshape(-1)
    if found[0] < 0:
        found = found[1:]
    else:
        runs += 1
    index = np.repeat(runs, lengths).reshape(codes.shape).astype(np.int32)
    order = np.argsort(runs, kind="stable")
    firsts = np.searchsorted(runs[order], np.arange(1, len(found) + 1))
    if not len(found):
        return index, []

    def over_runs(reduce: np.ufunc, values: NDArray[np.intp]) -> list[int]:
        reduced: list[int] = reduce.reduceat(values[order], firsts).tolist()
        return reduced

    areas = over_runs(np.add, lengths)
    top, bottom = over_runs(np.minimum, rows), over_runs(np.maximum, rows)
    west, east = over_runs(np.minimum, left), over_runs(np.maximum, left + lengths)
    return index, [
        Segment(
            id=n + 1,
            superpixel=code // 256,
            class_id=code % 256,
            area=areas[n],
            box=(west[n], top[n], east[n] - west[n], bottom[n] - top[n] + 1),
        )
        for n, code in enumerate(found.tolist())
    ]

"""The outlines of masks: closed polygons along the borders of pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ring = NDArray[np.float64]
"""Corners (N, 2), x and y in pixels, of a closed polygon; the last is not the first again."""

_WAYS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])
"""Right, down, left and up as steps (x, y); the next one is a turn to the right."""


def outlines(
    mask: NDArray[np.bool_], *, centres: bool = False, tolerance: float = 0.0
) -> list[Ring]:
    """One polygon for each part of a mask, bool (H, W), that hangs together along pixels' sides.

    Corners lie on the corners of pixels; with ``centres``, in the middle of the outermost pixels,
    as programs expect that paint a polygon together with its border. An outline runs into each hole
    and back on one line, and around it the other way, so that the hole is outside by every rule.
    With a ``tolerance``, in pixels, corners are left out as long as the outline moves no further;
    a border of which too little would remain keeps them all.
    """
    import cc3d

    found: list[Ring] = []
    if not mask.any():
        return found
    parts = cc3d.connected_components(mask.astype(np.uint8), connectivity=4)
    boxes = cc3d.statistics(parts)["bounding_boxes"]
    for number, (rows, cols) in enumerate(boxes[1:], start=1):
        borders = rings(parts[rows, cols] == number, centres=centres)
        if tolerance:
            borders = [_simpler(border, tolerance) for border in borders]
        found.append(_joined(borders) + np.array([cols.start, rows.start]))
    return found


def rings(mask: NDArray[np.bool_], *, centres: bool = False) -> list[Ring]:
    """The closed borders of a mask, bool (H, W), which they have on their right.

    Outer borders go clockwise (y points down), those of holes the other way. There is a corner
    where the border turns, nowhere else; ``centres`` as in :func:`outlines`.
    """
    height, width = mask.shape[0] + 1, mask.shape[1] + 1  # of the corners of pixels
    around = np.pad(mask, 1)
    outside = (around[:-2, 1:-1], around[1:-1, 2:], around[2:, 1:-1], around[1:-1, :-2])
    starts, ways = [], []
    for way, (beyond, (down, right)) in enumerate(
        zip(outside, ((0, 0), (0, 1), (1, 1), (1, 0)), strict=True)
    ):
        rows, cols = (mask & ~beyond).nonzero()
        starts.append((rows + down) * width + cols + right)
        ways.append(np.full(len(rows), way))
    start, way = np.concatenate(starts), np.concatenate(ways)
    leaving = np.full((height * width, 4), -1, dtype=np.int64)
    leaving[start, way] = np.arange(len(start))
    end = start + np.array([1, width, -1, -width])[way]
    # Where two pixels touch at a corner, turning right stays with the same one.
    choices = np.stack([leaving[end, (way + turn) % 4] for turn in (1, 0, 3)])
    following = choices[(choices >= 0).argmax(axis=0), np.arange(len(start))]
    corners = np.stack([start % width, start // width], axis=1).astype(np.float64)
    before = np.empty_like(way)
    before[following] = way
    if centres:
        corners += (_WAYS[(before + 1) % 4] + _WAYS[(way + 1) % 4]) / 2
    turns = before != way
    return [corners[cycle][turns[cycle]] for cycle in _cycles(following)]


def _simpler(ring: Ring, tolerance: float) -> Ring:
    """A ring with fewer corners, none of which is new; the ring itself where it is very thin."""
    from skimage.measure import approximate_polygon

    middle = len(ring) // 2  # the two ends of a closed line would both stay where they are
    halves = ring[: middle + 1], np.concatenate([ring[middle:], ring[:1]])
    kept = np.concatenate([approximate_polygon(half, tolerance)[:-1] for half in halves])
    enough = 2 * abs(_area(kept)) > abs(_area(ring)) and _area(kept) * _area(ring) > 0
    return kept if len(kept) > 2 and enough else ring


def _cycles(following: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The cycles of a permutation, each as the indices in its order."""
    after = following.tolist()
    seen = bytearray(len(after))
    cycles = []
    for first in range(len(after)):
        cycle = []
        index = first
        while not seen[index]:
            seen[index] = 1
            cycle.append(index)
            index = after[index]
        if cycle:
            cycles.append(np.array(cycle))
    return cycles


def _joined(borders: list[Ring]) -> Ring:
    """The border of a part and those of its holes as one, joined where they are nearest."""
    from scipy.spatial import cKDTree

    areas = [_area(border) for border in borders]
    whole = borders.pop(int(np.argmax(areas)))
    while borders:
        tree = cKDTree(whole)
        nearest = [tree.query(border) for border in borders]
        best = int(np.argmin([distances.min() for distances, _ in nearest]))
        distances, places = nearest[best]
        begin = int(distances.argmin())
        at = int(places[begin])
        hole = np.roll(borders.pop(best), -begin, axis=0)
        whole = np.concatenate([whole[: at + 1], hole, hole[:1], whole[at:]])
    return whole


def _area(ring: Ring) -> float:
    """The area inside a ring in pixels, negative where it goes counterclockwise."""
    x, y = ring[:, 0], ring[:, 1]
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2

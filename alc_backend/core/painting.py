"""Painting masks with classes into a label map and a superpixel map (Sec. 3.1, App. A)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alc_backend.core.arrays import strips


@dataclass(frozen=True)
class Painted:
    """The maps that overlapping masks were painted into.

    ``labels`` is uint8 (H, W); ``superpixels`` int32 (H, W), 1..n for the masks that are visible, 0
    where there is none. ``sources[i]`` is the index of the mask that became superpixel i + 1,
    ``areas[i]`` its number of pixels, covered ones included. ``hidden`` counts the masks that
    others cover completely, ``empty`` those without a pixel.
    """

    labels: NDArray[np.uint8]
    superpixels: NDArray[np.int32]
    sources: list[int]
    areas: list[int]
    hidden: int
    empty: int


def paint(
    masks: Iterable[tuple[NDArray[np.bool_], int]], shape: tuple[int, int], uncovered: int
) -> Painted:
    """The maps of masks, bool (H, W), with their class ids; smaller masks lie on top.

    Of masks with equal areas the later one lies on top. Uncovered pixels get the label
    ``uncovered`` and superpixel 0. Each mask is used once and not kept, so that any number of them
    fits into memory. Raises ValueError for a mask of another shape.
    """
    owner = np.zeros(shape, dtype=np.int32)
    labels = np.full(shape, uncovered, dtype=np.uint8)
    areas: list[int] = []
    for number, (mask, class_id) in enumerate(masks, start=1):
        if mask.shape != shape:
            raise ValueError(f"mask {number} is {mask.shape}, the image {shape}")
        area = int(np.count_nonzero(mask))
        on_top = np.array([True, *(other >= area for other in areas)])
        areas.append(area)
        for rows in strips(shape) if area else ():
            wins = mask[rows]
            if wins.any():
                wins = wins & on_top[owner[rows]]
                owner[rows][wins], labels[rows][wins] = number, class_id
    visible = _renumber(owner, len(areas))
    sources = [number - 1 for number in visible]
    return Painted(
        labels,
        owner,
        sources,
        [areas[source] for source in sources],
        hidden=sum(area > 0 for area in areas) - len(sources),
        empty=sum(area == 0 for area in areas),
    )


def _renumber(owner: NDArray[np.int32], highest: int) -> list[int]:
    """Renumber a map (H, W) of numbers, 0 to ``highest``, in place to 1..n; returns the n numbers.

    0 stays 0.
    """
    present = np.zeros(highest + 1, dtype=np.bool_)
    for rows in strips(owner.shape):
        present[owner[rows]] = True
    present[0] = False
    index = np.cumsum(present, dtype=np.int32) * present
    for rows in strips(owner.shape):
        owner[rows] = index[owner[rows]]
    return [int(number) for number in np.flatnonzero(present)]

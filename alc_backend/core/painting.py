"""From masks with classes to a label map and a superpixel map (algorithm.md, Grounded-SAM)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Painted:
    """Masks painted over each other.

    ``labels`` uint8 (H, W); ``superpixels`` int32 (H, W), 1..n for the masks that stay visible, 0
    where there is none; ``sources`` says for superpixel i + 1 which mask it is (its index), and
    ``areas`` how many pixels that mask has, hidden ones included. ``hidden`` masks are covered by
    others altogether, ``empty`` ones have no pixel.
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
    """Paint masks, bool (H, W), with their class ids: the smaller lies on top (Sec. 3.1, App. A).

    Of masks with equal areas the later one lies on top. Uncovered pixels get the label
    ``uncovered`` and superpixel 0. Masks are looked at one after another and not kept, so that any
    number of them fits into memory. Raises ValueError for a mask of another shape.
    """
    owner = np.zeros(shape, dtype=np.int32)
    owner_area = np.full(shape, np.iinfo(np.int64).max, dtype=np.int64)
    labels = np.full(shape, uncovered, dtype=np.uint8)
    areas: list[int] = []
    for number, (mask, class_id) in enumerate(masks, start=1):
        if mask.shape != shape:
            raise ValueError(f"mask {number} is {mask.shape}, the image {shape}")
        area = int(np.count_nonzero(mask))
        areas.append(area)
        wins = mask & (owner_area >= area)
        owner[wins], owner_area[wins], labels[wins] = number, area, class_id
    visible, superpixels = np.unique(owner, return_inverse=True)
    first = 0 if len(visible) and visible[0] == 0 else 1
    sources = [int(number) - 1 for number in visible if number > 0]
    return Painted(
        labels,
        (superpixels.reshape(shape) + first).astype(np.int32),
        sources,
        [areas[source] for source in sources],
        hidden=sum(area > 0 for area in areas) - len(sources),
        empty=sum(area == 0 for area in areas),
    )

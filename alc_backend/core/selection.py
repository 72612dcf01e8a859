"""Choosing the batch of a round: the top B of the pool over all images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple


class Scored(NamedTuple):
    """A superpixel of the dataset with its acquisition score.

    ``key`` is the image key, ``superpixel`` the id in its superpixel map, ``size`` its pixels.
    """

    score: float
    key: str
    superpixel: int
    size: int


def ranked(scored: Iterable[Scored]) -> list[Scored]:
    """Sort by descending score; ties by image key, then superpixel id."""
    return sorted(scored, key=lambda item: (-item.score, item.key, item.superpixel))


def top(
    scored: Iterable[Scored], budget: int, *, per_image: int | None = None, min_area: int = 0
) -> list[Scored]:
    """The ``budget`` best, best first.

    ``per_image`` caps how many of them lie in one image, so that the batch spreads over images;
    superpixels of fewer than ``min_area`` pixels are left out. Fewer come back when no more meet
    this. Raises ValueError for a negative ``budget`` or ``min_area``, or a cap below 1.
    """
    if budget < 0:
        raise ValueError(f"budget must not be negative, not {budget}")
    if per_image is not None and per_image < 1:
        raise ValueError(f"per_image must be at least 1, not {per_image}")
    if min_area < 0:
        raise ValueError(f"min_area must not be negative, not {min_area}")
    chosen: list[Scored] = []
    taken: Counter[str] = Counter()
    for item in ranked(item for item in scored if item.size >= min_area):
        if len(chosen) == budget:
            break
        if per_image is None or taken[item.key] < per_image:
            taken[item.key] += 1
            chosen.append(item)
    return chosen

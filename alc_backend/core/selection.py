"""Choosing the batch of a round: the top B of the pool over all images."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Iterable, Sequence
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


def spread(items: Sequence[Scored], gap: int) -> list[Scored]:
    """Put ``gap`` others, or more, between two items of the same image, where there are others.

    Otherwise the order stays: the best item whose image was not among the last ``gap`` comes next.
    All items come back. ValueError for a negative ``gap``.
    """
    if gap < 0:
        raise ValueError(f"gap must not be negative, not {gap}")
    places: dict[str, deque[int]] = {}
    for place, item in enumerate(items):
        places.setdefault(item.key, deque()).append(place)
    ready = [(mine[0], key) for key, mine in places.items()]
    heapq.heapify(ready)
    resting: deque[str | None] = deque()
    order: list[Scored] = []
    while len(order) < len(items):
        if not ready:  # only images that were asked about just now are left: the longest ago first
            key = next(key for key in resting if key is not None)
            resting.remove(key)
        else:
            _, key = heapq.heappop(ready)
        order.append(items[places[key].popleft()])
        resting.append(key if places[key] else None)
        if len(resting) > gap and (back := resting.popleft()) is not None:
            heapq.heappush(ready, (places[back][0], back))
    return order

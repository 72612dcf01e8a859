"""Choosing the batch of a round: the B best-scored superpixels of all images, and their order."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Scored(NamedTuple):
    """A superpixel of the dataset with its acquisition score.

    ``key`` is the image key, ``superpixel`` the id in that image's superpixel map, ``size`` the
    number of pixels.
    """

    score: float
    key: str
    superpixel: int
    size: int


def ranked(scored: Iterable[Scored]) -> list[Scored]:
    """The superpixels by descending score; ties by image key, then superpixel id."""
    return sorted(scored, key=lambda item: (-item.score, item.key, item.superpixel))


def top(
    scored: Iterable[Scored], budget: int, *, per_image: int | None = None, min_area: int = 0
) -> list[Scored]:
    """The ``budget`` best superpixels, best first, or fewer when no more qualify.

    At most ``per_image`` lie in one image, so that the batch spreads over images; superpixels of
    fewer than ``min_area`` pixels are left out. Raises ValueError for a negative ``budget`` or
    ``min_area``, or a ``per_image`` below 1.
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


def best(
    scores: NDArray[np.float64],
    images: NDArray[np.integer[Any]],
    budget: int,
    per_image: int | None = None,
) -> NDArray[np.intp]:
    """The indices of the ``budget`` best superpixels, best first, or fewer when no more qualify.

    As :func:`top` chooses them, from arrays (M,) in the order of image keys and superpixel ids:
    ``scores``, and ``images``, in which equal numbers mean the same image.
    """
    order = np.argsort(-scores, kind="stable")
    if per_image is None:
        return order[:budget]
    chosen: list[int] = []
    taken: Counter[int] = Counter()
    for index in order:
        if len(chosen) == budget:
            break
        image = int(images[index])
        if taken[image] < per_image:
            taken[image] += 1
            chosen.append(index)
    return np.array(chosen, dtype=np.intp)


def spread(items: Sequence[Scored], gap: int) -> list[Scored]:
    """All items, reordered to put at least ``gap`` others between two of the same image.

    The next item is always the first one whose image is not among those of the last ``gap`` items.
    Where only such images are left, the one used longest ago is next. Raises ValueError for a
    negative ``gap``.
    """
    if gap < 0:
        raise ValueError(f"gap must not be negative, not {gap}")
    waiting: dict[str, deque[int]] = {}  # by image, the indices of its items not yet ordered
    for index, item in enumerate(items):
        waiting.setdefault(item.key, deque()).append(index)
    ready = [(indices[0], key) for key, indices in waiting.items()]
    heapq.heapify(ready)
    resting: deque[str | None] = deque()
    order: list[Scored] = []
    while len(order) < len(items):
        if not ready:  # every image left is among the last ones: take the one used longest ago
            key = next(key for key in resting if key is not None)
            resting.remove(key)
        else:
            _, key = heapq.heappop(ready)
        order.append(items[waiting[key].popleft()])
        resting.append(key if waiting[key] else None)
        if len(resting) > gap and (back := resting.popleft()) is not None:
            heapq.heappush(ready, (waiting[back][0], back))
    return order

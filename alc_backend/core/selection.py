"""Choosing the batch of a round: the top B of the pool over all images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Scored(NamedTuple):
    """A superpixel of the dataset with its acquisition score; ``key`` is the image key."""

    score: float
    key: str
    superpixel: int


def ranked(scored: Iterable[Scored]) -> list[Scored]:
    """Sort by descending score; ties by image key, then superpixel id."""
    return sorted(scored, key=lambda item: (-item.score, item.key, item.superpixel))


def top(scored: Iterable[Scored], budget: int) -> list[Scored]:
    """The ``budget`` best, best first. ValueError for a negative budget."""
    if budget < 0:
        raise ValueError(f"budget must not be negative, not {budget}")
    return ranked(scored)[:budget]

"""How far annotators who answered the same queries agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Agreement:
    """Agreement over the items that at least two annotators have answered.

    ``items`` is their number, ``unanimous`` the number of those with one class only. ``alpha`` is
    Krippendorff's alpha for nominal data (1: perfect agreement, 0: agreement by chance); None where
    it is undefined: without such items, or when all answers name the same class.
    """

    items: int
    unanimous: int
    alpha: float | None


def agreement(votes: Iterable[Sequence[int]]) -> Agreement:
    """The agreement of ``votes``: for each item the class ids, one from each annotator.

    Items with fewer than two votes are left out. Source of alpha: Krippendorff, *Computing
    Krippendorff's Alpha-Reliability* (2011), nominal data, any number of observers.
    """
    shared = [Counter(item) for item in votes if len(item) >= 2]
    unanimous = sum(len(counts) == 1 for counts in shared)
    totals: Counter[int] = Counter()
    observed = 0.0  # disagreeing pairs, each item weighted by its number of votes
    for counts in shared:
        size = counts.total()
        totals.update(counts)
        observed += (size**2 - sum(n**2 for n in counts.values())) / (size - 1)
    everything = totals.total()
    expected = everything**2 - sum(n**2 for n in totals.values())
    alpha = 1 - (everything - 1) * observed / expected if expected else None
    return Agreement(len(shared), unanimous, alpha)

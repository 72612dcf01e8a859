"""MerSpx: superpixels that the network sees alike are merged before one question is asked of them.

Source: Kim et al., *Adaptive Superpixel for Active Learning in Semantic Segmentation*, ICCV 2023.
"""

from __future__ import annotations

from collections import defaultdict, deque

import numpy as np
from numpy.typing import NDArray

THRESHOLD = 0.1
"""Superpixels are alike whose mean predictions have a Jensen–Shannon divergence below this."""


def jensen_shannon(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """The Jensen–Shannon divergence of two distributions (C,), in nats: 0 to log 2."""
    middle = (first + second) / 2
    return (_divergence(first, middle) + _divergence(second, middle)) / 2


def _divergence(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Kullback and Leibler's, where ``second`` is positive wherever ``first`` is."""
    there = first > 0
    return float((first[there] * np.log(first[there] / second[there])).sum())


def neighbours(index: NDArray[np.int32]) -> dict[int, list[int]]:
    """Which superpixels touch along an edge of pixels, ascending.

    ``index`` int32 (H, W) counts superpixels from 1, 0 = none; the result counts from 0.
    """
    pairs: set[tuple[int, int]] = set()
    for one, other in ((index[:, :-1], index[:, 1:]), (index[:-1], index[1:])):
        differ = (one != other) & (one > 0) & (other > 0)
        pairs.update(zip(one[differ].tolist(), other[differ].tolist(), strict=True))
    found: dict[int, set[int]] = defaultdict(set)
    for one, other in pairs:
        found[one - 1].add(other - 1)
        found[other - 1].add(one - 1)
    return {member: sorted(touching) for member, touching in found.items()}


def merged(
    means: NDArray[np.floating],
    touching: dict[int, list[int]],
    rivalry: NDArray[np.floating],
    threshold: float = THRESHOLD,
) -> NDArray[np.intp]:
    """The group of each superpixel, (N,), numbered from 0 in the order in which they were made.

    ``means`` (N, C) are mean predictions, ``rivalry`` (N,) the mean p₂/p₁. The most uncertain
    superpixel that is in no group begins one; from it, breadth first, those that touch the group
    join it whose mean prediction diverges from the first one's by less than ``threshold``.
    """
    group = np.full(len(means), -1, dtype=np.intp)
    made = 0
    for root in np.argsort(-rivalry, kind="stable"):
        if group[root] >= 0:
            continue
        group[root] = made
        waiting = deque([int(root)])
        while waiting:
            for other in touching.get(waiting.popleft(), []):
                if group[other] < 0 and jensen_shannon(means[root], means[other]) < threshold:
                    group[other] = made
                    waiting.append(other)
        made += 1
    return group

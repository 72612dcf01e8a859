"""Sets of classes that contain the right one with a wanted probability (conformal prediction)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

ALPHA = 0.1
"""How often the right class may lie outside its set."""

FEWEST = 20
"""With fewer answers the sets are not made: they would hold all classes, or be a guess."""


def candidate_sets(
    beliefs: NDArray[np.float64], held_out: NDArray[np.float64], alpha: float = ALPHA
) -> list[list[int]]:
    """The likely classes of each superpixel, the likeliest first.

    ``beliefs`` (N, C) are probabilities; ``held_out`` (A,) those that the right class had for A
    superpixels before they were answered. A class is in the set where 1 - p is at most the
    (1 - alpha) quantile of 1 - ``held_out``, with the correction for finite samples (split
    conformal prediction; as in Candidate Set Query, arXiv 2502.06209). The sets are empty with
    fewer than FEWEST answers. Of equally likely classes the lower comes first.
    """
    count = len(held_out)
    if count < FEWEST:
        return [[] for _ in beliefs]
    rank = min(math.ceil((count + 1) * (1 - alpha)), count)
    most = np.sort(1.0 - held_out)[rank - 1]
    order = np.argsort(-beliefs, axis=1, kind="stable")
    return [
        [int(c) for c in row if 1.0 - values[c] <= most + 1e-12]
        for row, values in zip(order, beliefs, strict=True)
    ]

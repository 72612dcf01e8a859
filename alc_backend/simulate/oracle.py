"""Oracle annotators: what a perfect person would answer to a correction query."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alc_backend.core.arrays import VOID

ORACLES = ("object", "pixel")
"""``object`` judges the highlighted region, ``pixel`` (the paper's text) only the star."""


def answer(
    oracle: str,
    truth: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    row: int,
    col: int,
    pseudo_label: int,
) -> int:
    """The class id an oracle gives: ``pseudo_label`` to accept, another one to correct.

    ``truth``, ``labels`` uint8 (H, W); ``mask`` the superpixel, bool (H, W); (row, col) the
    representative pixel. ``object`` accepts when more than half of the superpixel's non-void
    ground truth equals its current labels, and answers ground truth at the star otherwise. Void
    at the star spends the query without a change, which is to accept. ValueError for another
    oracle.
    """
    if oracle not in ORACLES:
        raise ValueError(f"oracle must be one of {', '.join(ORACLES)}, not {oracle!r}")
    if oracle == "object":
        known = mask & (truth != VOID)
        if (truth[known] == labels[known]).sum() * 2 > known.sum():
            return pseudo_label
    at_star = int(truth[row, col])
    return pseudo_label if at_star == VOID else at_star

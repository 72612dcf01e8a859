"""Oracle annotators: what a person who knows the truth would answer to a correction query."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alc_backend.core.arrays import VOID
from alc_backend.core.cost import ACCEPT_S, CLASSIFICATION_S
from alc_backend.core.draws import chance, draw

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


def blunder(class_id: int, classes: int, rate: float, name: str, seed: int) -> int:
    """What a tired annotator says instead of ``class_id``: with probability ``rate`` another class.

    Every other of the ``classes`` is as likely as the next; always the same for the same ``name``
    (of the question) and ``seed``.
    """
    if rate == 0 or chance(f"blunder/{name}", seed) >= rate:
        return class_id
    other = draw(f"blunder/class/{name}", seed) % (classes - 1)
    return other + (other >= class_id)


def seconds(accepted: bool) -> float:
    """How long an answer takes (Table 1)."""
    return ACCEPT_S if accepted else CLASSIFICATION_S

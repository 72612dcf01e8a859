"""Oracle annotators: the answers of somebody who knows the ground truth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alc_backend.core.arrays import VOID
from alc_backend.core.draws import chance, draw

ORACLES = ("object", "pixel")
"""``object`` judges the whole superpixel, ``pixel`` (as in the paper) only the queried pixel."""


def answer(
    oracle: str,
    truth: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    row: int,
    col: int,
    pseudo_label: int,
) -> int:
    """The class id that an oracle names: ``pseudo_label`` to accept, another one to correct.

    ``truth`` and ``labels`` are uint8 (H, W), ``mask`` is the superpixel, bool (H, W), and (row,
    col) the queried pixel. ``object`` accepts when more than half of the superpixel's non-void
    ground truth equals its current labels, and otherwise names the ground truth of the queried
    pixel, as ``pixel`` always does. Where that is void, the query is spent without a change: it is
    accepted. Raises ValueError for another oracle.
    """
    if oracle not in ORACLES:
        raise ValueError(f"oracle must be one of {', '.join(ORACLES)}, not {oracle!r}")
    if oracle == "object":
        known = mask & (truth != VOID)
        if (truth[known] == labels[known]).sum() * 2 > known.sum():
            return pseudo_label
    there = int(truth[row, col])
    return pseudo_label if there == VOID else there


def agrees(
    oracle: str,
    truth: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    row: int,
    col: int,
    class_id: int,
) -> bool:
    """Whether an oracle says that a superpixel, of which a page proposes ``class_id``, is of it.

    The arguments are those of :func:`answer`. ``object`` agrees when more than half of the
    superpixel's non-void ground truth is of the class, ``pixel`` when that of the queried pixel is.
    """
    if oracle == "pixel":
        return int(truth[row, col]) == class_id
    known = truth[mask & (truth != VOID)]
    return int((known == class_id).sum()) * 2 > len(known)


def overlooks(rate: float, name: str, seed: int) -> bool:
    """Whether an annotator leaves a wrong tile ticked, with probability ``rate``.

    The result is determined by ``name`` (of the tile) and ``seed``.
    """
    return rate > 0 and chance(f"overlook/{name}", seed) < rate


def blunder(class_id: int, classes: int, rate: float, name: str, seed: int) -> int:
    """``class_id``, or with probability ``rate`` another class, named by mistake.

    All other classes are equally likely. The result is determined by ``name`` (of the query) and
    ``seed``.
    """
    if rate == 0 or chance(f"blunder/{name}", seed) >= rate:
        return class_id
    other = draw(f"blunder/class/{name}", seed) % (classes - 1)
    return other + (other >= class_id)

"""What a query costs an annotator: in bits (Theorem 3.1) and in seconds (Table 1)."""

from __future__ import annotations

import math

CLASSIFICATION_S = 6.31
"""Seconds that annotators took to name the class of an object (Table 1)."""

ACCEPT_S = 3.21
"""Seconds for accepting a pseudo label. Correction queries took 4.76 s on average when half of the
pseudo labels were wrong (Table 1), and correcting one takes as long as naming its class."""


def classification_cost(classes: int) -> float:
    """C_cls(L) = log2 L, the bits of choosing one of L >= 2 classes; ValueError for fewer."""
    if classes < 2:
        raise ValueError(f"classes must be at least 2, not {classes}")
    return math.log2(classes)


def correction_cost(classes: int, accept_rate: float) -> float:
    """C_cor(L, p) = p + (1 - p) log2 L, the bits of a query whose pseudo label is right at rate p.

    ``accept_rate`` p in [0, 1] is the share of accepted answers among accepted and corrected ones.
    Raises ValueError for a rate outside [0, 1] and for fewer than 2 classes.
    """
    if not 0.0 <= accept_rate <= 1.0:
        raise ValueError(f"accept_rate must lie in [0, 1], not {accept_rate!r}")
    return accept_rate + (1.0 - accept_rate) * classification_cost(classes)


def saving(classes: int, accept_rate: float) -> float:
    """1 - C_cor / C_cls = (1 - 1/log2 L)·p, the share of the cost saved, in [0, 1) (eq. 2)."""
    correction_cost(classes, accept_rate)  # raises ValueError for an impossible argument
    return (1.0 - 1.0 / classification_cost(classes)) * accept_rate

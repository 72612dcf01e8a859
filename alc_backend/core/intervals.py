"""How sure a share is that was counted on a sample."""

from __future__ import annotations

import math

from scipy.special import betaincinv

Z95 = 1.959963984540054
"""The quantile of the normal distribution that 95 % intervals reach to."""


def wilson(hits: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """The interval, within [0, 1], that a share lies in of which ``hits`` of ``trials`` were seen.

    ``z`` is the quantile of the normal distribution for its confidence (default: 95 %). Source:
    Wilson, *Probable Inference, the Law of Succession, and Statistical Inference* (1927). Raises
    ValueError without a trial, and for hits below 0 or above ``trials``.
    """
    if trials < 1 or not 0 <= hits <= trials:
        raise ValueError(f"hits must be among at least 1 trial, not {hits} of {trials}")
    share, spread = hits / trials, z**2 / trials
    centre = share + spread / 2
    reach = z * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    low, high = (centre - reach) / (1 + spread), (centre + reach) / (1 + spread)
    return (0.0 if hits == 0 else max(0.0, low)), (1.0 if hits == trials else min(1.0, high))


def clopper_pearson_low(hits: int, trials: int, confidence: float = 0.95) -> float:
    """The share, in [0, 1], that is reached with this confidence where ``hits`` of ``trials`` were.

    It is the exact one-sided lower bound, 0 without trials: never below its confidence, however few
    the trials and however near the share to 1. Source: Clopper and Pearson, *The Use of Confidence
    or Fiducial Limits Illustrated in the Case of the Binomial* (1934). Raises ValueError for hits
    below 0 or above ``trials``.
    """
    if not 0 <= hits <= trials:
        raise ValueError(f"hits must be among the trials, not {hits} of {trials}")
    return float(betaincinv(hits, trials - hits + 1, 1.0 - confidence)) if hits else 0.0

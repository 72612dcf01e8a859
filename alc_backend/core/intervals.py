"""How sure a share is that was counted on a sample."""

from __future__ import annotations

import math

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

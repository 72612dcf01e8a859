"""MerSpx: of a large superpixel, only pixels that its class fits are trained on.

Source: Kim et al., ICCV 2023; the knee is that of Satopää et al. 2011: where the sorted curve lies
farthest above the line between its ends.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def knee(confidence: NDArray[np.floating]) -> float:
    """The confidence at which the sorted curve of ``confidence`` (N,) begins to fall.

    It is the lowest value where the curve falls nowhere faster than before.
    """
    curve = np.sort(confidence)[::-1].astype(np.float64)
    low, high = curve[-1], curve[0]
    if high == low:
        return float(low)
    along = np.linspace(0.0, 1.0, len(curve))
    above = (curve - low) / (high - low) - (1.0 - along)
    best = int(above.argmax())
    return float(curve[best] if above[best] > 0 else low)


def sieved(
    confidence: NDArray[np.floating], mask: NDArray[np.bool_], large: float
) -> NDArray[np.bool_]:
    """The pixels of ``mask``, bool (H, W), that are trained on.

    ``confidence`` (H, W) is the probability of the class that was named. All are where the mask has
    no more than ``large`` pixels; elsewhere those at or above the knee.
    """
    if np.count_nonzero(mask) <= large:
        return mask
    return mask & (confidence >= knee(confidence[mask]))

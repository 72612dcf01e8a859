"""Superpixels without a foundation model: SLIC."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def slic(image: NDArray[np.uint8], count: int = 100) -> NDArray[np.int32]:
    """Partition ``image`` (uint8, H × W × 3) into about ``count`` compact superpixels.

    Returns int32 (H, W) with ids 1..n: every pixel is queryable. ValueError for count < 1.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    from skimage.segmentation import slic as skimage_slic

    superpixels = skimage_slic(
        image, n_segments=count, compactness=10.0, sigma=1.0, start_label=1, channel_axis=-1
    )
    return np.asarray(superpixels, dtype=np.int32)

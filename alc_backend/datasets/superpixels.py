"""Superpixels without a foundation model (SLIC), and boxes around the components of masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alc_backend.core.components import components
from alc_backend.datasets.images import MAX_COLOUR_ID


def slic(image: NDArray[np.uint8], count: int = 100) -> NDArray[np.int32]:
    """A partition of ``image``, uint8 (H, W, 3), into about ``count`` compact superpixels.

    Returns int32 (H, W) with ids 1..n: every pixel is queryable. Raises ValueError for count < 1.
    """
    return _slic(image, count, None)


def fill(
    superpixels: NDArray[np.int32], image: NDArray[np.uint8], count: int = 100
) -> NDArray[np.int32]:
    """The superpixels with SLIC superpixels added where there were none, so that all are queryable.

    ``superpixels`` is int32 (H, W), 0 = none, and keeps its ids; the added ones get ids that it
    does not use. They are as large as if ``count`` covered the whole image, and connected.
    """
    bare = superpixels == 0
    share = np.count_nonzero(bare) / max(bare.size, 1)
    if not share:
        return superpixels
    pieces = _slic(image, max(1, round(count * share)), bare)
    # islands too small for SLIC are left without a piece, or get that of a piece elsewhere
    pieces = _connected(np.where(bare & (pieces == 0), pieces.max() + 1, pieces))
    names = _free_ids(superpixels, int(pieces.max()))
    return np.where(bare, names[pieces - bare], superpixels).astype(np.int32)


def component_boxes(labels: NDArray[np.uint8], uncovered: int) -> NDArray[np.float32]:
    """Boxes around the 8-connected components of a label map, float32 (N, 4).

    ``labels`` is uint8 (H, W). A box is left, top, right, bottom in pixels, the last two exclusive;
    void and the class ``uncovered`` get none.
    """
    import cc3d

    parts = components(labels) + 1  # void is 0
    numbers, firsts = np.unique(parts, return_index=True)
    boxes = cc3d.statistics(parts.astype(np.uint32))["bounding_boxes"]
    wanted = [
        boxes[number]
        for number, first in zip(numbers, firsts, strict=True)
        if number > 0 and labels.flat[first] != uncovered
    ]
    edges = [(cols.start, rows.start, cols.stop, rows.stop) for rows, cols in wanted]
    return np.array(edges, dtype=np.float32).reshape(-1, 4)


def _connected(pieces: NDArray[np.int32]) -> NDArray[np.int32]:
    """The number from 1 up of each 4-connected part of a piece, int32 (H, W); 0 stays 0."""
    import cc3d

    return np.asarray(cc3d.connected_components(pieces, connectivity=4), dtype=np.int32)


def _free_ids(superpixels: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """``count`` ids that no superpixel has: those after the largest, else the smallest, int64."""
    largest = int(superpixels.max(initial=0))
    if largest + count <= MAX_COLOUR_ID:
        return np.arange(largest + 1, largest + count + 1)
    used = np.unique(superpixels)
    return np.setdiff1d(np.arange(1, len(used) + count + 1), used)[:count]


def _slic(
    image: NDArray[np.uint8], count: int, mask: NDArray[np.bool_] | None
) -> NDArray[np.int32]:
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    from skimage.segmentation import slic as skimage_slic

    superpixels = skimage_slic(
        image,
        n_segments=count,
        compactness=10.0,
        sigma=1.0,
        start_label=1,
        channel_axis=-1,
        mask=mask,
    )
    return np.asarray(superpixels, dtype=np.int32)

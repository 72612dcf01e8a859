"""Superpixels without a foundation model (SLIC, SEEDS), and boxes around components of masks."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alc_backend.core.components import components
from alc_backend.datasets.images import MAX_COLOUR_ID
from alc_backend.errors import SettingsError

SEEDS_LEVELS, SEEDS_BINS, SEEDS_PRIOR, SEEDS_ITERATIONS = 4, 5, 2, 10
"""Of SEEDS: the most block levels, the bins of each channel's histogram, how strongly shapes are
smoothed (0..5), and the passes over the image."""

LEAST_SIDE, LEAST_BLOCK = 16, 4
"""In pixels: OpenCV's SEEDS never ends, or takes the process with it, on smaller images, and where
its blocks are smaller or wider than half the image."""


def slic(image: NDArray[np.uint8], count: int = 100) -> NDArray[np.int32]:
    """A partition of ``image``, uint8 (H, W, 3), into about ``count`` compact superpixels.

    Returns int32 (H, W) with ids 1..n: every pixel is queryable. Raises ValueError for count < 1.
    """
    return _slic(image, count, None)


def seeds(image: NDArray[np.uint8], count: int = 100) -> NDArray[np.int32]:
    """A partition of ``image``, uint8 (H, W, 3), into about ``count`` superpixels by SEEDS.

    Van den Bergh et al., *SEEDS: Superpixels Extracted via Energy-Driven Sampling*, 2012, in the
    implementation of OpenCV's extra modules, on CIE Lab. Returns int32 (H, W) with ids 1..n; n is
    often a quarter smaller than ``count``, as superpixels begin as a regular grid. Raises
    ValueError for count < 1, SettingsError where the modules are not installed.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    ximgproc = check_seeds()
    import cv2

    times = -(-LEAST_SIDE // min(image.shape[:2]))
    large = np.ascontiguousarray(image.repeat(times, axis=0).repeat(times, axis=1))
    height, width = large.shape[:2]
    block = min(max((height * width / count) ** 0.5, LEAST_BLOCK), min(height, width) / 2)
    wanted = round(height * width / block**2)
    made = [
        ximgproc.createSuperpixelSEEDS(
            width, height, 3, wanted, levels, SEEDS_PRIOR, SEEDS_BINS, False
        )
        for levels in range(1, SEEDS_LEVELS + 1)
    ]
    best = min(reversed(made), key=lambda one: abs(one.getNumberOfSuperpixels() - wanted))
    best.iterate(cv2.cvtColor(large, cv2.COLOR_RGB2LAB), SEEDS_ITERATIONS)
    found = best.getLabels()[::times, ::times]
    numbers = np.unique(found, return_inverse=True)[1].reshape(found.shape)
    return np.asarray(numbers + 1, dtype=np.int32)


def check_seeds() -> Any:
    """OpenCV's module with SEEDS; SettingsError, with the remedy, unless it is installed."""
    try:
        found = importlib.import_module("cv2.ximgproc")
    except ImportError:
        found = None
    if hasattr(found, "createSuperpixelSEEDS"):
        return found
    raise SettingsError(
        "superpixels by SEEDS need OpenCV's extra modules: install alc-backend[seeds]; where "
        "another build of OpenCV is installed, too, as with the extra grounded-sam, put this one "
        "in its place: pip install --force-reinstall --no-deps opencv-contrib-python-headless"
    )


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

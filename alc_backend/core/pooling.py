"""What a network saw where a superpixel lies: its features, averaged over mask and box."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST_PAIRS = 2**22
"""Up to so many pairs of a superpixel and a square are counted in an array, more by sorting."""


class Prediction(NamedTuple):
    """What a network says of an image of H × W pixels.

    ``probabilities`` float32 (C, H, W), the softmax over the classes; ``features`` float32 (F, h,
    w), what its encoder made of each square of ``stride`` × ``stride`` pixels, with h = ⌈H/stride⌉
    and w = ⌈W/stride⌉. F is 0 where there is no network.
    """

    probabilities: NDArray[np.float32]
    features: NDArray[np.float32]
    stride: int


def pooled(
    prediction: Prediction, index: NDArray[np.int32], shape: tuple[int, int], count: int
) -> NDArray[np.float32]:
    """The features of the superpixels of an image, float32 (``count``, 2·F).

    The first half is the mean over a superpixel's pixels, the second that over the squares that its
    bounding box touches. ``index`` int32 (H·W,) is the superpixel of every pixel in raster order,
    counted from 1, 0 = none (:class:`~alc_backend.core.statistics.ImageStatistics`); ``shape`` is
    (H, W).
    """
    features, stride = prediction.features, prediction.stride
    channels, height, width = features.shape
    if not channels or not count:
        return np.zeros((count, 2 * channels), dtype=np.float32)
    square = (np.arange(shape[0]) // stride * width)[:, None] + np.arange(shape[1]) // stride
    pairs = index.astype(np.intp) * (height * width) + square.ravel()
    if (count + 1) * height * width <= MOST_PAIRS:
        every = np.bincount(pairs, minlength=height * width)
        touched = np.flatnonzero(every)
        pixels = every[touched]
    else:
        touched, pixels = np.unique(pairs, return_counts=True)
    first = np.searchsorted(touched, height * width)  # those before are in no superpixel
    touched, pixels = touched[first:] - height * width, pixels[first:]
    owners, places = np.divmod(touched, height * width)
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    weighted = features.reshape(channels, -1).T[places] * pixels[:, None]
    inside = np.zeros((count, channels))
    if len(starts):
        inside[owners[starts]] = np.add.reduceat(weighted, starts)
    sizes = np.bincount(owners, weights=pixels, minlength=count)
    inside /= np.maximum(sizes, 1)[:, None]
    return np.hstack([inside, _over_boxes(features, owners, places, count)]).astype(np.float32)


def _over_boxes(
    features: NDArray[np.float32], owners: NDArray[np.intp], places: NDArray[np.intp], count: int
) -> NDArray[np.float64]:
    """The mean over the bounding box of the squares ``places`` of each owner, (``count``, F)."""
    channels, height, width = features.shape
    rows, cols = np.divmod(places, width)
    top, left = np.full(count, height), np.full(count, width)
    bottom, right = np.zeros(count, dtype=np.intp), np.zeros(count, dtype=np.intp)
    np.minimum.at(top, owners, rows)
    np.minimum.at(left, owners, cols)
    np.maximum.at(bottom, owners, rows + 1)
    np.maximum.at(right, owners, cols + 1)
    sums = np.zeros((channels, height + 1, width + 1))
    sums[:, 1:, 1:] = features.astype(np.float64).cumsum(axis=1).cumsum(axis=2)
    total = sums[:, bottom, right] - sums[:, top, right] - sums[:, bottom, left]
    total += sums[:, top, left]
    found: NDArray[np.float64] = (total / np.maximum((bottom - top) * (right - left), 1)).T
    return found

"""Checks of the arrays that enter the core, and the grouping of pixels by superpixel."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

VOID = 255
"""The label of a pixel whose class is unknown; excluded from losses and metrics."""


def checked_probabilities(probabilities: Any) -> NDArray[np.float32]:
    """Return ``probabilities`` as contiguous float32 (C, H, W).

    Raises ValueError for another shape, a non-floating dtype, NaN, negative values, or pixels
    whose values do not sum to 1 within 1e-3.
    """
    array = np.asarray(probabilities)
    if array.ndim != 3 or array.shape[0] < 2:
        raise ValueError(
            f"probabilities must have shape (C, H, W) with C >= 2, not {array.shape}; "
            "put the class axis first"
        )
    if array.dtype.kind != "f":
        raise ValueError(f"probabilities must be floating point, not {array.dtype}")
    array = np.ascontiguousarray(array, dtype=np.float32)
    if array.size == 0:
        return array
    deviation = np.abs(array.sum(axis=0) - 1.0).max()
    if not deviation <= 1e-3:  # also catches NaN and infinity
        raise ValueError(
            "probabilities must sum to 1 over the classes at every pixel (NaN is not allowed); "
            f"largest deviation {deviation:.3g}: apply softmax over axis 0"
        )
    if array.min() < 0:
        raise ValueError("probabilities must not be negative; apply softmax over axis 0")
    return array


def checked_labels(
    labels: Any, shape: tuple[int, int], classes: int | None = None
) -> NDArray[np.uint8]:
    """Return ``labels`` after checking dtype uint8, the (H, W) shape and ids < ``classes`` or 255.

    Raises ValueError that names what is wrong.
    """
    array = np.asarray(labels)
    if array.dtype != np.uint8:
        raise ValueError(f"labels must be uint8, not {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"labels must have shape {shape} like the image, not {array.shape}")
    if classes is not None and array.size:
        wrong = (array >= classes) & (array != VOID)
        if wrong.any():
            raise ValueError(
                f"labels holds class id {int(array[wrong][0])}, but there are only {classes} "
                f"classes (0..{classes - 1}; {VOID} = void)"
            )
    return array


def checked_superpixels(superpixels: Any, shape: tuple[int, int]) -> NDArray[np.int32]:
    """Return ``superpixels`` as contiguous int32 (H, W).

    Raises ValueError for another shape, a non-integer dtype, negative ids or ids above 2³¹-1.
    """
    array = np.asarray(superpixels)
    if array.dtype.kind not in "iu":
        raise ValueError(f"superpixels must be an integer array (int32), not {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"superpixels must have shape {shape} like the image, not {array.shape}")
    if array.size and (array.min() < 0 or array.max() > np.iinfo(np.int32).max):
        raise ValueError("superpixels must hold ids from 0 to 2147483647 (0 = not queryable)")
    return np.ascontiguousarray(array, dtype=np.int32)


class Segments(NamedTuple):
    """The queryable pixels of one image, grouped by superpixel.

    ``pixels`` (M,) flat raster indices, superpixel by superpixel, raster order inside each;
    ``group`` (M,) position of each pixel's superpixel in ``ids``; ``starts`` (N,) where each
    superpixel begins in ``pixels``; ``ids`` (N,) ascending; ``sizes`` (N,) in pixels.
    """

    pixels: NDArray[np.intp]
    group: NDArray[np.intp]
    starts: NDArray[np.intp]
    ids: NDArray[np.int32]
    sizes: NDArray[np.intp]


def segments(superpixels: NDArray[np.int32]) -> Segments:
    """Group the pixels of ``superpixels`` (H, W) by id; pixels with id 0 are left out."""
    flat = superpixels.ravel()
    pixels = np.flatnonzero(flat)
    pixels = pixels[np.argsort(flat[pixels], kind="stable")]
    ids, starts, sizes = np.unique(flat[pixels], return_index=True, return_counts=True)
    group = np.repeat(np.arange(len(ids), dtype=np.intp), sizes)
    return Segments(pixels, group, starts, ids, sizes)

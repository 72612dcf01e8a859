"""Checks of the arrays that the core is given, and the numbering of superpixels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

VOID: Final = 255
"""The label of a pixel of unknown class, which losses and metrics ignore."""

TOLERANCE: Final = np.float32(1e-3)
"""How far the sum of a pixel's probabilities may be from 1, to admit half precision."""

STRIP = 2**18
"""About how many pixels of a map are worked on at once where a copy of all would be too large."""


def strips(shape: tuple[int, ...]) -> Iterator[slice]:
    """The rows of a map (H, W), about STRIP pixels at a time."""
    rows = max(STRIP // max(shape[1], 1), 1)
    return (slice(top, top + rows) for top in range(0, shape[0], rows))


def checked_probabilities(probabilities: Any) -> NDArray[np.float32]:
    """``probabilities`` as contiguous float32 (C, H, W), copied only where they are something else.

    Raises ValueError for another shape, fewer than 2 or more than 255 classes, or a dtype that is
    not floating point. Values are checked where they are read (``ImageStatistics``).
    """
    array = np.asarray(probabilities)
    if array.ndim != 3 or not 2 <= array.shape[0] <= VOID:
        raise ValueError(
            f"probabilities must have shape (C, H, W) with 2 <= C <= {VOID}, not {array.shape}; "
            "put the class axis first"
        )
    if array.dtype.kind != "f":
        raise ValueError(f"probabilities must be floating point, not {array.dtype}")
    with np.errstate(over="ignore"):  # what overflows becomes infinite and is refused later
        return np.ascontiguousarray(array, dtype=np.float32)


def refuse(probabilities: NDArray[np.float32]) -> NoReturn:
    """Raise a ValueError that says why ``probabilities`` (C, P) are not distributions."""
    if (probabilities < 0).any():
        raise ValueError("probabilities must not be negative; apply softmax over axis 0")
    with np.errstate(invalid="ignore"):
        deviation = np.abs(probabilities.sum(axis=0) - np.float32(1)).max()
    raise ValueError(
        "probabilities must sum to 1 over the classes at every pixel (NaN is not allowed); "
        f"largest deviation {deviation:.3g}: apply softmax over axis 0"
    )


def checked_labels(
    labels: Any, shape: tuple[int, int], classes: int | None = None
) -> NDArray[np.uint8]:
    """``labels``, checked: uint8, of the given (H, W) shape, ids below ``classes`` or 255.

    Raises a ValueError that says what is wrong.
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
    """``superpixels`` as int32 (H, W), copied only where they are something else.

    Raises ValueError for another shape, a non-integer dtype, negative ids or ids above 2³¹-1.
    """
    array = np.asarray(superpixels)
    if array.dtype.kind not in "iu":
        raise ValueError(f"superpixels must be an integer array (int32), not {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"superpixels must have shape {shape} like the image, not {array.shape}")
    if array.size and (array.min() < 0 or array.max() > np.iinfo(np.int32).max):
        raise ValueError("superpixels must hold ids from 0 to 2147483647 (0 = not queryable)")
    return array.astype(np.int32, copy=False)


def dense(superpixels: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The superpixels of a map (H, W), renumbered 1..N without gaps.

    Returns the ids, int32 (N,), ascending, and for each pixel in raster order 1 plus the index of
    its superpixel in the ids, int32 (H·W,), 0 = in none. Both are new arrays.
    """
    flat = superpixels.flatten()
    if (
        int(flat.max(initial=0)) > 4 * flat.size + 1024
    ):  # a table indexed by id would be larger than the map
        ids = np.unique(flat)
        ids = ids[ids > 0]
        return ids, np.searchsorted(ids, flat, side="right").astype(np.int32)
    present = np.bincount(flat) > 0
    present[:1] = False
    ids = np.flatnonzero(present).astype(np.int32)
    if len(ids) + 1 >= len(present):
        return ids, flat
    index = np.zeros(len(present), dtype=np.int32)
    index[ids] = np.arange(1, len(ids) + 1)
    return ids, index[flat]

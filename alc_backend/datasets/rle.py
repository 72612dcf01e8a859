"""COCO's segmentations: run lengths (plain or compressed) and polygons.

Run lengths go down the columns and begin with pixels outside the mask. Files may come from
anywhere, so sizes and lengths are checked before a mask is made.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from alc_backend.common.types import Json

MAX_OUTLINE = 4_000_000
"""Longer outlines, in pixels, are refused: pycocotools needs memory for every pixel of them."""

_LEAST_POLYGON = 6
"""The numbers in a triangle; pycocotools would take shorter lists for boxes."""


def encode(index: NDArray[np.int32], count: int) -> list[Json]:
    """The compressed run lengths of the pixels equal to 1, to 2, … and to ``count``.

    ``index`` is int32 (H, W); each result is ``{"size": [H, W], "counts": TEXT}``.
    """
    from pycocotools import mask as coco_mask

    height, width = index.shape
    flat = index.ravel(order="F")
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    ends = np.append(starts[1:], flat.size)
    order = np.argsort(flat[starts], kind="stable")
    bounds = np.searchsorted(flat[starts][order], np.arange(1, count + 2))
    encoded: list[Json] = []
    for number in range(count):
        runs = order[bounds[number] : bounds[number + 1]]
        edges = np.stack([starts[runs], ends[runs]], axis=1).ravel()
        counts = np.diff(edges, prepend=0, append=flat.size).tolist()
        plain = {"size": [height, width], "counts": counts if counts[-1] else counts[:-1]}
        packed = coco_mask.frPyObjects(plain, height, width)
        encoded.append({"size": [height, width], "counts": packed["counts"].decode("ascii")})
    return encoded


def decode(segmentation: object, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask of a segmentation, run lengths or a list of polygons, bool (H, W).

    Raises a ValueError that says what is wrong with a segmentation that does not fit ``shape``.
    """
    if isinstance(segmentation, list):
        return _polygons(segmentation, shape)
    if not isinstance(segmentation, dict):
        raise ValueError("has no segmentation, neither polygons nor run lengths")
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != list(shape):
        raise ValueError(f"has run lengths for the size {size!r}, not {list(shape)}")
    lengths = _unpacked(counts) if isinstance(counts, str) else counts
    if not isinstance(lengths, list) or not all(type(n) is int and n >= 0 for n in lengths):
        raise ValueError("has run lengths that are not whole numbers from 0 up")
    pixels = shape[0] * shape[1]
    if sum(lengths) != pixels:
        raise ValueError(f"has run lengths for {sum(lengths)} pixels, not {pixels}")
    belongs = np.arange(len(lengths)) % 2 == 1
    return np.repeat(belongs, lengths).reshape(shape, order="F")


def _unpacked(text: str) -> list[int]:
    """The run lengths in COCO's compressed form.

    Each character has 5 bits; from the third number on, the difference to the last but one is kept.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 35:
            raise ValueError("has damaged run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            if len(counts) > 2:
                value += counts[-2]
            counts.append(value)
            value = shift = 0
    if shift:
        raise ValueError("has run lengths that were cut short")
    return counts


def _polygons(polygons: list[Any], shape: tuple[int, int]) -> NDArray[np.bool_]:
    from pycocotools import mask as coco_mask

    height, width = shape
    if not polygons:
        raise ValueError("has an empty segmentation")
    reach = 2 * max(shape)
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < _LEAST_POLYGON or len(polygon) % 2:
            raise ValueError("has a polygon that is not a list of at least three pairs x, y")
        if not all(type(number) in (int, float) for number in polygon):
            raise ValueError("has a polygon with something other than numbers")
        if not all(-reach <= number <= reach for number in polygon):  # refuses NaN, too
            raise ValueError("has a polygon that goes far outside the image")
        corners = np.array(polygon, dtype=np.float64).reshape(-1, 2)
        steps = np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1)
        if steps.sum() > MAX_OUTLINE:
            raise ValueError(f"has a polygon with an outline of over {MAX_OUTLINE:,} pixels")
    merged = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    return np.asarray(coco_mask.decode(merged), dtype=np.bool_)

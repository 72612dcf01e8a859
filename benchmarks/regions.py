"""Masks as regions of Label Studio and as outlines for Ultralytics: sizes, times, and what is lost.

``python -m benchmarks.regions`` prints two tables.
"""

from __future__ import annotations

import json
import time

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.ndimage import distance_transform_edt, gaussian_filter

from alc_backend.core.outlines import outlines
from alc_backend.labelstudio.regions import read_regions
from alc_backend.labelstudio.shown_regions import mask_regions

SHAPE = (1024, 2048)
CLASSES = [f"class {number}" for number in range(19)]


def blobs(count: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """A label map and a superpixel map (H, W) of so many smooth pieces with ragged borders."""
    rng = np.random.default_rng(0)
    rows, cols = rng.integers(0, SHAPE[0], count), rng.integers(0, SHAPE[1], count)
    y, x = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]].astype(np.float32)
    y += 300 * gaussian_filter(rng.normal(size=SHAPE), 6)
    x += 300 * gaussian_filter(rng.normal(size=SHAPE), 6)
    nearest = np.full(SHAPE, np.inf, dtype=np.float32)
    superpixels = np.zeros(SHAPE, dtype=np.int32)
    for number, (row, col) in enumerate(zip(rows, cols, strict=True), start=1):
        distance = (y - row) ** 2 + (x - col) ** 2
        closer = distance < nearest
        nearest[closer], superpixels[closer] = distance[closer], number
    return (superpixels % len(CLASSES)).astype(np.uint8), superpixels


def _off(
    labels: NDArray[np.uint8], superpixels: NDArray[np.int32], shape: str
) -> tuple[float, float, int, float]:
    """How long showing takes, the kilobytes of it, the regions, and how far off pixels are."""
    began = time.perf_counter()
    shown = mask_regions(labels, superpixels, CLASSES, shape=shape)
    took = time.perf_counter() - began
    parts: dict[str, NDArray[np.bool_]] = {}
    for region in read_regions(shown, CLASSES, SHAPE):
        name = region.name.partition("p")[0]
        parts[name] = region.mask() | parts.get(name, np.zeros(SHAPE, dtype=np.bool_))
    by_class = {name.partition("c")[0] for name in parts} == {"s1"}
    furthest = 0.0
    for name, mask in parts.items():
        number, class_id = (int(part) for part in name[1:].split("c"))
        wanted = (by_class | (superpixels == number)) & (labels == class_id)
        off = mask ^ wanted
        if off.any():
            around = np.pad(wanted, 1)  # what is beyond the image belongs to no mask
            depth = np.maximum(distance_transform_edt(around), distance_transform_edt(~around))
            furthest = max(furthest, float(depth[1:-1, 1:-1][off].max()) - 0.5)
    return took, len(json.dumps(shown)) / 1000, len(shown), furthest


def _ultralytics(superpixels: NDArray[np.int32]) -> tuple[float, int]:
    """How long outlines take, and how many pixels differ once OpenCV has painted them."""
    import cv2

    wrong, took = 0, 0.0
    for number in range(1, superpixels.max() + 1):
        mask = superpixels == number
        began = time.perf_counter()
        found = outlines(mask, centres=True)
        took += time.perf_counter() - began
        painted = np.zeros(SHAPE, dtype=np.uint8)
        for outline in found:
            cv2.fillPoly(painted, [outline.astype(np.int32)], 1)
        wrong += int((painted.astype(np.bool_) ^ mask).sum())
    return took, wrong


def main() -> None:
    """Measure and print."""
    console = Console(width=100)
    table = Table("superpixels", "ALC_REGIONS", "regions", "s", "kB", "furthest pixel that is off")
    for count in (30, 140):
        labels, superpixels = blobs(count)
        for shape in ("brush", "bitmask", "polygon"):
            took, size, regions, off = _off(labels, superpixels, shape)
            table.add_row(
                str(count), shape, str(regions), f"{took:.2f}", f"{size:.0f}", f"{off:.1f} pixels"
            )
    console.print(table)
    table = Table("superpixels", "s", "pixels that differ")
    for count in (30, 140):
        took, wrong = _ultralytics(blobs(count)[1])
        table.add_row(str(count), f"{took:.2f}", str(wrong))
    console.print(table)


if __name__ == "__main__":
    main()

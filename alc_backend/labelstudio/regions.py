"""Regions of Label Studio, of any shape, as masks; and masks as label maps and superpixel maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alc_backend.common.types import Json
from alc_backend.core.painting import paint
from alc_backend.labelstudio import run_lengths, shapes

MAX_RLE_BYTES = 2**24
"""More run lengths and bitmasks in one annotation are refused: a painted region has some kilobytes,
and a mebibyte takes up to 3 s to read."""

MAX_CROSSINGS = 2**23
"""Annotations whose outlines cross rows of pixels more often are refused; a plain polygon crosses
each row of its height twice."""

MAX_COUNT = 10_000
"""Annotations of more regions are refused."""

MAX_PAINTED = 2**34
"""Annotations of more regions times pixels are refused: on an image of 6 megapixels, 2863 regions.
The largest image may still have a region for each of 255 classes, as our own predictions may."""


class UnknownClassError(ValueError):
    """A region's class is not among those of the project."""


@dataclass(frozen=True)
class Region:
    """A region: its id in Label Studio, its class id, and its pixels.

    ``shape`` is (H, W) of the image; ``edges`` int32 (2·R,) are where its pixels begin and end, as
    :func:`alc_backend.labelstudio.run_lengths.decode` has them. Equal regions have equal edges.
    """

    name: str
    class_id: int
    shape: tuple[int, int]
    edges: NDArray[np.int32]

    @property
    def area(self) -> int:
        """The number of its pixels."""
        return int(self.edges[1::2].sum(dtype=np.int64) - self.edges[::2].sum(dtype=np.int64))

    def paint(self, target: NDArray[np.generic], value: int) -> None:
        """Write a value into its pixels of an array (H, W), which must be contiguous."""
        flat = target.reshape(-1)
        for begin, end in self.edges.reshape(-1, 2).tolist():
            flat[begin:end] = value

    def mask(self) -> NDArray[np.bool_]:
        """Its pixels, bool (H, W), made anew: hold one at a time."""
        return run_lengths.mask(self.edges, self.shape)


def read_regions(results: list[Json], classes: list[str], shape: tuple[int, int]) -> list[Region]:
    """The pixels of regions that are masks, as ``DatasetTags.masks`` gives them, in their order.

    ``shape`` is (H, W) of the image itself: what a region claims is compared with it before
    anything is made. Raises UnknownClassError where a region's class is not among ``classes``, and
    a ValueError that names the region for another size, for what lacks a field or cannot be
    decoded, and where there is too much of it (MAX_COUNT, MAX_PAINTED, MAX_RLE_BYTES,
    MAX_CROSSINGS).
    """
    pixels = shape[0] * shape[1]
    most = min(MAX_COUNT, MAX_PAINTED // max(pixels, 1))
    if len(results) > most:
        raise ValueError(
            f"there are {len(results):,} regions; an image of {shape[1]}×{shape[0]} pixels may "
            f"have {most:,}"
        )
    left = shapes.Budget(MAX_RLE_BYTES, MAX_CROSSINGS)
    return [_read(item, classes, shape, left) for item in results]


def _read(item: Json, classes: list[str], shape: tuple[int, int], left: shapes.Budget) -> Region:
    kind, value = str(item["type"]), item["value"]
    name = str(item.get("id"))
    class_name = value[kind][0]
    if class_name not in classes:
        known = f"{', '.join(classes)}"[:300]
        raise UnknownClassError(
            f"region {name[:40]!r} ({kind}) has the class {str(class_name)[:80]!r}, which is not "
            f"among those of the project ({known}): add it with `alc classes add`, or correct or "
            "delete the region"
        )
    try:
        _check_size(item, shape, needed=kind.removesuffix("labels") in ("brush", "bitmask"))
        edges = shapes.READERS[kind.removesuffix("labels")](value, shape, left)
    except ValueError as error:
        raise ValueError(f"region {name[:40]!r} ({kind}): {error}; correct or delete it") from error
    return Region(name, classes.index(class_name), shape, edges)


def _check_size(item: Json, shape: tuple[int, int], *, needed: bool) -> None:
    """Compare the size that a region was drawn in with the image's."""
    missing = {"original_height", "original_width"} - item.keys()
    if missing:
        if not needed:
            return  # what is drawn in percent fits any size
        raise ValueError(f"it has no field {sorted(missing)[0]!r}")
    try:
        height, width = int(item["original_height"]), int(item["original_width"])
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"its size cannot be read ({error})") from error
    if (height, width) != shape:
        raise ValueError(
            f"it differs in size: it is for {width}×{height} pixels, and the image has "
            f"{shape[1]}×{shape[0]}"
        )


def painted(
    results: list[Json], classes: list[str], shape: tuple[int, int], uncovered: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.int32]] | None:
    """The label map, uint8 (H, W), and the superpixel map, int32 (H, W), of regions.

    Small regions are painted over large ones. Each region that stays visible is a superpixel; other
    pixels get the label ``uncovered`` and superpixel 0. ``shape`` is (H, W) of the image. Returns
    None without any region. Raises ValueError as :func:`read_regions` does.
    """
    regions = read_regions(results, classes, shape)
    if not regions:
        return None
    painting = paint(((region.mask(), region.class_id) for region in regions), shape, uncovered)
    return painting.labels, painting.superpixels

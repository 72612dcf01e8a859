"""Label maps as Label Studio's brush regions (run-length encoded masks), and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alc_backend.common.types import Json
from alc_backend.core.painting import paint
from alc_backend.datasets.images import MAX_PIXELS

MAX_RLE_BYTES = 2**20
"""Longer run lengths are refused: a painted region has some kilobytes, and a mebibyte takes 4 s to
read."""

MAX_REGIONS = 30
"""Above this many superpixels, regions are merged per class: more make the screen slow."""


def brush_regions(
    labels: NDArray[np.uint8],
    superpixels: NDArray[np.int32],
    classes: list[str],
    *,
    from_name: str = "label",
    to_name: str = "image",
    by_class: bool = False,
    scores: Mapping[int, float] | None = None,
) -> list[Json]:
    """The masks of a label map as brush regions, one per superpixel and class within it.

    ``labels`` is uint8 (H, W), of which 255 (void) is left out; ``superpixels`` int32 (H, W), of
    which 0 is left out. With more than MAX_REGIONS superpixels, or ``by_class``, there is one
    region per class. ``scores`` (0..1) of superpixels, by their numbers, become those of their
    regions.
    """
    from label_studio_sdk.converter import brush

    height, width = labels.shape
    inside = (superpixels > 0) & (labels < len(classes))
    numbers = np.unique(superpixels[inside])
    by_class = by_class or len(numbers) > MAX_REGIONS
    groups = inside.astype(np.int32) if by_class else superpixels
    regions: list[Json] = []
    for number in np.unique(groups[inside]):
        here = inside & (groups == number)
        for class_id in np.unique(labels[here]):
            mask = ((labels == class_id) & here).astype(np.uint8) * 255
            score = None if by_class else (scores or {}).get(int(number))
            regions.append(
                ({} if score is None else {"score": score})
                | {
                    "id": f"s{number}c{class_id}",
                    "type": "brushlabels",
                    "from_name": from_name,
                    "to_name": to_name,
                    "original_width": width,
                    "original_height": height,
                    "image_rotation": 0,
                    "value": {
                        "format": "rle",
                        "rle": brush.mask2rle(mask),
                        "brushlabels": [classes[int(class_id)]],
                    },
                }
            )
    return regions


@dataclass(frozen=True)
class Region:
    """A brush region: its id in Label Studio, its class id, and its pixels, bool (H, W)."""

    name: str
    class_id: int
    mask: NDArray[np.bool_]


def read_regions(
    results: list[Json], classes: list[str], shape: tuple[int, ...] | None = None
) -> list[Region]:
    """The brush regions of known classes in an annotation's or a prediction's ``result``.

    ``shape`` is (H, W) of the image, where it is known. Raises ValueError for regions of another
    size, of differing sizes, or that lack a field or cannot be decoded.
    """
    from label_studio_sdk.converter import brush

    regions: list[Region] = []
    for item in results:
        value = item.get("value") if isinstance(item, dict) else None
        names = value.get("brushlabels") if isinstance(value, dict) else None
        if not isinstance(value, dict) or not isinstance(names, list) or not names:
            continue
        if item.get("type") != "brushlabels" or names[0] not in classes:
            continue
        missing = {"original_height", "original_width"} - item.keys() or {"rle"} - value.keys()
        if missing:
            raise ValueError(f"a brush region has no field {sorted(missing)[0]!r}")
        lengths = value["rle"]
        if not isinstance(lengths, list) or len(lengths) > MAX_RLE_BYTES:
            raise ValueError(
                f"a brush region's run lengths are not a list of {MAX_RLE_BYTES:,} at most"
            )
        try:
            size = (int(item["original_height"]), int(item["original_width"]))
            rle = bytes(lengths)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"a brush region cannot be read ({error})") from error
        shape = shape or size
        if size != shape:
            raise ValueError(f"brush regions differ in size: {size} and {shape}")
        if not 0 < size[0] * size[1] <= MAX_PIXELS:
            raise ValueError(f"a brush region claims an image of {size[1]}×{size[0]} pixels")
        if int.from_bytes(rle[:4], "big") != 4 * size[0] * size[1]:
            raise ValueError("a brush region's length does not fit the image's size")
        try:
            pixels = brush.decode_rle(list(rle)).reshape(*size, 4)[:, :, 3]
        except (IndexError, ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"a brush region's run lengths are damaged ({error})") from error
        regions.append(Region(str(item.get("id")), classes.index(names[0]), pixels > 127))
    return regions


def painted(
    results: list[Json], classes: list[str], uncovered: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.int32]] | None:
    """The label map, uint8 (H, W), and the superpixel map, int32 (H, W), of brush regions.

    Small regions are painted over large ones. Each region that stays visible is a superpixel; other
    pixels get the label ``uncovered`` and superpixel 0. Returns None without a brush region of a
    known class. Raises ValueError as :func:`read_regions` does.
    """
    regions = read_regions(results, classes)
    if not regions:
        return None
    height, width = regions[0].mask.shape
    masks = ((region.mask, region.class_id) for region in regions)
    painting = paint(masks, (height, width), uncovered)
    return painting.labels, painting.superpixels

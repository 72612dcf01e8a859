"""Label maps as Label Studio's brush regions (run-length encoded masks), to be shown."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from alc_backend.common.types import Json
from alc_backend.core.runs import runs
from alc_backend.errors import LabelStudioError
from alc_backend.labelstudio import run_lengths
from alc_backend.labelstudio.regions import MAX_COUNT, MAX_PAINTED, MAX_RLE_BYTES

MAX_REGIONS = 30
"""Above this many superpixels, regions are merged per class: more make the screen slow."""

MOST_BYTES = MAX_RLE_BYTES // 2
"""The most run lengths that are shown: what annotators add must fit into an annotation, too."""

MOST_RUNS = MOST_BYTES // 3
"""More runs than this exceed MOST_BYTES in any case: a run and the gap after it take 28 bits."""

_OUTSIDE = -1


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
    region per class, and also where more would not be read back from an annotation
    (:func:`alc_backend.labelstudio.regions.read_regions`). ``scores`` (0..1) of superpixels, by
    their numbers, become those of their regions. Raises LabelStudioError for masks so detailed
    that one region per class would not be read back either.
    """
    found = None if by_class else _encoded(labels, superpixels, len(classes), by_class=False)
    if found is None:
        by_class = True
        found = _encoded(labels, superpixels, len(classes), by_class=True)
    if found is None:
        raise LabelStudioError(
            f"its masks change from pixel to pixel: as brush regions they would take more than "
            f"{MOST_BYTES:,} bytes; smooth them, or cut the image into smaller ones"
        )
    height, width = labels.shape
    regions: list[Json] = []
    for key, packed in found.items():
        number, class_id = key >> 8, key & 255
        score = None if by_class else (scores or {}).get(number)
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
                    "rle": list(packed),
                    "brushlabels": [classes[class_id]],
                },
            }
        )
    return regions


def _encoded(
    labels: NDArray[np.uint8], superpixels: NDArray[np.int32], classes: int, *, by_class: bool
) -> dict[int, bytes] | None:
    """The run lengths of each region, by 256 · superpixel + class; None where they are too many.

    With ``by_class`` all superpixels count as number 1.
    """

    def read(rows: slice) -> NDArray[np.int64]:
        here, given = superpixels[rows], labels[rows]
        number = np.int64(1) if by_class else here.astype(np.int64)
        return np.where((here > 0) & (given < classes), number * 256 + given, _OUTSIDE)

    pixels = labels.size
    found = runs((labels.shape[0], labels.shape[1]), read, most=2 * MOST_RUNS)
    if found is None:
        return None
    begins, keys = found
    ends = np.append(begins[1:], pixels)
    order = np.argsort(keys, kind="stable")
    order = order[np.searchsorted(keys[order], 0) :]  # without what lies outside
    present, first = np.unique(keys[order], return_index=True)
    numbers = len(np.unique(present >> 8))
    most = min(MAX_COUNT, MAX_PAINTED // max(pixels, 1))
    if len(present) > most or (numbers > MAX_REGIONS and not by_class):
        return None
    encoded: dict[int, bytes] = {}
    left = MOST_BYTES
    for key, members in zip(present.tolist(), np.split(order, first[1:]), strict=False):
        edges = np.stack([begins[members], ends[members]], axis=1).reshape(-1)
        encoded[key] = run_lengths.encode(edges, pixels)
        left -= len(encoded[key])
        if left < 0:
            return None
    return encoded

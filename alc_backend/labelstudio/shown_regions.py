"""Label maps as Label Studio's regions, to be shown: brushes, bitmasks or polygons."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alc_backend.common.types import Json
from alc_backend.core.outlines import outlines
from alc_backend.core.runs import runs
from alc_backend.errors import LabelStudioError
from alc_backend.labelstudio import run_lengths, shapes
from alc_backend.labelstudio.regions import MAX_COUNT, MAX_CROSSINGS, MAX_PAINTED, MAX_RLE_BYTES

MAX_REGIONS = 30
"""Above this many superpixels, regions are merged per class: more make the screen slow."""

MAX_BITMASKS = 140
"""The same for bitmasks, with which the screen is fluent for longer: a click takes 0.25 s."""

MOST_BYTES = MAX_RLE_BYTES // 2
"""The most run lengths or bytes of bitmasks that are shown: what annotators add must fit into an
annotation, too."""

MOST_RUNS = MOST_BYTES // 3
"""More runs than this exceed MOST_BYTES in any case: a run and the gap after it take 28 bits."""

MOST_CROSSINGS = MAX_CROSSINGS // 2
"""The most crossings of polygons with rows of pixels that are shown, for the same reason."""

TOLERANCE = 1.0
"""How far a polygon's outline may lie from its mask's, in pixels."""

_OUTSIDE = -1

Edges = NDArray[np.int64]
Value = tuple[Json, int]
"""What is in the ``value`` of a region beside its label, and what it costs."""


@dataclass(frozen=True)
class _Shape:
    """How masks become regions of one shape.

    ``values`` are the regions' values, at least one, made of where a mask's pixels begin and end
    and of (H, W). Together they may cost ``most``; with more than ``superpixels`` superpixels there
    is one mask for each class.
    """

    values: Callable[[Edges, tuple[int, int]], Iterable[Value]]
    most: Callable[[], int]
    superpixels: int


def _brush(edges: Edges, shape: tuple[int, int]) -> Iterable[Value]:
    packed = run_lengths.encode(edges, shape[0] * shape[1])
    yield {"format": "rle", "rle": list(packed)}, len(packed)


def _bitmask(edges: Edges, shape: tuple[int, int]) -> Iterable[Value]:
    """A PNG of one bit a pixel, of which one colour is transparent."""
    mask = run_lengths.mask(edges.astype(np.int32), shape)
    opened = Image.fromarray(mask.astype(np.uint8))
    opened.putpalette([0] * 6)
    content = io.BytesIO()
    opened.save(content, "PNG", bits=1, transparency=0)
    url = shapes.PNG + base64.b64encode(content.getvalue()).decode()
    yield {"imageDataURL": url}, len(url)


def _polygons(edges: Edges, shape: tuple[int, int]) -> Iterable[Value]:
    """A polygon for each connected part, its corners in per cent of the width and the height."""
    first, last = int(edges[0]) // shape[1], (int(edges[-1]) - 1) // shape[1] + 1
    part = np.zeros((last - first) * shape[1], dtype=np.bool_)
    for begin, end in (edges.reshape(-1, 2) - first * shape[1]).tolist():
        part[begin:end] = True
    for outline in outlines(part.reshape(-1, shape[1]), tolerance=TOLERANCE):
        corners = (outline + np.array([0, first])) / np.array([shape[1], shape[0]]) * 100
        rise = np.abs(np.diff(outline[:, 1], append=outline[:1, 1])).sum()
        yield {"points": corners.tolist(), "closed": True}, int(rise)


_SHAPES = {
    "brush": _Shape(_brush, lambda: MOST_BYTES, MAX_REGIONS),
    "bitmask": _Shape(_bitmask, lambda: MOST_BYTES, MAX_BITMASKS),
    "polygon": _Shape(_polygons, lambda: MOST_CROSSINGS, MAX_REGIONS),
}


def mask_regions(
    labels: NDArray[np.uint8],
    superpixels: NDArray[np.int32],
    classes: list[str],
    *,
    shape: str = "brush",
    from_name: str = "label",
    to_name: str = "image",
    by_class: bool = False,
    scores: Mapping[int, float] | None = None,
) -> list[Json]:
    """The masks of a label map as regions, one per superpixel and class within it.

    ``labels`` is uint8 (H, W), of which 255 (void) is left out; ``superpixels`` int32 (H, W), of
    which 0 is left out. ``shape`` is brush, bitmask or polygon; of polygons there is one for each
    connected part, within TOLERANCE of its mask. With more superpixels than are fluent, or
    ``by_class``, there is one region per class, and also where more would not be read back from an
    annotation (:func:`alc_backend.labelstudio.regions.read_regions`). ``scores`` (0..1) of
    superpixels, by their numbers, become those of their regions. Raises LabelStudioError for masks
    so detailed that one region per class would not be read back either.
    """
    made = _SHAPES[shape]
    found = None if by_class else _encoded(labels, superpixels, len(classes), made, by_class=False)
    if found is None:
        by_class = True
        found = _encoded(labels, superpixels, len(classes), made, by_class=True)
    if found is None:
        raise LabelStudioError(
            f"its masks change from pixel to pixel: as {shape} regions they would take more than "
            f"{made.most():,} {'crossings' if shape == 'polygon' else 'bytes'}; smooth them, or "
            "cut the image into smaller ones"
        )
    height, width = labels.shape
    regions: list[Json] = []
    for key, part, value in found:
        number, class_id = key >> 8, key & 255
        score = None if by_class else (scores or {}).get(number)
        regions.append(
            ({} if score is None else {"score": score})
            | {
                "id": f"s{number}c{class_id}" + (f"p{part}" if part else ""),
                "type": f"{shape}labels",
                "from_name": from_name,
                "to_name": to_name,
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": {**value, f"{shape}labels": [classes[class_id]]},
            }
        )
    return regions


def _encoded(
    labels: NDArray[np.uint8],
    superpixels: NDArray[np.int32],
    classes: int,
    made: _Shape,
    *,
    by_class: bool,
) -> list[tuple[int, int, Json]] | None:
    """The regions, each with 256 · superpixel + class and its number there, from 0.

    None where they are too many. With ``by_class`` all superpixels count as number 1.
    """

    def read(rows: slice) -> NDArray[np.int64]:
        here, given = superpixels[rows], labels[rows]
        number = np.int64(1) if by_class else here.astype(np.int64)
        return np.where((here > 0) & (given < classes), number * 256 + given, _OUTSIDE)

    pixels = labels.size
    shape = (labels.shape[0], labels.shape[1])
    found = runs(shape, read, most=2 * MOST_RUNS)
    if found is None:
        return None
    begins, keys = found
    ends = np.append(begins[1:], pixels)
    order = np.argsort(keys, kind="stable")
    order = order[np.searchsorted(keys[order], 0) :]  # without what lies outside
    present, first = np.unique(keys[order], return_index=True)
    numbers = len(np.unique(present >> 8))
    most = min(MAX_COUNT, MAX_PAINTED // max(pixels, 1))
    if len(present) > most or (numbers > made.superpixels and not by_class):
        return None
    encoded: list[tuple[int, int, Json]] = []
    left = made.most()
    for key, members in zip(present.tolist(), np.split(order, first[1:]), strict=False):
        edges = np.stack([begins[members], ends[members]], axis=1).reshape(-1)
        for part, (value, cost) in enumerate(made.values(edges, shape)):
            encoded.append((key, part, value))
            left -= cost
            if left < 0 or len(encoded) > most:
                return None
    return encoded

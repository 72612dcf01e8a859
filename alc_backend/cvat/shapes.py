"""Masks as CVAT's API has them: read as a dataset's, and made of label maps.

A mask is its run lengths, row by row in its box and beginning with pixels outside, then the box:
left, top, right and bottom, all of them inside.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from alc_backend.common.types import Json
from alc_backend.core.arrays import VOID
from alc_backend.cvat.client import Frame
from alc_backend.datasets.classes import background
from alc_backend.datasets.cvat import run_lengths, void_label
from alc_backend.datasets.cvat_xml import MASK, POLYGON, Record, Shape
from alc_backend.datasets.segments import segments

KINDS = (MASK, POLYGON)
"""The kinds of shapes that are masks."""


def record_of(frame: Frame, shapes: Iterable[Json], labels: Mapping[int, str]) -> Record:
    """A frame with its ``shapes``, in the order of their ids, as the reader of *CVAT* takes it.

    ``labels`` are names by ids. Shapes that are no masks are counted, and left out.
    """
    record = Record(frame.name, frame.width, frame.height, "")
    for shape in sorted(shapes, key=lambda one: one["id"]):
        kind = str(shape["type"])
        if kind in KINDS:
            record.shapes.append(_shape(shape, kind, labels))
        else:
            record.passed_over[kind] += 1
    return record


def _shape(shape: Json, kind: str, labels: Mapping[int, str]) -> Shape:
    points = list(shape["points"])
    box, text = (0, 0, 0, 0), ""
    if kind == POLYGON:
        text = ";".join(f"{x},{y}" for x, y in zip(points[::2], points[1::2], strict=False))
    elif len(points) > 4:
        left, top, right, bottom = (int(value) for value in points[-4:])
        box = (left, top, right - left + 1, bottom - top + 1)
        text = ",".join(str(int(count)) for count in points[:-4])
    label = labels.get(shape["label_id"], f"label {shape['label_id']}")
    return Shape(kind, label, text, box, shape.get("z_order") or 0, shape.get("group") or 0)


def shapes_of(
    labels: NDArray[np.uint8],
    superpixels: NDArray[np.int32],
    frame: int,
    classes: Sequence[str],
    label_ids: Mapping[str, int],
) -> list[Json]:
    """The masks that show a label map in a frame, as requests for CVAT.

    ``labels`` is uint8 (H, W), 255 = void; ``superpixels`` int32 (H, W), 0 = none. There is a mask
    for each class in each superpixel, one group where a superpixel has several; none for
    background. Void is the label ``ignore`` where there is a class named background, and nothing
    without one. ``label_ids`` are CVAT's, by name. Raises KeyError for a class without a label.
    """
    own = background(list(classes))
    index, found = segments(labels, superpixels)
    pieces = Counter(segment.superpixel for segment in found)
    made = []
    for segment in found:
        if segment.class_id == own:
            continue
        left, top, width, height = segment.box
        piece = index[top : top + height, left : left + width] == segment.id
        group = segment.superpixel if pieces[segment.superpixel] > 1 else 0
        label = label_ids[classes[segment.class_id]]
        made.append(_mask(piece, (left, top), frame, label, group))
    gap = labels == VOID
    if own is not None and gap.any():
        made.append(_mask(gap, (0, 0), frame, label_ids[void_label(classes)], 0))
    return made


def _mask(
    mask: NDArray[np.bool_], corner: tuple[int, int], frame: int, label: int, group: int
) -> Json:
    """A mask, bool (H, W), whose upper left pixel is that of the image at ``corner`` (x, y)."""
    (left, top), (height, width) = corner, mask.shape
    box = (left, top, left + width - 1, top + height - 1)
    return {
        "type": MASK,
        "label_id": label,
        "frame": frame,
        "points": [float(value) for value in (*run_lengths(mask), *box)],
        "group": group,
        "z_order": 0,
        "occluded": False,
        "source": "auto",
        "attributes": [],
    }


def digest_of(shapes: Iterable[Json]) -> str:
    """A digest of the masks among some shapes of a frame; their ids and order do not count."""
    told = sorted(
        json.dumps(
            [
                shape["type"], shape["label_id"], shape.get("group") or 0,
                shape.get("z_order") or 0, [round(float(value), 2) for value in shape["points"]],
            ]
        )
        for shape in shapes
        if shape["type"] in KINDS
    )  # fmt: skip
    return hashlib.sha256("\n".join(told).encode()).hexdigest()

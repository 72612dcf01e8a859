"""CVAT's *Segmentation mask 1.1*: VOC's layout with masks in colours, which ``labelmap.txt`` names.

Read by :mod:`alc_backend.datasets.voc`. ``SegmentationClass/`` has the colour of each pixel's
class, ``SegmentationObject/`` a colour for each object: the part of a superpixel that has one class
other than background. Void is (224, 224, 192) in the one and black in the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alc_backend.core.arrays import VOID
from alc_backend.datasets.classes import background
from alc_backend.datasets.colours import VOID_COLOUR, class_colours, colours_of, write_label_map
from alc_backend.datasets.dataset import OutputImage
from alc_backend.datasets.images import encode_colour_ids
from alc_backend.datasets.names import path_below
from alc_backend.datasets.segments import segments
from alc_backend.datasets.voc import IMAGES, LABEL_MAP, LISTS, MASKS, OBJECT_MASKS

LIST = "default"
"""The name of CVAT's subset, and so of the list of its images."""


def write(root: Path, classes: list[str], images: Iterable[OutputImage]) -> None:
    """Write the layout, with the images in ``JPEGImages/``, in their own format.

    Raises DatasetError for class names that ``labelmap.txt`` cannot hold.
    """
    write_label_map(root / LABEL_MAP, classes)
    table = np.full(VOID + 1, VOID_COLOUR, dtype=np.int32)
    table[: len(classes)] = class_colours(classes)
    keys = []
    for image in images:
        image.write_image(root, IMAGES)
        encode_colour_ids(path_below(root, MASKS, image.key, ".png"), table[image.labels])
        objects = path_below(root, OBJECT_MASKS, image.key, ".png")
        encode_colour_ids(objects, colours_of(_objects(image, background(classes))))
        image.write_objects(root)
        keys.append(image.key)
    listed = path_below(root, LISTS, LIST, ".txt")
    listed.write_text("".join(f"{key}\n" for key in keys), "utf-8")


def _objects(image: OutputImage, background_id: int | None) -> NDArray[np.int32]:
    """The object of each pixel, int32 (H, W), 0 = none; no object has the number of void."""
    index, found = segments(image.labels, image.superpixels)
    numbers = np.zeros(len(found) + 1, dtype=np.int32)
    number = 0
    for segment in found:
        if segment.class_id != background_id:
            number += 2 if number == VOID - 1 else 1
            numbers[segment.id] = number
    objects: NDArray[np.int32] = numbers[index]
    return objects

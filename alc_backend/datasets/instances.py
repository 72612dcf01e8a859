"""COCO instances: run lengths or polygons in ``annotations/instances_SPLIT.json``.

Pixels that no instance covers belong to the class named background, or are void without one. One
instance is written per segment; the entry of an image with void pixels gets the field ``void`` with
their run lengths.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alc_backend.common.types import Json
from alc_backend.core.arrays import VOID
from alc_backend.datasets import coco, rle
from alc_backend.datasets.classes import background, uncovered_class
from alc_backend.datasets.dataset import OutputImage
from alc_backend.datasets.segments import segments
from alc_backend.errors import DatasetError

KIND = "instances"


@dataclass
class Instances(coco.Coco):
    """A reader of COCO instances; DatasetError for boxes alone, which are no masks."""

    def __post_init__(self) -> None:
        """Look whether any annotation has a segmentation."""
        listed = [found for annotations in self.index.annotations.values() for found in annotations]
        if listed and all(_is_empty(found.get("segmentation")) for found in listed):
            raise DatasetError(
                f"{self.index.path}: none of its {len(listed)} annotations has a segmentation; "
                "boxes are no masks (`alc init --images` makes masks of class names)"
            )

    def labels(self, key: str, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """The label map, uint8 (H, W): instances in the order of the file, later ones on top."""
        self.check_size(key, shape)
        labels = np.full(shape, uncovered_class(self.classes), dtype=np.uint8)
        for annotation in self.annotations(key):
            where = f"annotation {annotation.get('id')!r} of {key}"
            class_id = self.class_of(annotation, where)
            segmentation = annotation.get("segmentation")
            if _is_empty(segmentation):
                self.report(
                    f"{self.index.path.name}: {where} has no segmentation; draw the outline of the "
                    "object, or remove the annotation (the image is used without it)"
                )
                continue
            labels[self._pixels(segmentation, shape, where)] = class_id
        void = self.record(key).get("void")
        if void is not None:
            labels[self._pixels(void, shape, f"the field void of {key}")] = VOID
        return labels

    def _pixels(
        self, segmentation: object, shape: tuple[int, int], where: str
    ) -> NDArray[np.bool_]:
        try:
            return rle.decode(segmentation, shape)
        except ValueError as error:
            raise DatasetError(
                f"{self.index.path.name}: {where} {error}; export it again or remove it"
            ) from error


def _is_empty(segmentation: object) -> bool:
    """Whether an annotation has no polygon with a point and no run lengths."""
    return not segmentation or (isinstance(segmentation, list) and not any(segmentation))


def write(root: Path, classes: list[str], images: Iterable[OutputImage]) -> None:
    """Write ``images/``, ``annotations/instances_train.json`` and ``classes.txt``."""
    records: list[Json] = []
    annotations: list[Json] = []
    left_out = background(classes)
    for number, image in enumerate(images, start=1):
        image.write_image(root, coco.IMAGES)
        image.write_objects(root)
        record = coco.image_record(number, image)
        void = (image.labels == VOID).astype(np.int32)
        if void.any():
            (record["void"],) = rle.encode(void, 1)
        records.append(record)
        index, found = segments(image.labels, image.superpixels)
        for segment, lengths in zip(found, rle.encode(index, len(found)), strict=True):
            if segment.class_id != left_out:
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": coco.category_of(segment.class_id),
                        "segmentation": lengths,
                        "area": segment.area,
                        "bbox": list(segment.box),
                        "iscrowd": 0,
                        "superpixel": segment.superpixel,
                    }
                )
    coco.write_index(root, KIND, classes, records, annotations, left_out)

"""COCO panoptic: a colour PNG of segment ids per image, and an index of the segments' categories.

The index is ``annotations/panoptic_SPLIT.json``; the PNGs lie in the folder of that name. A colour
encodes the id R + 256·G + 65536·B; 0 is void.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alc_backend.core.arrays import VOID
from alc_backend.datasets import coco
from alc_backend.datasets.dataset import TRAIN, OutputImage
from alc_backend.datasets.images import encode_colour_ids, read_ids
from alc_backend.datasets.names import checked_name, path_below
from alc_backend.datasets.segments import segments
from alc_backend.errors import DatasetError

KIND = "panoptic"

_UNKNOWN = 256
"""Marks a segment that the index does not describe; class ids and void are smaller."""


@dataclass
class Panoptic(coco.Coco):
    """A reader of COCO panoptic segments."""

    def labels(self, key: str, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """The label map, uint8 (H, W): the class of each pixel's segment."""
        self.check_size(key, shape)
        described = self.annotations(key)
        name = self.index.path.name
        if len(described) != 1:
            raise DatasetError(
                f"{name}: has {len(described)} annotations for {key}; a panoptic image has one"
            )
        file_name = checked_name(described[0].get("file_name"), f"{name}: annotations")
        ids = self.mask(f"{self._folder}/{file_name}", key, shape, read_ids)
        infos = described[0].get("segments_info")
        if not isinstance(infos, list) or not all(isinstance(info, dict) for info in infos):
            raise DatasetError(f"{name}: has no segments_info for {key}; export it again")
        classes = {
            info.get("id"): self.class_of(info, f"a segment of {key}")
            for info in infos
            if type(info.get("id")) is int
        }
        classes[0] = VOID
        largest = int(ids.max(initial=0))
        table = np.full(largest + 1, _UNKNOWN, dtype=np.uint16)
        for number, class_id in classes.items():
            if 0 <= number <= largest:
                table[number] = class_id
        labels = table[ids]
        unknown = ids[labels == _UNKNOWN]
        if len(unknown):
            raise DatasetError(
                f"{file_name}: holds the segment {unknown[0]}, which {name} does not describe; "
                "export both again"
            )
        return labels.astype(np.uint8)

    @property
    def _folder(self) -> str:
        """The folder of the PNGs, named like the index: beside it or in the root."""
        stem = self.index.path.stem
        beside = f"{coco.ANNOTATIONS}/{stem}"
        return beside if (self.root / beside).is_dir() else stem


def write(root: Path, classes: list[str], images: Iterable[OutputImage]) -> None:
    """Write ``images/``, ``annotations/panoptic_train.json`` and its PNGs, ``classes.txt``."""
    records, annotations = [], []
    for number, image in enumerate(images, start=1):
        image.write_image(root, coco.IMAGES)
        image.write_objects(root)
        records.append(coco.image_record(number, image))
        index, found = segments(image.labels, image.superpixels)
        folder = f"{coco.ANNOTATIONS}/{KIND}_{TRAIN}"
        encode_colour_ids(path_below(root, folder, image.key, ".png"), index)
        annotations.append(
            {
                "image_id": number,
                "file_name": f"{image.key}.png",
                "segments_info": [
                    {
                        "id": segment.id,
                        "category_id": coco.category_of(segment.class_id),
                        "area": segment.area,
                        "bbox": list(segment.box),
                        "iscrowd": 0,
                        "superpixel": segment.superpixel,
                    }
                    for segment in found
                ],
            }
        )
    coco.write_index(root, KIND, classes, records, annotations)

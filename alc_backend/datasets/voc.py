"""The layout of PASCAL VOC: ``JPEGImages/ SegmentationClass/ ImageSets/Segmentation/``.

Masks are palette PNGs of class ids, 255 = void. Class names come from ``labels.txt`` or
``classes.txt``; without either the dataset has the 21 classes of PASCAL VOC.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alc_backend.datasets.classes import read_classes, write_classes
from alc_backend.datasets.dataset import TRAIN, VAL, Dataset, OutputImage
from alc_backend.datasets.images import encode_label_map
from alc_backend.datasets.names import files_below, is_image, key_of, path_below
from alc_backend.errors import DatasetError

IMAGES, MASKS, LISTS = "JPEGImages", "SegmentationClass", "ImageSets/Segmentation"
CLASS_LISTS = ("labels.txt", "classes.txt")

# fmt: off
CLASSES = [
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
]
# fmt: on
"""The classes of PASCAL VOC, by id."""


@dataclass
class Voc(Dataset):
    """A reader of VOC's layout: the images listed in ``train.txt``, or all that have a mask."""

    def image_paths(self) -> dict[str, Path]:
        """The path of each image by its key, sorted; missing images are reported and left out."""
        stored: dict[str, list[Path]] = {}
        for path in filter(is_image, files_below(self.root / IMAGES)):
            stored.setdefault(key_of(path, self.root / IMAGES), []).append(path)
        found: dict[str, list[Path]] = {}
        for key in self._keys():
            if key in stored:
                found[key] = stored[key]
            else:
                self.report(f"{IMAGES}/{key}: there is no such image; add it or remove its mask")
        return self.unshared(found)

    def labels(self, key: str, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """The label map of an image, uint8 (H, W); DatasetError when it is unusable."""
        return self.class_map(f"{MASKS}/{key}.png", key, shape)

    def _keys(self) -> list[str]:
        listed = self.root / LISTS / f"{self.split}.txt"
        if not listed.is_file() and self.split == TRAIN:
            return [key_of(path, self.root / MASKS) for path in files_below(self.root / MASKS)]
        try:
            lines = listed.read_text("utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise DatasetError(
                f"{listed}: cannot be read ({error}); list the images' names in it, one a line"
            ) from error
        return list(dict.fromkeys(line.rstrip("\r") for line in lines if line.strip()))


def open_voc(root: Path, superpixel_count: int = 100, validation: bool = False) -> Voc:
    """A reader of a dataset in VOC's layout; DatasetError for an unusable class list."""
    lists = [root / name for name in CLASS_LISTS if (root / name).is_file()]
    classes = read_classes(lists[0]) if lists else CLASSES
    if validation and not (root / LISTS / f"{VAL}.txt").is_file():
        raise DatasetError(f"{root}: has no {LISTS}/{VAL}.txt; list the validation images there")
    return Voc(root, classes, superpixel_count, VAL if validation else TRAIN)


def write(root: Path, classes: list[str], images: Iterable[OutputImage]) -> None:
    """Write VOC's layout; images keep their format, though the folder is called JPEGImages."""
    keys = []
    for image in images:
        image.write_image(root, IMAGES)
        encode_label_map(path_below(root, MASKS, image.key, ".png"), image.labels)
        image.write_objects(root)
        keys.append(image.key)
    listed = path_below(root, LISTS, TRAIN, ".txt")
    listed.write_text("".join(f"{key}\n" for key in keys), "utf-8")
    write_classes(root / CLASS_LISTS[0], classes)

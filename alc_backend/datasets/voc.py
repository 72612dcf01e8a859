"""The layout of PASCAL VOC: ``JPEGImages/ SegmentationClass/ ImageSets/Segmentation/``.

Masks are palette PNGs of class ids, 255 = void. Class names come from one of CLASS_LISTS, or from
``labelmap.txt``, as CVAT writes it, which also names the colour of each class: masks in colours are
then read by colour, and the objects in ``SegmentationObject/`` are the superpixels. Without any
class list the dataset has the 21 classes of PASCAL VOC.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alc_backend.core.arrays import VOID
from alc_backend.datasets.classes import read_classes, write_classes
from alc_backend.datasets.colours import ids_of, read_label_map
from alc_backend.datasets.dataset import OBJECTS, TRAIN, VAL, Dataset, OutputImage
from alc_backend.datasets.images import encode_label_map, read_colours, read_mask
from alc_backend.datasets.names import files_below, inside, is_image, key_of, path_below
from alc_backend.errors import DatasetError

IMAGES, MASKS, LISTS = "JPEGImages", "SegmentationClass", "ImageSets/Segmentation"
CLASS_LISTS = ("labels.txt", "classes.txt", "class_names.txt")
LABEL_MAP, OBJECT_MASKS = "labelmap.txt", "SegmentationObject"

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
    """A reader of VOC's layout: the images listed in ``train.txt``, or all that have a mask.

    ``colours`` is the class id of each colour, R + 256·G + 65536·B, where the dataset names them.
    """

    colours: dict[int, int] = field(default_factory=dict, kw_only=True)

    def image_paths(self) -> dict[str, Path]:
        """The path of each image by its key, sorted; missing images are reported and left out."""
        stored: dict[str, list[Path]] = {}
        for path in filter(is_image, files_below(self.root, IMAGES)):
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
        if self.colours:
            return self.mask(_mask_name(key), key, shape, self._by_colour).astype(np.uint8)
        return self.class_map(_mask_name, key, shape)

    def superpixels(self, key: str, shape: tuple[int, int]) -> NDArray[np.int32] | None:
        """The superpixel map of an image, int32 (H, W): its objects, where CVAT wrote them."""
        found = super().superpixels(key, shape)
        if found is not None or not (self.colours and (self.root / OBJECT_MASKS).is_dir()):
            return found
        return self.mask(f"{OBJECT_MASKS}/{key}.png", key, shape, _object_ids).astype(np.int32)

    def _by_colour(self, path: Path) -> NDArray[np.int64]:
        """The class ids of a mask in colours, int64 (H, W); those of a grey mask as they are."""
        colours = read_colours(path)
        found, where = np.unique(
            read_mask(path) if colours is None else colours, return_inverse=True
        )
        known = self.colours
        if colours is None:
            known = {class_id: class_id for class_id in (*range(len(self.classes)), VOID)}
        unknown = [int(value) for value in found if int(value) not in known]
        if unknown:
            shown = unknown[0] if colours is None else tuple(unknown[0].to_bytes(3, "little"))
            raise DatasetError(
                f"{path.name}: holds {shown}, which {LABEL_MAP} names no class for; add it there"
            )
        ids = np.array([known[int(value)] for value in found], dtype=np.int64)
        return ids[where].reshape(where.shape if colours is None else colours.shape)

    def _keys(self) -> list[str]:
        listed = self.root / LISTS / f"{self.split}.txt"
        if not listed.is_file() and self.split == TRAIN:
            return [key_of(path, self.root / MASKS) for path in files_below(self.root, MASKS)]
        try:
            lines = inside(self.root, listed).read_text("utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise DatasetError(
                f"{listed}: cannot be read ({error}); list the images' names in it, one a line"
            ) from error
        return list(dict.fromkeys(line.rstrip("\r") for line in lines if line.strip()))


def open_voc(root: Path, superpixel_count: int = 100, validation: bool = False) -> Voc:
    """A reader of a dataset in VOC's layout; DatasetError for an unusable class list."""
    if validation and not (root / LISTS / f"{VAL}.txt").is_file():
        raise DatasetError(f"{root}: has no {LISTS}/{VAL}.txt; list the validation images there")
    lists = {
        name: read_classes(inside(root, root / name))
        for name in CLASS_LISTS
        if (root / name).is_file()
    }
    colours: dict[int, int] = {}
    if (root / LABEL_MAP).is_file():
        lists[LABEL_MAP], colours = read_label_map(inside(root, root / LABEL_MAP))
    first = next(iter(lists), None)
    for name, classes in lists.items():
        if classes != lists[str(first)]:
            raise DatasetError(f"{root}: {first} and {name} name other classes; remove one of them")
    found = Voc(
        root,
        lists[first] if first else CLASSES,
        superpixel_count,
        VAL if validation else TRAIN,
        colours=colours,
    )
    if colours and (root / OBJECT_MASKS).is_dir() and not (root / OBJECTS).is_dir():
        found.notes.append(
            f"{root}: the superpixels are the objects in {OBJECT_MASKS}/; what none covers is not "
            "asked about (--fill slic covers it)"
        )
    if first is None:
        found.notes.append(
            f"{root}: has no class list ({', '.join((*CLASS_LISTS, LABEL_MAP))}), so the classes "
            "are taken to be the 21 of PASCAL VOC"
        )
    return found


def _object_ids(path: Path) -> NDArray[np.int64]:
    """The objects in a mask, int64 (H, W), by their colours in VOC's order; void is none."""
    found = read_colours(path)
    ids = read_mask(path) if found is None else ids_of(found).astype(np.int64)
    return np.where(ids == VOID, 0, ids)


def _mask_name(key: str) -> str:
    return f"{MASKS}/{key}.png"


def write(
    root: Path, classes: list[str], images: Iterable[OutputImage], suffix: str | None = None
) -> None:
    """Write VOC's layout; images keep their format, though the folder is called JPEGImages.

    With ``suffix``, all are called so, and turned upright.
    """
    keys = []
    for image in images:
        if suffix is None:
            image.write_image(root, IMAGES)
        else:
            image.write_upright(root, IMAGES, suffix)
        encode_label_map(path_below(root, MASKS, image.key, ".png"), image.labels)
        image.write_objects(root)
        keys.append(image.key)
    listed = path_below(root, LISTS, TRAIN, ".txt")
    listed.write_text("".join(f"{key}\n" for key in keys), "utf-8")
    write_classes(root / CLASS_LISTS[0], classes)

"""The dataset folder: ``images/ labels/ [objects/] [ground_truth/] classes.txt``.

Files that belong together have the same path below those folders, apart from the extension: the
*image key*. Label maps that nobody has corrected yet may lie in ``pseudo_labels/`` instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alc_backend.datasets.classes import read_classes, write_classes
from alc_backend.datasets.dataset import (
    GROUND_TRUTH,
    OBJECTS,
    TRAIN,
    VAL,
    Dataset,
    OutputImage,
    Sample,
    truth_name,
)
from alc_backend.datasets.images import encode_label_map
from alc_backend.datasets.names import files_below, inside, is_image, key_of, path_below
from alc_backend.errors import DatasetError

IMAGES, LABELS, PSEUDO_LABELS = "images", "labels", "pseudo_labels"
CLASSES = "classes.txt"


@dataclass
class Folder(Dataset):
    """A reader of dataset folders; for validation ``images/`` and ``ground_truth/`` suffice."""

    def image_paths(self) -> dict[str, Path]:
        """The path of each image by its key, sorted; images that share a key are left out."""
        by_key: dict[str, list[Path]] = {}
        for path in files_below(self.root, IMAGES):
            if is_image(path):
                by_key.setdefault(key_of(path, self.root / IMAGES), []).append(path)
            else:
                self.report(f"images/{path.name}: not an image; remove it or convert it to PNG")
        return self.unshared(by_key)

    def samples(self) -> Iterator[Sample]:
        """Read one image after another; unusable ones and masks without an image are reported."""
        yield from super().samples()
        paths = self.image_paths()
        for name in (self._labels, OBJECTS, GROUND_TRUTH):
            folder = self.root / name
            for path in files_below(self.root, name) if folder.is_dir() else ():
                if key_of(path, self.root / name) not in paths:
                    self.report(
                        f"{name}/{path.name}: no image of that name in images/; add the image "
                        "or remove the file"
                    )

    def labels(self, key: str, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """The label map of an image, uint8 (H, W); for a validation image its ground truth."""
        name_of = truth_name if self.split == VAL else self._label_name
        return self.class_map(name_of, key, shape)

    def _label_name(self, key: str) -> str:
        return f"{self._labels}/{key}.png"

    @property
    def _labels(self) -> str:
        return LABELS if (self.root / LABELS).is_dir() else PSEUDO_LABELS


def open_folder(root: Path, superpixel_count: int = 100, validation: bool = False) -> Folder:
    """A reader of the dataset folder ``root``; a validation folder may do without a class list.

    Raises DatasetError when the folder, ``images/``, the folder of masks or the class list is
    missing.
    """
    if not root.is_dir():
        raise DatasetError(f"{root}: is not a folder; give the dataset's folder")
    masks = (GROUND_TRUTH,) if validation else (LABELS, PSEUDO_LABELS)
    for names in ((IMAGES,), masks):
        if not any((root / name).is_dir() for name in names):
            raise DatasetError(
                f"{root}: has no folder {names[-1]}/; a dataset holds images/, labels/ or "
                "pseudo_labels/, objects/ (optional), ground_truth/ (optional) and classes.txt, or "
                "has the layout of VOC, COCO, Cityscapes, Hugging Face, CVAT or MMSegmentation"
            )
    path = root / CLASSES
    optional = validation and not path.is_file()
    classes = [] if optional else read_classes(inside(root, path))
    return Folder(root, classes, superpixel_count, VAL if validation else TRAIN)


def write(root: Path, classes: list[str], images: Iterable[OutputImage]) -> None:
    """Write a dataset folder: ``images/``, ``labels/`` (palette PNG), ``objects/``."""
    for image in images:
        image.write_image(root, IMAGES)
        encode_label_map(path_below(root, LABELS, image.key, ".png"), image.labels)
        image.write_objects(root)
    write_classes(root / CLASSES, classes)

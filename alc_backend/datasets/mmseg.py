"""MMSegmentation's layout: ``img_dir/SPLIT/`` and ``ann_dir/SPLIT/``.

Its loader expects one file ending of all images, so that every image is called ``.jpg`` whatever
its format is; decoders look at the content. Masks are palette PNGs of class ids, 255 = void.
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
from alc_backend.datasets.names import files_below, inside, is_image, key_of, path_below
from alc_backend.errors import DatasetError

IMAGES, MASKS, CLASSES, SUFFIX = "img_dir", "ann_dir", "classes.txt", ".jpg"


@dataclass
class MMSegmentation(Dataset):
    """A reader of the layout."""

    def image_paths(self) -> dict[str, Path]:
        """The path of each image by its key, sorted; images that share a key are left out."""
        folder = f"{IMAGES}/{self.split}"
        by_key: dict[str, list[Path]] = {}
        for path in filter(is_image, files_below(self.root, folder)):
            by_key.setdefault(key_of(path, self.root / folder), []).append(path)
        return self.unshared(by_key)

    def labels(self, key: str, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """The label map of an image, uint8 (H, W); DatasetError when it is unusable."""
        return self.class_map(self._mask_name, key, shape)

    def _mask_name(self, key: str) -> str:
        return f"{MASKS}/{self.split}/{key}.png"


def open_mmseg(root: Path, superpixel_count: int = 100, validation: bool = False) -> MMSegmentation:
    """A reader of the dataset in ``root``; DatasetError without a split or a class list."""
    split = VAL if validation else TRAIN
    if not (root / IMAGES / split).is_dir():
        raise DatasetError(f"{root}: has no folder {IMAGES}/{split}/; put the images there")
    path = root / CLASSES
    classes = [] if validation and not path.is_file() else read_classes(inside(root, path))
    return MMSegmentation(root, classes, superpixel_count, split)


def write(root: Path, classes: list[str], images: Iterable[OutputImage]) -> None:
    """Write the split ``train``, ``classes.txt`` and ``objects/``."""
    for image in images:
        image.write_upright(root, f"{IMAGES}/{TRAIN}", SUFFIX)
        encode_label_map(path_below(root, f"{MASKS}/{TRAIN}", image.key, ".png"), image.labels)
        image.write_objects(root)
    write_classes(root / CLASSES, classes)

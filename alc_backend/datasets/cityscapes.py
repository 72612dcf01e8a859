"""The layout of Cityscapes: ``leftImg8bit/SPLIT/CITY/`` and ``gtFine/SPLIT/CITY/``.

Masks hold Cityscapes' label ids (not its train ids); 0 (unlabeled) is void. ``labelIds.json`` gives
the label id of each class, in the order of the class ids. Without that file a dataset has the 19
classes that Cityscapes evaluates, and all other ids are void.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alc_backend.common.files import read_json, write_json
from alc_backend.core.arrays import VOID
from alc_backend.datasets.classes import checked_classes
from alc_backend.datasets.dataset import TRAIN, VAL, Dataset, OutputImage
from alc_backend.datasets.names import files_below, inside, is_image, key_of, path_below
from alc_backend.errors import DatasetError

IMAGES, MASKS, MAPPING = "leftImg8bit", "gtFine", "labelIds.json"
IMAGE_MARK, MASK_MARK = "_leftImg8bit", "_gtFine_labelIds"

NO_CITY = "_/"
"""The city of images without a folder of their own: readers of Cityscapes expect one."""

UNLABELED = 0

LABEL_IDS = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
"""The label id of each class that Cityscapes evaluates."""

_FIRST_FREE = 34


@dataclass
class Cityscapes(Dataset):
    """A dataset in Cityscapes' layout.

    ``ids`` is the label id of each class name; with ``whole`` masks may hold no other label ids
    but 0.
    """

    ids: Mapping[str, int] = field(default_factory=lambda: LABEL_IDS)
    whole: bool = False

    def image_paths(self) -> dict[str, Path]:
        """The path of each image by its key, ``CITY/NAME``, sorted."""
        folder = self.root / IMAGES / self.split
        by_key: dict[str, list[Path]] = {}
        for path in filter(is_image, files_below(self.root, f"{IMAGES}/{self.split}")):
            key = key_of(path, folder)
            if key.endswith(IMAGE_MARK):
                by_key.setdefault(key.removesuffix(IMAGE_MARK).removeprefix(NO_CITY), []).append(
                    path
                )
            else:
                self.report(f"{path.name}: does not end in {IMAGE_MARK}; rename or remove it")
        return self.unshared(by_key)

    def use_classes(self, classes: Sequence[str]) -> None:
        """Read the ground truth as ids of ``classes``; label ids have names, other ids are void."""
        self.classes = list(classes)

    def labels(self, key: str, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """The label map of an image, uint8 (H, W); DatasetError when it is unusable."""
        name = f"{MASKS}/{self.split}/{_in_city(key)}{MASK_MARK}.png"
        mask = self.mask(name, key, shape)
        if mask.max(initial=0) > 255:
            raise DatasetError(f"{name}: label ids must lie in 0..255; export it again")
        table = np.full(256, VOID, dtype=np.uint8)
        known = {UNLABELED}
        for class_id, class_name in enumerate(self.classes):
            if class_name in self.ids:
                table[self.ids[class_name]] = class_id
                known.add(self.ids[class_name])
        if self.whole:
            wrong = np.setdiff1d(mask, list(known))
            if len(wrong):
                raise DatasetError(
                    f"{name}: holds label id {wrong[0]}, which {MAPPING} does not name; add it or "
                    "renumber the mask"
                )
        return table[mask]


def open_cityscapes(
    root: Path, superpixel_count: int = 100, validation: bool = False
) -> Cityscapes:
    """Open a dataset in Cityscapes' layout; DatasetError for an unusable ``labelIds.json``."""
    own = (root / MAPPING).is_file()
    ids = read_mapping(inside(root, root / MAPPING)) if own else LABEL_IDS
    split = VAL if validation else TRAIN
    if not (root / IMAGES / split).is_dir():
        raise DatasetError(f"{root}: has no folder {IMAGES}/{split}/; put the images there")
    return Cityscapes(root, list(ids), superpixel_count, split, ids=ids, whole=own)


def read_mapping(path: Path) -> dict[str, int]:
    """The label id of each class in a JSON file such as ``{"road": 7, "sofa": 34}``.

    Raises DatasetError unless each class has an id of its own in 1..255 (0 is void).
    """
    found = read_json(path)
    if not isinstance(found, dict):
        raise DatasetError(f'{path}: must be a JSON object like {{"road": 7}}; rewrite it')
    names: dict[int, str] = {}
    for name, number in found.items():
        if type(number) is not int or not 0 < number < 256:
            raise DatasetError(
                f"{path}: gives {name!r} the id {number!r}; ids lie in 1..255, 0 stands for void"
            )
        if number in names:
            raise DatasetError(
                f"{path}: gives {names[number]!r} and {name!r} the same id {number}; "
                "give each class an id of its own"
            )
        names[number] = name
    checked_classes(list(found), str(path))
    return found


def label_ids(classes: list[str], given: Mapping[str, int] | None = None) -> dict[str, int]:
    """The label id of each class, in order: from ``given``, or else the one that Cityscapes uses.

    Classes that Cityscapes does not have get ids from 34 on, then unused ones below 34. Raises
    DatasetError when ``given`` lacks a class.
    """
    if given is not None:
        missing = [name for name in classes if name not in given]
        if missing:
            raise DatasetError(
                f"the file of label ids names no id for {missing[0]!r}; give every class one: "
                f"{', '.join(classes)}"
            )
        return {name: given[name] for name in classes}
    taken = {LABEL_IDS[name] for name in classes if name in LABEL_IDS}
    rest = (n for n in [*range(_FIRST_FREE, 256), *range(1, _FIRST_FREE)] if n not in taken)
    return {name: LABEL_IDS[name] if name in LABEL_IDS else next(rest) for name in classes}


def write(
    root: Path,
    classes: list[str],
    images: Iterable[OutputImage],
    given: Mapping[str, int] | None = None,
) -> None:
    """Write the split ``train`` in Cityscapes' layout; ``given`` as in :func:`label_ids`."""
    ids = label_ids(classes, given)
    table = np.full(256, UNLABELED, dtype=np.uint8)
    table[: len(classes)] = list(ids.values())
    for image in images:
        city = _in_city(image.key)
        path = path_below(root, f"{MASKS}/{TRAIN}", city, f"{MASK_MARK}.png")
        Image.fromarray(table[image.labels]).save(path, format="PNG")
        image.write_image(root, f"{IMAGES}/{TRAIN}", f"{city}{IMAGE_MARK}")
        image.write_objects(root)
    write_json(root / MAPPING, ids)


def _in_city(key: str) -> str:
    """The key below a city: its own folder, or :data:`NO_CITY`, which reading removes again."""
    return key if "/" in key and not key.startswith(NO_CITY) else f"{NO_CITY}{key}"

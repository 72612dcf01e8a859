"""The layout of Hugging Face ``datasets``: an image folder with ``metadata.jsonl``.

``SPLIT/metadata.jsonl`` names each image (``file_name``) and its mask of class ids
(``label_file_name``, 255 = void); ``id2label.json`` gives the class name of each id.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alc_backend.common.files import read_json, read_json_lines, write_json, write_json_lines
from alc_backend.datasets.classes import checked_classes, read_classes
from alc_backend.datasets.dataset import TRAIN, VAL, Dataset, OutputImage
from alc_backend.datasets.images import encode_label_map
from alc_backend.datasets.names import checked_name, inside, is_image, key_of, path_below
from alc_backend.errors import DatasetError

METADATA, ID2LABEL, CLASSES = "metadata.jsonl", "id2label.json", "classes.txt"
IMAGES, LABELS = "images", "labels"

MASKS = ("label_file_name", "mask_file_name", "annotation_file_name", "label", "mask", "annotation")
"""Fields of ``metadata.jsonl`` that may name the mask; the first one present is used."""

SPLITS = {TRAIN: ("train", ""), VAL: ("validation", "val")}
"""The possible folders of each split."""


@dataclass
class HuggingFace(Dataset):
    """A dataset in the layout of Hugging Face's image folders."""

    _masks: dict[str, str] = field(default_factory=dict, init=False)

    def image_paths(self) -> dict[str, Path]:
        """The path of each image by its key, sorted; rows without image or mask are reported."""
        by_key: dict[str, list[Path]] = {}
        listed = inside(self.root, self.base / METADATA)
        for number, row in enumerate(read_json_lines(listed), start=1):
            try:
                name, mask = _names(row, f"{METADATA}: row {number}")
            except DatasetError as error:
                self.report(str(error))
                continue
            path = self.base / name
            if not path.is_file() or not is_image(path):
                self.report(f"{name}: there is no such image; add it or remove row {number}")
                continue
            key = key_of(Path(name.removeprefix(f"{IMAGES}/")), Path())
            by_key.setdefault(key, []).append(path)
            self._masks[key] = (self.base / mask).relative_to(self.root).as_posix()
        return self.unshared(by_key)

    def labels(self, key: str, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """The label map of an image, uint8 (H, W); DatasetError when it is unusable."""
        return self.class_map(self._mask_name, key, shape)

    def _mask_name(self, key: str) -> str:
        return self._masks[key]

    @property
    def base(self) -> Path:
        """The folder of the split that is read."""
        return find_split(self.root, self.split) or self.root


def find_split(root: Path, split: str) -> Path | None:
    """The folder of a split that has a ``metadata.jsonl``; None when there is none."""
    folders = (root / name for name in SPLITS[split])
    return next((folder for folder in folders if (folder / METADATA).is_file()), None)


def open_huggingface(
    root: Path, superpixel_count: int = 100, validation: bool = False
) -> HuggingFace:
    """A reader of such a dataset; DatasetError when its class list is missing or unusable."""
    split = VAL if validation else TRAIN
    named = any((root / name).is_file() for name in (ID2LABEL, CLASSES))
    classes = _classes(root) if named or not validation else []
    return HuggingFace(root, classes, superpixel_count, split)


def write(root: Path, classes: list[str], images: Iterable[OutputImage]) -> None:
    """Write ``train/`` with ``metadata.jsonl``, ``images/``, ``labels/``, ``objects/``."""
    rows = []
    base = root / TRAIN
    for image in images:
        image.write_image(base, IMAGES)
        encode_label_map(path_below(base, LABELS, image.key, ".png"), image.labels)
        image.write_objects(base)
        rows.append(
            {
                "file_name": f"{IMAGES}/{image.key}{image.suffix}",
                "label_file_name": f"{LABELS}/{image.key}.png",
                "objects_file_name": f"objects/{image.key}.png",
                "image_id": image.key,
            }
        )
    write_json_lines(base / METADATA, rows)
    write_json(root / ID2LABEL, {str(number): name for number, name in enumerate(classes)})


def _names(row: Any, where: str) -> tuple[str, str]:
    """The names of a row's image and mask."""
    if not isinstance(row, dict):
        raise DatasetError(f"{where}: is not a JSON object; export the file again")
    masks = [row[name] for name in MASKS if isinstance(row.get(name), str)]
    if not masks:
        raise DatasetError(f"{where}: names no mask; add the field {MASKS[0]!r}")
    return checked_name(row.get("file_name"), where), checked_name(masks[0], where)


def _classes(root: Path) -> list[str]:
    path = root / ID2LABEL
    if not path.is_file():
        return read_classes(inside(root, root / CLASSES))
    found = read_json(inside(root, path))
    listed = found if isinstance(found, dict) else {}
    names = [listed.get(str(number)) for number in range(len(listed))]
    if not names or not all(isinstance(name, str) for name in names):
        raise DatasetError(f'{path}: must be like {{"0": "background", "1": "cat"}}; rewrite it')
    return checked_classes([str(name) for name in names], str(path))

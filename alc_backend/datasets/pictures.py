"""A folder of plain pictures and a class list: nothing is labelled yet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alc_backend.datasets.classes import background, read_classes, uncovered_class
from alc_backend.datasets.dataset import Dataset
from alc_backend.datasets.names import files_below, is_picture, key_of
from alc_backend.errors import DatasetError


@dataclass
class Pictures(Dataset):
    """Pictures anywhere below a folder; their label maps start as background."""

    def pictures(self) -> dict[str, Path]:
        """Image key → picture, sorted; what is no picture, or shares a key, is reported."""
        by_key: dict[str, list[Path]] = {}
        for path in files_below(self.root):
            if is_picture(path):
                by_key.setdefault(key_of(path, self.root), []).append(path)
            else:
                name = path.relative_to(self.root).as_posix()
                self.report(f"{name}: not a picture; remove it or convert it to PNG")
        return self.unshared(by_key)

    def labels(self, key: str, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """Background everywhere, uint8 (H, W)."""
        return np.full(shape, uncovered_class(self.classes), dtype=np.uint8)


def open_pictures(root: Path, classes: Path, *, blank: bool) -> Pictures:
    """Open a folder of pictures with the class list in the text file ``classes``.

    ``blank``: the pictures are to start as background, for which there must be a class. Raises
    DatasetError when there is none, or when the folder or the list cannot be used.
    """
    if not root.is_dir():
        raise DatasetError(f"{root}: is not a folder; give the folder of the pictures")
    names = read_classes(classes)
    if blank and background(names) is None:
        raise DatasetError(
            f"{classes}: names no class background, which pictures without masks start as; add it "
            "as a line of its own, or let Grounded-SAM label the pictures"
        )
    found = Pictures(root, names)
    if not found.pictures():
        raise DatasetError(f"{root}: holds no pictures; give the folder that has them")
    return found

"""A folder of images that nobody has labelled yet, and a class list."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alc_backend.datasets.classes import background, read_classes, uncovered_class
from alc_backend.datasets.dataset import Dataset
from alc_backend.datasets.names import files_below, is_image, key_of
from alc_backend.errors import DatasetError


@dataclass
class Images(Dataset):
    """A reader of images anywhere below a folder; their label maps are background."""

    def image_paths(self) -> dict[str, Path]:
        """The path of each image by its key, sorted; other files and shared keys are reported."""
        by_key: dict[str, list[Path]] = {}
        for path in files_below(self.root):
            if is_image(path):
                by_key.setdefault(key_of(path, self.root), []).append(path)
            else:
                name = path.relative_to(self.root).as_posix()
                self.report(f"{name}: not an image; remove it or convert it to PNG")
        return self.unshared(by_key)

    def labels(self, key: str, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """A label map of background, uint8 (H, W), or of void without such a class."""
        return np.full(shape, uncovered_class(self.classes), dtype=np.uint8)


def open_images(root: Path, classes: Path, *, blank: bool) -> Images:
    """A reader of a folder of images, with the class list in the text file ``classes``.

    With ``blank`` the images start as background, for which there must be a class. Raises
    DatasetError when there is none, or when the folder or the list cannot be used.
    """
    if not root.is_dir():
        raise DatasetError(f"{root}: is not a folder; give the folder of the images")
    names = read_classes(classes)
    if blank and background(names) is None:
        raise DatasetError(
            f"{classes}: names no class background, which images without masks start as; add it "
            "as a line of its own, or let Grounded-SAM label the images"
        )
    found = Images(root, names)
    if not found.image_paths():
        raise DatasetError(f"{root}: holds no images; give the folder that has them")
    return found

"""What all dataset layouts share: images as they are read and written, and the base of readers."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alc_backend.core.arrays import VOID
from alc_backend.datasets.images import encode_ids, read_ids, read_image, read_mask
from alc_backend.datasets.names import path_below
from alc_backend.datasets.superpixels import slic
from alc_backend.errors import DatasetError

TRAIN, VAL = "train", "val"
"""The splits of a dataset: images to correct, and validation images with ground truth."""

MaskReader = Callable[[Path], NDArray[np.int64]]

Segment = Callable[
    [NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int32] | None], NDArray[np.int32]
]
"""Called with an image uint8 (H, W, 3), its label map uint8 (H, W), and the superpixel map int32
(H, W) that came with it, or None; returns the superpixel map to use, int32 (H, W)."""

OBJECTS = "objects"
"""The folder of the superpixel maps, in every layout."""


@dataclass(frozen=True)
class Sample:
    """An image of a dataset with its maps, read and checked.

    ``labels`` uint8 (H, W); ``superpixels`` int32 (H, W); ``truth`` uint8 (H, W) or None.
    ``labels`` and ``superpixels`` are None for validation images, which carry only ``truth``.
    """

    key: str
    path: Path
    height: int
    width: int
    labels: NDArray[np.uint8] | None
    superpixels: NDArray[np.int32] | None
    truth: NDArray[np.uint8] | None


@dataclass(frozen=True)
class OutputImage:
    """An image to be written, with its label map uint8 (H, W) and superpixel map int32 (H, W).

    ``path`` is the image file, None to write the maps only; ``suffix`` its extension with the dot.
    """

    key: str
    suffix: str
    path: Path | None
    labels: NDArray[np.uint8]
    superpixels: NDArray[np.int32]

    def write_image(self, root: Path, folder: str, name: str | None = None) -> None:
        """Copy the image file to ``root/folder/NAME + suffix``; NAME defaults to the image key."""
        target = path_below(root, folder, name or self.key, self.suffix)
        if self.path is not None:
            shutil.copyfile(self.path, target)

    def write_objects(self, root: Path) -> None:
        """Write the superpixel map to ``root/objects/KEY.png``."""
        encode_ids(path_below(root, OBJECTS, self.key, ".png"), self.superpixels)


@dataclass
class Dataset(ABC):
    """A dataset folder: iterate over :meth:`samples`, then look at ``problems``.

    Only the given ``split`` is read. ``problems`` gains one sentence for each file that was left
    out, naming the file and the remedy. Superpixels come from ``segment`` where it is given, else
    from ``objects/``, else from SLIC, about ``superpixel_count`` an image.
    """

    root: Path
    classes: list[str]
    superpixel_count: int = 100
    split: str = TRAIN
    problems: list[str] = field(default_factory=list)
    segment: Segment | None = field(default=None, kw_only=True)

    @abstractmethod
    def image_paths(self) -> dict[str, Path]:
        """The path of each image by its key, sorted; unusable ones are reported and left out."""

    @abstractmethod
    def labels(self, key: str, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """The label map of an image, uint8 (H, W); DatasetError when it is unusable."""

    def truth(self, key: str, shape: tuple[int, int]) -> NDArray[np.uint8] | None:
        """The ground truth of an image, uint8 (H, W); None where the dataset has none."""
        return None

    @property
    def base(self) -> Path:
        """The folder that contains ``objects/``, if the dataset has superpixel maps."""
        return self.root

    def samples(self) -> Iterator[Sample]:
        """Read one image after another; unusable ones are reported and left out."""
        for key, path in self.image_paths().items():
            try:
                yield self._sample(key, path)
            except DatasetError as error:
                self.report(str(error))

    def validation_samples(self) -> Iterator[Sample]:
        """Read one image after another with its ground truth only; unusable ones are left out."""
        for key, path in self.image_paths().items():
            try:
                height, width = read_image(path).shape[:2]
                truth = self.labels(key, (height, width))
            except DatasetError as error:
                self.report(str(error))
            else:
                yield Sample(key, path, height, width, None, None, truth)

    def report(self, problem: str) -> None:
        """Add a problem to ``problems`` unless it is already there."""
        if problem not in self.problems:
            self.problems.append(problem)

    def unshared(self, by_key: dict[str, list[Path]]) -> dict[str, Path]:
        """The path of each key that one image alone has, sorted; the others are reported."""
        for key, paths in by_key.items():
            if len(paths) > 1:
                names = ", ".join(path.name for path in paths)
                self.report(f"{names}: share the name {key!r}; rename all but one")
        return {key: paths[0] for key, paths in sorted(by_key.items()) if len(paths) == 1}

    def mask(
        self, name: str, key: str, shape: tuple[int, int], read: MaskReader = read_mask
    ) -> NDArray[np.int64]:
        """The mask ``root/name`` of an image, int64 (H, W).

        Raises DatasetError when it is missing, unreadable or not of the image's shape.
        """
        path = self.root / name
        if not path.is_file():
            raise DatasetError(f"image {key}: has no {name}; add the mask or remove the image")
        try:
            mask = read(path)
        except DatasetError as error:
            raise DatasetError(f"{Path(name).parent.as_posix()}/{error}") from error
        if mask.shape != shape:
            raise DatasetError(
                f"{name}: is {mask.shape[1]}×{mask.shape[0]}, its image is "
                f"{shape[1]}×{shape[0]}; export the mask at the image's size"
            )
        return mask

    def class_map(self, name: str, key: str, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """The mask ``root/name`` of an image as class ids, uint8 (H, W), 255 = void.

        Raises DatasetError as :meth:`mask` does, and for ids that are no class.
        """
        mask = self.mask(name, key, shape)
        wrong = np.setdiff1d(mask, [*range(len(self.classes)), VOID])
        if len(wrong):
            shown = ", ".join(str(value) for value in wrong[:5])
            raise DatasetError(
                f"{name}: holds class id {shown}, but the dataset names {len(self.classes)} "
                f"classes (ids 0..{len(self.classes) - 1}, 255 = void); add the class to the class "
                "list or renumber the mask"
            )
        return mask.astype(np.uint8)

    def _sample(self, key: str, path: Path) -> Sample:
        image = read_image(path)
        shape = (image.shape[0], image.shape[1])
        labels = self.labels(key, shape)
        objects = self._superpixels(key, shape) if (self.base / OBJECTS).is_dir() else None
        if self.segment is not None:
            superpixels = self.segment(image, labels, objects)
        elif objects is not None:
            superpixels = objects
        else:
            superpixels = slic(image, self.superpixel_count)
        return Sample(key, path, *shape, labels, superpixels, self.truth(key, shape))

    def _superpixels(self, key: str, shape: tuple[int, int]) -> NDArray[np.int32]:
        name = (self.base / OBJECTS / f"{key}.png").relative_to(self.root).as_posix()
        ids = self.mask(name, key, shape, read_ids)
        if ids.min(initial=0) < 0 or ids.max(initial=0) > np.iinfo(np.int32).max:
            raise DatasetError(f"{name}: superpixel ids must lie in 0..2147483647; renumber them")
        return ids.astype(np.int32)

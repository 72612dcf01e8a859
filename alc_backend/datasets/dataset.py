"""What all dataset layouts share: an image that is read, one that is written, and the reader."""

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
from alc_backend.datasets.names import place
from alc_backend.datasets.superpixels import slic
from alc_backend.errors import DatasetError

TRAIN, VAL = "train", "val"
"""The splits of a dataset: images to correct, and images with ground truth to measure on."""

MaskReader = Callable[[Path], NDArray[np.int64]]

Segment = Callable[
    [NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int32] | None], NDArray[np.int32]
]
"""Makes superpixels of an image, its label map, and the superpixels that came with it."""

OBJECTS = "objects"
"""The folder of the superpixel maps, in every layout."""


@dataclass(frozen=True)
class Sample:
    """One image of a dataset, read and checked.

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
    """One image to be written. ``labels`` uint8 (H, W), ``superpixels`` int32 (H, W).

    ``path`` is the image itself, None to leave it out; ``suffix`` its ending with the dot.
    """

    key: str
    suffix: str
    path: Path | None
    labels: NDArray[np.uint8]
    superpixels: NDArray[np.int32]

    def write_image(self, root: Path, folder: str, name: str | None = None) -> None:
        """Copy the image, byte for byte, to ``root/folder/NAME + suffix``; NAME is its key."""
        target = place(root, folder, name or self.key, self.suffix)
        if self.path is not None:
            shutil.copyfile(self.path, target)

    def write_objects(self, root: Path) -> None:
        """Write the superpixel map to ``root/objects/KEY.png``."""
        encode_ids(place(root, OBJECTS, self.key, ".png"), self.superpixels)


@dataclass
class Dataset(ABC):
    """A dataset folder; iterate :meth:`samples`, then read ``problems``.

    ``split`` is the part of it that is read; ``problems`` gains one sentence per file that was
    left out, naming the file and the remedy. ``segment`` makes the superpixels where they are to
    be others than those of ``objects/``, else SLIC's.
    """

    root: Path
    classes: list[str]
    superpixel_count: int = 100
    split: str = TRAIN
    problems: list[str] = field(default_factory=list)
    segment: Segment | None = field(default=None, kw_only=True)

    @abstractmethod
    def image_paths(self) -> dict[str, Path]:
        """Image key → image, sorted; what cannot be used is reported and left out."""

    @abstractmethod
    def labels(self, key: str, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """The label map uint8 (H, W) of an image; DatasetError when it is unusable."""

    def truth(self, key: str, shape: tuple[int, int]) -> NDArray[np.uint8] | None:
        """The ground truth uint8 (H, W) beside the label map; None where the layout has none."""
        return None

    @property
    def base(self) -> Path:
        """The folder that holds ``objects/``, where there is one."""
        return self.root

    def samples(self) -> Iterator[Sample]:
        """Read image after image; what does not fit is reported and left out."""
        for key, path in self.image_paths().items():
            try:
                yield self._sample(key, path)
            except DatasetError as error:
                self.report(str(error))

    def validation_samples(self) -> Iterator[Sample]:
        """Images with ground truth only, for the model mIoU."""
        for key, path in self.image_paths().items():
            try:
                height, width = read_image(path).shape[:2]
                truth = self.labels(key, (height, width))
            except DatasetError as error:
                self.report(str(error))
            else:
                yield Sample(key, path, height, width, None, None, truth)

    def report(self, problem: str) -> None:
        """Note a problem, once."""
        if problem not in self.problems:
            self.problems.append(problem)

    def unshared(self, by_key: dict[str, list[Path]]) -> dict[str, Path]:
        """The images whose key is theirs alone, by key; the others are reported."""
        for key, paths in by_key.items():
            if len(paths) > 1:
                names = ", ".join(path.name for path in paths)
                self.report(f"{names}: share the name {key!r}; rename all but one")
        return {key: paths[0] for key, paths in sorted(by_key.items()) if len(paths) == 1}

    def mask(
        self, name: str, key: str, shape: tuple[int, int], read: MaskReader = read_mask
    ) -> NDArray[np.int64]:
        """The mask ``root/name`` of an image, int64 (H, W); DatasetError where it does not fit."""
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
        """The mask ``root/name`` as class ids uint8 (H, W), 255 = void."""
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

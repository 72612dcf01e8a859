"""What all dataset layouts share: images as they are read and written, and the base of readers."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from alc_backend.core.arrays import VOID
from alc_backend.datasets.images import (
    encode_ids,
    encode_image,
    is_black_and_white,
    is_turned,
    read_ids,
    read_image,
    read_mask,
)
from alc_backend.datasets.names import checked_key, file_below, inside, path_below, same_file
from alc_backend.datasets.superpixels import slic
from alc_backend.errors import DatasetError

Record = TypeVar("Record")
"""What an index says of one image."""

TRAIN, VAL = "train", "val"
"""The splits of a dataset: images to correct, and validation images with ground truth."""

MaskReader = Callable[[Path], NDArray[np.int64]]

MaskName = Callable[[str], str]
"""Called with an image key; returns the path of its mask below the dataset's root."""

Segment = Callable[
    [NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int32] | None], NDArray[np.int32]
]
"""Called with an image uint8 (H, W, 3), its label map uint8 (H, W), and the superpixel map int32
(H, W) that came with it, or None; returns the superpixel map to use, int32 (H, W)."""

_UNKNOWN = 256
"""Marks a class of a validation folder that the training images do not have."""

OBJECTS, GROUND_TRUTH = "objects", "ground_truth"
"""The folders of the superpixel maps and of the ground truth, in every layout."""


@dataclass(frozen=True)
class Sample:
    """An image of a dataset with its maps, read and checked.

    ``labels`` uint8 (H, W); ``superpixels`` int32 (H, W); ``truth`` uint8 (H, W) or None.
    ``labels`` and ``superpixels`` are None for validation images, which carry only ``truth``;
    ``superpixels`` also for images that were known before.
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

    def write_upright(self, root: Path, folder: str, suffix: str, name: str | None = None) -> None:
        """Write the image to ``root/folder/NAME + suffix``, for what knows no EXIF orientation.

        An image without one is copied as it is; a turned one becomes a PNG of what browsers show.
        """
        target = path_below(root, folder, name or self.key, suffix)
        if self.path is None:
            return
        if is_turned(self.path):
            encode_image(target, read_image(self.path))
        else:
            shutil.copyfile(self.path, target)

    def write_objects(self, root: Path) -> None:
        """Write the superpixel map to ``root/objects/KEY.png``."""
        encode_ids(path_below(root, OBJECTS, self.key, ".png"), self.superpixels)


@dataclass
class Dataset(ABC):
    """A dataset folder: iterate over :meth:`samples`, then look at ``problems``.

    Only the given ``split`` is read. ``problems`` gains one sentence for each file that was left
    out, naming the file and the remedy; ``notes`` says what was assumed, and may be wrong.
    Superpixels come from ``segment`` where it is given, else from ``objects/``, else from SLIC,
    about ``superpixel_count`` an image. ``classes`` are those that the folder names itself; a
    validation folder may name none, and is given the training images' by :meth:`use_classes`. No
    superpixels are made for the images in ``known`` (keys).
    """

    root: Path
    classes: list[str]
    superpixel_count: int = 100
    split: str = TRAIN
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    segment: Segment | None = field(default=None, kw_only=True)
    known: frozenset[str] = field(default=frozenset(), kw_only=True)
    _renumbered: NDArray[np.uint16] | None = field(default=None, init=False)
    _with_ids: dict[MaskName, bool] = field(default_factory=dict, init=False)

    @abstractmethod
    def image_paths(self) -> dict[str, Path]:
        """The path of each image by its key, sorted; unusable ones are reported and left out."""

    @abstractmethod
    def labels(self, key: str, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """The label map of an image, uint8 (H, W); DatasetError when it is unusable."""

    def truth(self, key: str, shape: tuple[int, int]) -> NDArray[np.uint8] | None:
        """The ground truth of an image, uint8 (H, W); None where the dataset has none.

        In every layout it lies in ``ground_truth/``, as masks of class ids.
        """
        if not (self.root / GROUND_TRUTH).is_dir():
            return None
        return self.class_map(truth_name, key, shape)

    def superpixels(self, key: str, shape: tuple[int, int]) -> NDArray[np.int32] | None:
        """The superpixel map that came with an image, int32 (H, W); None where there are none."""
        if not (self.base / OBJECTS).is_dir():
            return None
        name = (self.base / OBJECTS / f"{key}.png").relative_to(self.root).as_posix()
        return self.mask(name, key, shape, read_ids).astype(np.int32)

    @property
    def base(self) -> Path:
        """The folder that contains ``objects/``, if the dataset has superpixel maps."""
        return self.root

    @property
    def image_root(self) -> Path:
        """The folder that images may not lead out of."""
        return self.root

    def use_classes(self, classes: Sequence[str]) -> None:
        """Read the ground truth of validation images as ids of ``classes``.

        Where the folder names classes of its own, they are matched by name, whatever their order.
        Raises DatasetError when none of them is among ``classes``.
        """
        if self.classes and not set(self.classes) & set(classes):
            raise DatasetError(
                f"{self.root}: names the classes {', '.join(self.classes)}, none of which the "
                f"training images have ({', '.join(classes)}); rename them in its class list"
            )
        if not self.classes:
            self.classes = list(classes)
        elif self.classes != list(classes):
            table = np.full(VOID + 1, _UNKNOWN, dtype=np.uint16)
            table[VOID] = VOID
            for own, name in enumerate(self.classes):
                if name in classes:
                    table[own] = list(classes).index(name)
            self._renumbered = table

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
                truth = self._renumber(key, self.labels(key, (height, width)))
            except DatasetError as error:
                self.report(str(error))
            else:
                yield Sample(key, path, height, width, None, None, truth)

    def report(self, problem: str) -> None:
        """Add a problem to ``problems`` unless it is already there.

        What cannot be printed, as file names may hold, is written as an escape sequence.
        """
        shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in problem)
        if shown not in self.problems:
            self.problems.append(shown)

    def located(
        self, records: Iterable[Record], find: Callable[[Record], tuple[Path, str]]
    ) -> tuple[dict[str, Path], dict[str, Record]]:
        """The images that an index lists: their paths and their records, by their keys.

        ``find`` gives the path and the key of one, or raises DatasetError: that is reported, and
        the image left out, as are those of :meth:`unshared`.
        """
        by_key: dict[str, list[Path]] = {}
        record_of: dict[str, Record] = {}
        for record in records:
            try:
                path, key = find(record)
            except DatasetError as error:
                self.report(str(error))
                continue
            by_key.setdefault(key, []).append(path)
            record_of[key] = record
        return self.unshared(by_key), record_of

    def unshared(self, by_key: dict[str, list[Path]]) -> dict[str, Path]:
        """The path of each key that one image alone has, sorted; the others are reported.

        So are keys that are no names (:func:`checked_key`), and links that lead out of the folder.
        """
        sharing: dict[str, list[str]] = {}
        for key, paths in by_key.items():
            sharing.setdefault(same_file(key), []).extend([key] * len(paths))
        found: dict[str, Path] = {}
        for key, paths in sorted(by_key.items()):
            shared = sharing[same_file(key)]
            if len(paths) > 1:
                names = ", ".join(path.name for path in paths)
                self.report(f"{names}: share the name {key!r}; rename all but one")
            elif len(shared) > 1:
                self.report(
                    f"{' and '.join(sorted(shared))}: are one name where letter case does not "
                    "count; rename all but one"
                )
            else:
                try:
                    checked_key(key)
                    found[key] = inside(self.image_root, paths[0])
                except DatasetError as error:
                    self.report(str(error))
        return found

    def mask(
        self, name: str, key: str, shape: tuple[int, int], read: MaskReader = read_mask
    ) -> NDArray[np.int64]:
        """The mask ``root/name`` of an image, int64 (H, W).

        Raises DatasetError when it is missing, unreadable or not of the image's shape.
        """
        path = file_below(self.root, name)
        if path is None:
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

    def class_map(self, name_of: MaskName, key: str, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """The mask ``root/name_of(key)`` of an image as class ids, uint8 (H, W), 255 = void.

        Raises DatasetError as :meth:`mask` does, for ids that are no class, and for the masks of a
        dataset that are all black and white.
        """
        name = name_of(key)
        mask = self.mask(name, key, shape)
        ids = np.unique(mask)
        if ids.tolist() == [0, VOID] and not self._holds_ids(name_of, name):
            raise DatasetError(
                f"{Path(name).parent.as_posix()}: all masks hold 0 and 255 alone, shown in black "
                "and white, but 255 stands for void; write class ids, such as 1 for the "
                "foreground, or use palette PNGs if 255 is meant to be void"
            )
        wrong = np.setdiff1d(ids, [*range(len(self.classes)), VOID])
        if len(wrong):
            shown = ", ".join(str(value) for value in wrong[:5])
            raise DatasetError(
                f"{name}: holds class id {shown}, but the dataset names {len(self.classes)} "
                f"classes (ids 0..{len(self.classes) - 1}, 255 = void); add the class to the class "
                "list or renumber the mask"
            )
        return mask.astype(np.uint8)

    def _holds_ids(self, name_of: MaskName, name: str) -> bool:
        """Whether masks hold class ids, the one called ``name`` having but 0 and 255.

        It may be of an image that is void apart from its first class; then 255 is not shown white,
        or some other mask of the dataset holds another id.
        """
        path = file_below(self.root, name)
        if path is None or not is_black_and_white(path):
            return True
        if name_of not in self._with_ids:
            self._with_ids[name_of] = any(
                self._holds_another_id(name_of(key)) for key in self.image_paths()
            )
        return self._with_ids[name_of]

    def _holds_another_id(self, name: str) -> bool:
        """Whether a mask holds any id but 0 and 255; False when it cannot be read."""
        try:
            path = file_below(self.root, name)
            return path is not None and not set(np.unique(read_mask(path))) <= {0, VOID}
        except DatasetError:
            return False

    def _renumber(self, key: str, truth: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Ground truth in the ids of the training images' classes."""
        if self._renumbered is None:
            return truth
        renumbered = self._renumbered[truth]
        unknown = truth[renumbered == _UNKNOWN]
        if len(unknown):
            raise DatasetError(
                f"image {key}: has the class {self.classes[unknown[0]]!r}, which the training "
                "images do not have; rename the class, or remove the image from the validation "
                "images"
            )
        return renumbered.astype(np.uint8)

    def _sample(self, key: str, path: Path) -> Sample:
        image = read_image(path)
        shape = (image.shape[0], image.shape[1])
        labels = self.labels(key, shape)
        objects = self.superpixels(key, shape)
        superpixels: NDArray[np.int32] | None
        if key in self.known:
            superpixels = None
        elif self.segment is not None:
            superpixels = self.segment(image, labels, objects)
        elif objects is not None:
            superpixels = objects
        else:
            superpixels = slic(image, self.superpixel_count)
        return Sample(key, path, *shape, labels, superpixels, self.truth(key, shape))


def truth_name(key: str) -> str:
    """The path of an image's ground truth below the dataset's root."""
    return f"{GROUND_TRUTH}/{key}.png"

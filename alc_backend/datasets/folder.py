"""The dataset folder: ``images/ pseudo_labels/ objects/ [ground_truth/] classes.txt``.

Files belong together by their path below those folders without the ending, the *image key*.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alc_backend.core.arrays import VOID
from alc_backend.datasets.images import IMAGE_SUFFIXES, read_image, read_mask
from alc_backend.errors import DatasetError
from alc_backend.foundation.superpixels import slic

MAX_CLASSES = 255


@dataclass(frozen=True)
class Sample:
    """One picture of a dataset folder, checked.

    ``labels`` uint8 (H, W); ``superpixels`` int32 (H, W); ``truth`` uint8 (H, W) or None.
    ``labels`` and ``superpixels`` are None for validation pictures, which carry only ``truth``.
    """

    key: str
    path: Path
    height: int
    width: int
    labels: NDArray[np.uint8] | None
    superpixels: NDArray[np.int32] | None
    truth: NDArray[np.uint8] | None


@dataclass
class Folder:
    """A dataset folder; iterate :meth:`samples`, then read ``problems``.

    ``problems`` gains one sentence per file that was left out, naming the file and the remedy.
    """

    root: Path
    classes: list[str]
    superpixel_count: int = 100
    problems: list[str] = field(default_factory=list)

    def pictures(self) -> dict[str, Path]:
        """Image key → picture, sorted; pictures that share a key are reported and left out."""
        by_key: dict[str, list[Path]] = {}
        for path in _files(self.root / "images"):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                by_key.setdefault(_key(path, self.root / "images"), []).append(path)
            else:
                self._report(f"images/{path.name}: not a picture; remove it or convert it to PNG")
        for key, paths in by_key.items():
            if len(paths) > 1:
                names = ", ".join(path.name for path in paths)
                self._report(f"{names}: share the name {key!r}; rename all but one")
        return {key: paths[0] for key, paths in sorted(by_key.items()) if len(paths) == 1}

    def samples(self) -> Iterator[Sample]:
        """Read picture after picture; what does not fit is reported and left out."""
        pictures = self.pictures()
        for key, path in pictures.items():
            try:
                yield self._sample(key, path)
            except DatasetError as error:
                self._report(str(error))
        for name in ("pseudo_labels", "objects", "ground_truth"):
            for path in _files(self.root / name):
                if _key(path, self.root / name) not in pictures:
                    self._report(
                        f"{name}/{path.name}: no picture of that name in images/; add the picture "
                        "or remove the file"
                    )

    def validation_samples(self) -> Iterator[Sample]:
        """Pictures with ground truth only, for the model mIoU."""
        for key, path in self.pictures().items():
            try:
                height, width = read_image(path).shape[:2]
                truth = self._labels("ground_truth", key, (height, width))
            except DatasetError as error:
                self._report(str(error))
            else:
                yield Sample(key, path, height, width, None, None, truth)

    def _report(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)

    def _sample(self, key: str, path: Path) -> Sample:
        image = read_image(path)
        shape = (image.shape[0], image.shape[1])
        labels = self._labels("pseudo_labels", key, shape)
        if (self.root / "objects").is_dir():
            superpixels = self._superpixels(key, shape)
        else:
            superpixels = slic(image, self.superpixel_count)
        truth = None
        if (self.root / "ground_truth").is_dir():
            truth = self._labels("ground_truth", key, shape)
        return Sample(key, path, shape[0], shape[1], labels, superpixels, truth)

    def _mask(self, folder: str, key: str, shape: tuple[int, int]) -> NDArray[np.int64]:
        path = self.root / folder / f"{key}.png"
        if not path.is_file():
            raise DatasetError(
                f"images/{key}: has no {folder}/{key}.png; add the mask or remove the picture"
            )
        try:
            mask = read_mask(path)
        except DatasetError as error:
            raise DatasetError(f"{folder}/{error}") from error
        if mask.shape != shape:
            raise DatasetError(
                f"{folder}/{key}.png: is {mask.shape[1]}×{mask.shape[0]}, its picture is "
                f"{shape[1]}×{shape[0]}; export the mask at the picture's size"
            )
        return mask

    def _labels(self, folder: str, key: str, shape: tuple[int, int]) -> NDArray[np.uint8]:
        mask = self._mask(folder, key, shape)
        wrong = np.setdiff1d(mask, [*range(len(self.classes)), VOID])
        if len(wrong):
            shown = ", ".join(str(value) for value in wrong[:5])
            raise DatasetError(
                f"{folder}/{key}.png: holds class id {shown}, but classes.txt names "
                f"{len(self.classes)} classes (ids 0..{len(self.classes) - 1}, 255 = void); add "
                "the class or renumber the mask"
            )
        return mask.astype(np.uint8)

    def _superpixels(self, key: str, shape: tuple[int, int]) -> NDArray[np.int32]:
        mask = self._mask("objects", key, shape)
        if mask.min() < 0 or mask.max() > np.iinfo(np.int32).max:
            raise DatasetError(
                f"objects/{key}.png: superpixel ids must lie in 0..2147483647; renumber them"
            )
        return mask.astype(np.int32)


def open_folder(root: Path, superpixel_count: int = 100, validation: bool = False) -> Folder:
    """Open a dataset folder.

    ``classes.txt`` is looked for in ``root`` and, for a validation folder, beside it. Raises
    DatasetError when the folder, ``images/``, the masks' folder or the class list is missing.
    """
    if not root.is_dir():
        raise DatasetError(f"{root}: is not a folder; give the dataset's folder")
    for name in ("images", "ground_truth" if validation else "pseudo_labels"):
        if not (root / name).is_dir():
            raise DatasetError(
                f"{root}: has no folder {name}/; a dataset holds images/, pseudo_labels/, "
                "objects/ (optional), ground_truth/ (optional) and classes.txt"
            )
    return Folder(root, [] if validation else read_classes(root), superpixel_count)


def read_classes(root: Path) -> list[str]:
    """Class names from ``classes.txt``, one per line, in the order of the class ids.

    Raises DatasetError when it is missing, empty, too long, or names a class twice.
    """
    path = root / "classes.txt"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DatasetError(
            f"{path}: not found; write one class name per line, in the order of the ids"
        ) from None
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: is not UTF-8 text ({error}); save it as UTF-8") from error
    return checked_classes([line.strip() for line in text.splitlines() if line.strip()], str(path))


def checked_classes(names: list[str], source: str) -> list[str]:
    """Return the class names; DatasetError unless there are 2 to 255 different ones."""
    if not 2 <= len(names) <= MAX_CLASSES:
        raise DatasetError(f"{source}: names {len(names)} classes; 2 to {MAX_CLASSES} are possible")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DatasetError(f"{source}: names {twice[0]!r} twice; each class needs its own name")
    return names


def _files(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")
    )


def _key(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()

"""Formats of Datumaro (extra ``datumaro``): LabelMe, CamVid, KITTI and others that are exact there.

What is written is read again and compared; a format that loses a pixel is refused. Void pixels have
the label ``ignore``. The files lie in ``dataset/`` of an export.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alc_backend.core.arrays import VOID
from alc_backend.datasets import rle
from alc_backend.datasets.classes import background, checked_classes, uncovered_class
from alc_backend.datasets.cvat import IGNORE, void_label
from alc_backend.datasets.dataset import TRAIN, Dataset, OutputImage
from alc_backend.datasets.names import checked_name
from alc_backend.errors import DatasetError

BASE = "dataset"
"""The folder of an export that Datumaro's files are in."""


def _datumaro(name: str) -> Any:
    """Datumaro's module; DatasetError when it is not installed, or has no format of this name."""
    try:
        import datumaro
        from datumaro.components.environment import Environment
    except ImportError as error:
        raise DatasetError(
            f"there is no format {name!r} here; Datumaro may have it: "
            "pip install 'alc-backend[datumaro]'"
        ) from error
    known = Environment()
    if name not in known.exporters or name not in known.importers:
        raise DatasetError(f"neither alc-backend nor Datumaro has a format {name!r}")
    return datumaro


def writer(name: str) -> Callable[[Path, list[str], Iterable[OutputImage]], None]:
    """What writes a format of Datumaro's; DatasetError when there is none of this name."""
    _datumaro(name)
    return partial(write, name=name)


@dataclass(frozen=True)
class _Packed:
    """A label map, kept small until it is asked for."""

    data: bytes
    shape: tuple[int, int]

    def read(self) -> NDArray[np.uint8]:
        return np.frombuffer(zlib.decompress(self.data), dtype=np.uint8).reshape(self.shape)

    def mask(self, class_id: int) -> NDArray[np.uint8]:
        mask: NDArray[np.bool_] = self.read() == class_id
        return mask.astype(np.uint8)


def write(root: Path, classes: list[str], images: Iterable[OutputImage], name: str) -> None:
    """Write ``dataset/`` and ``objects/``; DatasetError where the format loses anything."""
    datumaro = _datumaro(name)
    kept: dict[str, _Packed] = {}
    items = []
    labels = [*classes, void_label(classes)]
    for image in images:
        image.write_objects(root)
        if image.path is None:
            raise DatasetError(f"the format {name} is written with its images; export them, too")
        checked_name(image.key, "image key")
        packed = kept[image.key] = _Packed(
            zlib.compress(image.labels.tobytes(), 1), (image.labels.shape[0], image.labels.shape[1])
        )
        masks = [
            datumaro.Mask(
                partial(packed.mask, int(value)),
                label=len(classes) if value == VOID else int(value),
                id=order,
            )
            for order, value in enumerate(np.unique(image.labels), start=1)
        ]
        media = datumaro.Image.from_file(path=str(image.path))
        items.append(datumaro.DatasetItem(image.key, subset=TRAIN, media=media, annotations=masks))
    try:
        made = datumaro.Dataset.from_iterable(items, categories=labels)
        made.export(str(root / BASE), name, save_media=True)
        again = open_datumaro(root / BASE, name)
    except DatasetError:
        raise
    except Exception as error:  # whatever its plugins raise
        raise DatasetError(
            f"Datumaro cannot write masks in its format {name} ({error}); choose another format"
        ) from error
    _compare(again, kept, classes, name)


def _compare(again: Datumaro, kept: dict[str, _Packed], classes: list[str], name: str) -> None:
    again.use_classes(classes)
    again.image_paths()
    for key, packed in kept.items():
        wanted = packed.read()
        try:
            found = again.drawn(key, packed.shape)
        except (DatasetError, KeyError) as error:
            raise DatasetError(
                f"the format {name} does not give image {key} back ({error}); choose another format"
            ) from error
        wrong = found != wanted
        if wrong.any():
            names = [*classes, *[""] * (VOID - len(classes)), "void"]
            lost = ", ".join(repr(names[value]) for value in np.unique(wanted[wrong]))
            raise DatasetError(
                f"the format {name} loses {int(wrong.sum())} pixels of image {key}, which are of "
                f"{lost}; choose another format"
            )


@dataclass
class Datumaro(Dataset):
    """A reader of a format of Datumaro's."""

    items: list[Any] = field(kw_only=True)
    names: list[str] = field(kw_only=True)
    _of: dict[str, Any] = field(default_factory=dict, init=False)

    def image_paths(self) -> dict[str, Path]:
        """The path of each image by its key, sorted; items without an image file are reported."""
        by_key: dict[str, list[Path]] = {}
        for item in self.items:
            path = getattr(item.media, "path", None)
            if not path or not Path(path).is_file():
                self.report(f"{item.id}: has no image file; add it")
                continue
            by_key.setdefault(item.id, []).append(Path(path))
            self._of[item.id] = item
        return self.unshared(by_key)

    def use_classes(self, classes: Any) -> None:
        """Read the masks as ids of ``classes``; labels are matched by name."""
        self.classes = list(classes)

    def labels(self, key: str, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """The label map, uint8 (H, W); what nothing covers is background, or void without one."""
        found = self.drawn(key, shape)
        return np.where(found < 0, uncovered_class(self.classes), found).astype(np.uint8)

    def drawn(self, key: str, shape: tuple[int, int]) -> NDArray[np.int16]:
        """What masks and polygons cover, int16 (H, W), the highest ``z_order`` on top; else -1."""
        labels = np.full(shape, -1, dtype=np.int16)
        drawn = [one for one in self._of[key].annotations if _kind(one) in ("mask", "polygon")]
        for one in sorted(drawn, key=lambda one: one.z_order):
            mask = _pixels(one, shape)
            if mask.shape != shape:
                raise DatasetError(f"image {key}: a mask has another size; export it again")
            labels[mask] = self._class_of(one.label, key)
        return labels

    def _class_of(self, label: int | None, key: str) -> int:
        name = self.names[label] if label is not None else None
        if name in self.classes:
            return self.classes.index(str(name))
        if name == void_label(self.classes):
            return VOID
        raise DatasetError(f"image {key}: a mask has the label {name!r}, which is no class; add it")


def _kind(annotation: Any) -> str:
    return str(annotation.type.name)


def _pixels(annotation: Any, shape: tuple[int, int]) -> NDArray[np.bool_]:
    if _kind(annotation) == "mask":
        return np.asarray(annotation.image).astype(np.bool_)
    try:
        return rle.decode([[float(value) for value in annotation.points]], shape)
    except ValueError as error:
        raise DatasetError(f"a polygon {error}; correct it, and export it again") from error


def open_datumaro(root: Path, name: str, superpixel_count: int = 100) -> Datumaro:
    """A reader of the folder ``root`` in a format of Datumaro's, by its name there.

    Raises DatasetError when Datumaro cannot read it.
    """
    datumaro = _datumaro(name)
    try:
        found = datumaro.Dataset.import_from(str(root), name)
        items = list(found)
        listed = found.categories()[datumaro.AnnotationType.label]
    except Exception as error:  # whatever its plugins raise
        raise DatasetError(
            f"{root}: Datumaro cannot read it as {name} ({error}); check the format"
        ) from error
    names = [label.name for label in listed.items]
    classes = [label for label in names if label != IGNORE]
    if background(classes) is None and len(classes) == 1:
        classes.insert(0, "background")
    return Datumaro(
        root, checked_classes(classes, str(root)), superpixel_count, items=items, names=names
    )

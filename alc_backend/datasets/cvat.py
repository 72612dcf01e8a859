"""*CVAT for images 1.1*: ``annotations.xml`` and ``images/``.

Masks (run lengths in a box) and polygons are read, in the order of ``z_order``, then of the file;
shapes of one group are one superpixel. Pixels that no shape covers belong to the class named
background, or are void without one; what has the label ``ignore`` is void. ``classes.txt``, which
is written, too, gives the order of the classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from alc_backend.core.arrays import VOID
from alc_backend.datasets import cvat_xml, rle
from alc_backend.datasets.classes import (
    background,
    checked_classes,
    read_classes,
    uncovered_class,
    write_classes,
)
from alc_backend.datasets.colours import class_colours
from alc_backend.datasets.cvat_xml import Record, Shape
from alc_backend.datasets.dataset import OBJECTS, TRAIN, VAL, Dataset, OutputImage
from alc_backend.datasets.names import checked_name, inside, is_image, key_of
from alc_backend.datasets.segments import segments
from alc_backend.errors import DatasetError

INDEX, IMAGES, CLASSES = "annotations.xml", "images", "classes.txt"

IGNORE = "ignore"
"""The label of void pixels: CVAT has none for them."""

MAX_PAINTED = 2**34
"""Images whose shapes cover more pixels together are refused."""


@dataclass
class Cvat(Dataset):
    """A reader of *CVAT for images*; ``folders`` are where the images may lie.

    ``source`` is what problems name as the place of the ``records``.
    """

    records: list[Record] = field(kw_only=True)
    folders: Sequence[Path] = field(kw_only=True)
    source: str = field(default=INDEX, kw_only=True)
    _of: dict[str, Record] = field(default_factory=dict, init=False)
    _last: tuple[str, NDArray[np.uint8], NDArray[np.int32]] | None = field(default=None, init=False)

    @property
    def image_root(self) -> Path:
        """The folder that images may not lead out of."""
        return self.root if self.root in self.folders else self.folders[0]

    def image_paths(self) -> dict[str, Path]:
        """The path of each image by its key, sorted; missing images are reported and left out."""
        paths, self._of = self.located(self.records, self._find)
        return paths

    def use_classes(self, classes: Sequence[str]) -> None:
        """Read the ground truth as ids of ``classes``; labels are matched by name."""
        self.classes = list(classes)

    def labels(self, key: str, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """The label map of an image, uint8 (H, W); DatasetError when it is unusable."""
        return self._painted(key, shape)[0]

    def superpixels(self, key: str, shape: tuple[int, int]) -> NDArray[np.int32] | None:
        """The superpixel map of an image, int32 (H, W): of ``objects/``, or what was drawn."""
        found = super().superpixels(key, shape)
        return self._painted(key, shape)[1] if found is None else found

    def _painted(
        self, key: str, shape: tuple[int, int]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """The label map, uint8 (H, W), and what was drawn, int32 (H, W), numbered from 1."""
        if self._last is not None and self._last[0] == key:
            return self._last[1:]
        record = self._of[key]
        where = f"{self.source}: image {record.name}"
        if (record.height, record.width) != shape:
            raise DatasetError(
                f"{where}: is said to be {record.width}×{record.height}, but is "
                f"{shape[1]}×{shape[0]}; export it again, with the image that was annotated"
            )
        for kind, count in record.passed_over.items():
            self.report(
                f"{where}: has {count} shapes of the kind {kind[:40]!r}, which are no masks; draw "
                "masks or polygons (the image is used without them)"
            )
        labels = np.full(shape, uncovered_class(self.classes), dtype=np.uint8)
        objects = np.zeros(shape, dtype=np.int32)
        numbers: dict[object, int] = {}
        left = MAX_PAINTED
        for index, drawn in enumerate(sorted(record.shapes, key=lambda one: one.z_order)):
            name = f"{where}: {drawn.kind} {index + 1} ({drawn.label[:40]!r})"
            try:
                rows, cols, mask = _pixels(drawn, shape)
            except ValueError as error:
                raise DatasetError(f"{name} {error}; correct it, and export it again") from error
            left -= mask.size
            if left < 0:
                raise DatasetError(f"{where}: its shapes cover too much; remove some of them")
            class_id = self._class_of(drawn.label, name)
            member = ("group", drawn.group) if drawn.group else ("shape", index)
            number = numbers.setdefault(member, len(numbers) + 1)
            labels[rows, cols][mask] = class_id
            objects[rows, cols][mask] = 0 if class_id == VOID else number
        _, renumbered = np.unique(np.append(objects.ravel(), 0), return_inverse=True)
        self._last = (key, labels, renumbered[:-1].reshape(shape).astype(np.int32))
        return self._last[1:]

    def _class_of(self, label: str, where: str) -> int:
        if label in self.classes:
            return self.classes.index(label)
        if label == void_label(self.classes):
            return VOID
        raise DatasetError(
            f"{where} has a label that is none of the dataset's classes; add it to them or remove "
            "the shape"
        )

    def _find(self, record: Record) -> tuple[Path, str]:
        if record.problem:
            raise DatasetError(f"{self.source}: {record.problem}; export it again")
        name = checked_name(record.name, self.source)
        for folder in self.folders:
            for place in (folder, folder / record.subset if record.subset else folder):
                path = place / name
                if _is_there(path) and is_image(path):
                    inside(folder, path)
                    return path, key_of(Path(name.removeprefix(f"{IMAGES}/")), Path())
        raise DatasetError(
            f"{self.source}: lists {name}, but there is no such image in {IMAGES}/; add it, or say "
            "with --images where the images are"
        )


def _is_there(path: Path) -> bool:
    """Whether a path that a file names is a file; a name may be too long for any."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _pixels(drawn: Shape, shape: tuple[int, int]) -> tuple[slice, slice, NDArray[np.bool_]]:
    """Where a shape is: rows, columns, and which of those pixels; ValueError when it is damaged."""
    if drawn.kind == cvat_xml.POLYGON:
        corners = [number for pair in drawn.points.split(";") for number in _pair(pair)]
        return slice(None), slice(None), rle.decode([corners], shape)
    left, top, width, height = drawn.box
    if min(left, top) < 0 or min(width, height) < 1:
        raise ValueError("has a box that is none")
    if left + width > shape[1] or top + height > shape[0]:
        raise ValueError("goes beyond the image")
    try:
        lengths = [int(count) for count in drawn.points.split(",")]
    except ValueError:
        raise ValueError("has run lengths that are no numbers") from None
    if min(lengths) < 0 or sum(lengths) != width * height:
        raise ValueError(f"has run lengths that do not add up to {width}×{height} pixels")
    mask = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(height, width)
    return slice(top, top + height), slice(left, left + width), mask


def _pair(text: str) -> tuple[float, float]:
    try:
        x, y = text.split(",")
        return float(x), float(y)
    except ValueError:
        raise ValueError(f"has the corner {text[:40]!r}, which is no pair x,y") from None


def open_cvat(
    root: Path,
    superpixel_count: int = 100,
    validation: bool = False,
    images: Path | None = None,
) -> Cvat:
    """A reader of the folder ``root``; the images may lie in the folder ``images``.

    Raises DatasetError for a file that is not *CVAT for images*, and for an unusable class list.
    """
    index = cvat_xml.read(inside(root, root / INDEX))
    if any(record.passed_over for record in index.records) and not any(
        record.shapes for record in index.records
    ):
        raise DatasetError(
            f"{root / INDEX}: has shapes, but neither masks nor polygons; boxes are no masks "
            "(`alc init --images` makes masks of class names)"
        )
    if (root / CLASSES).is_file():
        classes = read_classes(inside(root, root / CLASSES))
    elif validation:
        classes = []
    else:
        named = index.labels or list(
            dict.fromkeys(drawn.label for record in index.records for drawn in record.shapes)
        )
        classes = classes_of(named, str(root / INDEX))
    found = Cvat(
        root,
        classes,
        superpixel_count,
        VAL if validation else TRAIN,
        records=index.records,
        folders=[images] if images else [root / IMAGES, root],
    )
    if not validation and not (root / OBJECTS).is_dir():
        found.notes.append(
            f"{root}: the superpixels are what was drawn; what no shape covers is not asked about "
            "(--fill slic covers it)"
        )
    return found


def classes_of(labels: Iterable[str], where: str) -> list[str]:
    """The classes of masks with some labels: background, which has no masks, and the others.

    Raises DatasetError, naming ``where`` they are, for labels that cannot be classes.
    """
    classes = [name for name in labels if name != IGNORE]
    if background(classes) is None:
        classes.insert(0, "background")
    return checked_classes(classes, where)


def void_label(classes: Sequence[str]) -> str:
    """The label of void pixels: no class is called so."""
    name = IGNORE
    while name in classes:
        name += "_"
    return name


def write(root: Path, classes: list[str], images: Iterable[OutputImage]) -> None:
    """Write ``annotations.xml``, ``images/``, ``classes.txt`` and ``objects/``.

    Raises DatasetError for class names that XML cannot hold.
    """
    write_classes(root / CLASSES, classes)
    own, void = background(classes), void_label(classes)
    with (root / INDEX).open("w", encoding="utf-8", newline="\n") as file:
        file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n')
        file.write("  <version>1.1</version>\n")
        file.write(cvat_xml.meta(_labels(classes, own, void)))
        for number, image in enumerate(images):
            image.write_image(root, IMAGES)
            image.write_objects(root)
            file.write(cvat_xml.text(_image(number, image, classes, own, void)))
        file.write("</annotations>\n")


def _labels(classes: Sequence[str], own: int | None, void: str) -> list[tuple[str, int]]:
    """The labels and their colours: the classes but background, and that of void pixels."""
    colours = class_colours(classes)
    shown = [(name, colours[number]) for number, name in enumerate(classes) if number != own]
    return shown if own is None else [*shown, (void, 0x808080)]


def _image(
    number: int, image: OutputImage, classes: Sequence[str], own: int | None, void: str
) -> ElementTree.Element:
    height, width = image.labels.shape
    element = ElementTree.Element(
        "image",
        id=str(number),
        name=f"{image.key}{image.suffix}",
        width=str(width),
        height=str(height),
    )
    index, found = segments(image.labels, image.superpixels)
    pieces = Counter(segment.superpixel for segment in found)
    for segment in found:
        if segment.class_id == own:
            continue
        left, top, width, height = segment.box
        piece = index[top : top + height, left : left + width] == segment.id
        mask = _mask(piece, (left, top), classes[segment.class_id])
        if segment.superpixel and pieces[segment.superpixel] > 1:
            mask.set("group_id", str(segment.superpixel))
        element.append(mask)
    gap = image.labels == VOID
    if own is not None and gap.any():
        element.append(_mask(gap, (0, 0), void))
    return element


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """The run lengths of a mask, bool (H, W), row by row; the first is that of pixels outside."""
    pixels = mask.ravel()
    edges = np.flatnonzero(np.diff(pixels, prepend=False))
    return [int(count) for count in np.diff(edges, prepend=0, append=pixels.size)]


def _mask(mask: NDArray[np.bool_], corner: tuple[int, int], label: str) -> ElementTree.Element:
    """A mask, bool (H, W), whose upper left pixel is that of the image at ``corner`` (x, y)."""
    return ElementTree.Element(
        "mask",
        label=label,
        source="auto",
        occluded="0",
        rle=", ".join(map(str, run_lengths(mask))),
        left=str(corner[0]),
        top=str(corner[1]),
        width=str(mask.shape[1]),
        height=str(mask.shape[0]),
        z_order="0",
    )

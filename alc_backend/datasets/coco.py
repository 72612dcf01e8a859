"""What COCO's two layouts share: the index file, its images and its categories.

Three arrangements are read: ``images/`` and ``annotations/NAME_SPLIT.json``, which is also written;
``SPLIT2017/`` and ``annotations/…``, as COCO is distributed; and one JSON file in the folder itself
(``result.json``, ``_annotations.coco.json``), as many tools write it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from alc_backend.common.files import read_json, write_json
from alc_backend.common.types import Json
from alc_backend.datasets.classes import background, checked_classes, read_classes, write_classes
from alc_backend.datasets.dataset import TRAIN, VAL, Dataset, OutputImage
from alc_backend.datasets.images import voc_palette
from alc_backend.datasets.names import checked_name, inside, is_image, key_of
from alc_backend.errors import DatasetError

IMAGES, ANNOTATIONS, CLASSES = "images", "annotations", "classes.txt"
SINGLE = ("result.json", "_annotations.coco.json")
"""File names of an index that lies in the dataset folder itself."""


@dataclass(frozen=True)
class Index:
    """The content of an index file: images, category names by id, annotations by image id.

    ``problems`` says what had to be left out of it.
    """

    path: Path
    images: list[Json]
    categories: dict[int, str]
    annotations: dict[int | str, list[Json]]
    problems: tuple[str, ...] = ()

    @property
    def panoptic(self) -> bool:
        """Whether the annotations describe segments of panoptic PNGs rather than instances."""
        found = next(iter(self.annotations.values()), [])
        return any("segments_info" in annotation for annotation in found)


@dataclass
class Coco(Dataset):
    """A dataset with an index file; its two kinds differ in how they make label maps."""

    index: Index = field(kw_only=True)
    _records: dict[str, Json] = field(default_factory=dict, init=False)

    def image_paths(self) -> dict[str, Path]:
        """The path of each image by its key, sorted; missing images are reported and left out."""
        for problem in self.index.problems:
            self.report(problem)
        paths, self._records = self.located(self.index.images, self._find)
        return paths

    def use_classes(self, classes: Sequence[str]) -> None:
        """Read the ground truth as ids of ``classes``; categories are matched by name."""
        self.classes = list(classes)

    def check_size(self, key: str, shape: tuple[int, int]) -> None:
        """DatasetError when the index says another size of an image than it has, (H, W).

        Its annotations are then not of the image's pixels: the image was shrunk, or turned.
        """
        record = self.record(key)
        declared = [record.get("height"), record.get("width")]
        if any(found not in (None, has) for found, has in zip(declared, shape, strict=True)):
            raise DatasetError(
                f"{self.index.path.name}: says that {record['file_name']} is {declared[1]}×"
                f"{declared[0]}, but it is {shape[1]}×{shape[0]}; export it again, with the image "
                "that was annotated"
            )

    def annotations(self, key: str) -> list[Json]:
        """The annotations of an image, in the order of the file."""
        return self.index.annotations.get(self._records[key]["id"], [])

    def record(self, key: str) -> Json:
        """The entry of an image in the index."""
        return self._records[key]

    def class_of(self, annotation: Json, where: str) -> int:
        """The class id of an annotation or segment; DatasetError when its category is no class.

        ``where`` names the annotation in the message.
        """
        number = annotation.get("category_id")
        name = self.index.categories.get(number) if type(number) is int else None
        if name is None or name not in self.classes:
            raise DatasetError(
                f"{self.index.path.name}: {where} has the category {number!r}, which is none of "
                "the dataset's classes; add it to the categories or remove the annotation"
            )
        return self.classes.index(name)

    def _find(self, record: Json) -> tuple[Path, str]:
        where = f"{self.index.path.name}: images"
        name = checked_name(record.get("file_name"), where)
        split = _part(self.index.path)
        folders = (IMAGES, split, f"{IMAGES}/{split}", "")
        for folder in folders:
            path = self.root / folder / name
            if path.is_file() and is_image(path):
                inside = name if folder else name.removeprefix(f"{IMAGES}/")
                return path, key_of(Path(inside), Path())
        raise DatasetError(
            f"{self.index.path.name}: lists {name}, but there is no such image in {IMAGES}/ or "
            f"{split}/; add it, or remove it from the file"
        )


def find_index(root: Path, split: str) -> Path | None:
    """The index file of a split, or None; DatasetError when there are several."""
    found = sorted(
        path
        for kind in ("panoptic", "instances")
        for path in (root / ANNOTATIONS).glob(f"{kind}*.json")
        if _split(path) == split
    )
    if len(found) > 1:
        raise DatasetError(
            f"{root / ANNOTATIONS}: has several files for {split}: "
            f"{', '.join(path.name for path in found)}; leave one there"
        )
    singles = [root / name for name in SINGLE if (root / name).is_file()]
    return next(iter([*found, *singles]), None)


def _part(path: Path) -> str:
    """The last part of an index's file name, such as ``train2017``."""
    return path.stem.rpartition("_")[2]


def _split(path: Path) -> str | None:
    """The split of an index by its file name; None for a test split."""
    part = _part(path)
    if part.startswith("test"):
        return None
    return VAL if part.startswith(VAL) else TRAIN


def read_index(path: Path) -> Index:
    """The content of an index file; DatasetError naming what is not as COCO defines it."""
    content = read_json(path)
    images = _objects(content, "images", path)
    if not all(type(image.get("id")) in (int, str) for image in images):
        raise DatasetError(f"{path}: an image has no id; export it as COCO")
    categories = _categories(_objects(content, "categories", path), path)
    annotations = _by_image(_objects(content, "annotations", path), path)
    counts = Counter(image["id"] for image in images)
    problems = [
        f"{path.name}: {counts[number]} images have the id {number!r}, so their annotations cannot "
        "be told apart; give each image an id of its own"
        for number in counts
        if counts[number] > 1
    ]
    dangling = [number for number in annotations if number not in counts]
    if dangling:
        problems.append(
            f"{path.name}: annotates {len(dangling)} images that it does not list (the first has "
            f"the id {dangling[0]!r}); list them, or remove their annotations"
        )
    usable = [image for image in images if counts[image["id"]] == 1]
    return Index(path, usable, categories, annotations, tuple(problems))


def _objects(content: object, name: str, path: Path) -> list[Json]:
    values = content.get(name) if isinstance(content, dict) else None
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise DatasetError(f"{path}: has no list {name!r} of objects; export it as COCO")
    return values


def _categories(listed: Iterable[Json], path: Path) -> dict[int, str]:
    """The name of each category by its id."""
    names: dict[int, str] = {}
    for category in listed:
        number, name = category.get("id"), category.get("name")
        if type(number) is not int or not isinstance(name, str) or not name.strip():
            raise DatasetError(f"{path}: a category has no number and name; export it as COCO")
        if number in names:
            raise DatasetError(f"{path}: two categories have the id {number}; renumber one")
        names[number] = name.strip()
    return names


def _by_image(listed: Iterable[Json], path: Path) -> dict[int | str, list[Json]]:
    """The annotations of each image by its id, in the order of the file."""
    annotations: dict[int | str, list[Json]] = {}
    for annotation in listed:
        number = annotation.get("image_id")
        if not isinstance(number, (int, str)) or isinstance(number, bool):
            raise DatasetError(f"{path}: an annotation has no image_id; export it as COCO")
        annotations.setdefault(number, []).append(annotation)
    return annotations


def classes_of(root: Path, index: Index) -> list[str]:
    """The class names in ``classes.txt``, or else those of the categories, by id.

    Where instances have no category named background, it is added as the first class, that of the
    pixels which no instance covers.
    """
    if (root / CLASSES).is_file():
        return read_classes(inside(root, root / CLASSES))
    names = [index.categories[number] for number in sorted(index.categories)]
    if not index.panoptic and background(names) is None:
        names.insert(0, "background")
    return checked_classes(names, str(index.path))


def image_record(number: int, image: OutputImage) -> Json:
    """The entry of an image in an index, where its id is ``number``."""
    height, width = image.labels.shape
    return {
        "id": number,
        "file_name": f"{image.key}{image.suffix}",
        "width": width,
        "height": height,
    }


def category_of(class_id: int) -> int:
    """The category id of a class; COCO counts from 1."""
    return class_id + 1


def write_index(
    root: Path,
    kind: str,
    classes: list[str],
    images: Iterable[Json],
    annotations: Iterable[Json],
    left_out: int | None = None,
) -> None:
    """Write ``annotations/KIND_train.json`` and ``classes.txt``.

    The class ``left_out``, if any, becomes no category.
    """
    palette = voc_palette()
    colours = [palette[3 * number : 3 * number + 3] for number in range(len(classes))]
    background_id = background(classes)
    index = {
        "info": {"description": "label maps corrected by annotators, written by alc-backend"},
        "licenses": [],
        "images": list(images),
        "categories": [
            {
                "id": category_of(class_id),
                "name": name,
                "supercategory": name,
                "isthing": int(class_id != background_id),
                "color": colours[class_id],
            }
            for class_id, name in enumerate(classes)
            if class_id != left_out
        ],
        "annotations": list(annotations),
    }
    write_json(root / ANNOTATIONS / f"{kind}_{TRAIN}.json", index, compact=True)
    write_classes(root / CLASSES, classes)

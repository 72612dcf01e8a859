"""Label Studio's own exports as datasets, without a server: JSON, JSON_MIN, NumPy and PNG files.

A JSON or JSON_MIN file names the image of each task and has its regions. *Brush labels to NumPy*
and *to PNG* are folders of a mask for each region, named after tasks and labels but not after
images: one of the JSON files must lie beside them. Of several annotations of a task the newest
counts; smaller regions lie on top, and each is a superpixel.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from alc_backend.common.files import read_json
from alc_backend.common.types import Json
from alc_backend.core.painting import Painted, paint
from alc_backend.datasets.classes import background, checked_classes, read_classes, uncovered_class
from alc_backend.datasets.dataset import Dataset
from alc_backend.datasets.images import read_mask
from alc_backend.datasets.names import file_below, files_below, inside, is_image, key_of
from alc_backend.errors import DatasetError
from alc_backend.labelstudio.annotation import newest
from alc_backend.labelstudio.dataset_config import SHAPES, DatasetTags
from alc_backend.labelstudio.regions import read_regions
from alc_backend.labelstudio.run_lengths import OPAQUE

MAX_BYTES = 2**30
"""Larger JSON files are refused."""

_MASK_FILE = re.compile(r"task-(\d{1,18})-annotation-(\d{1,18})-by-(.*)\.(npy|png)", re.S)
_UPLOAD = re.compile(r"[0-9a-f]{8}-")
"""What Label Studio puts before the name of an upload."""


@dataclass(frozen=True)
class Task:
    """A task of an export: its number, what its data say, and the regions of its annotation.

    ``number`` is 0 where the file has none. Regions have the form of an annotation's ``result``.
    """

    number: int
    data: Json
    regions: list[Json]


@dataclass
class Exported(Dataset):
    """A reader of an export; ``images`` is the folder of the images.

    ``masks`` are the files of masks, by task, where the regions are not in the JSON file.
    """

    images: Path = field(kw_only=True)
    tasks: list[Task] = field(kw_only=True)
    masks: Mapping[int, list[Path]] | None = field(default=None, kw_only=True)
    _of: dict[str, Task] = field(default_factory=dict, init=False)
    _last: tuple[str, Painted] | None = field(default=None, init=False)

    @property
    def image_root(self) -> Path:
        """The folder that images may not lead out of."""
        return self.images

    def image_paths(self) -> dict[str, Path]:
        """The path of each image by its key, sorted; tasks without one are reported."""
        by_key: dict[str, list[Path]] = {}
        for index, task in enumerate(self.tasks, start=1):
            name = f"task {task.number}" if task.number else f"entry {index}"
            path = _image(self.images, task.data)
            if path is None:
                self.report(
                    f"{name}: none of its fields names an image in {self.images}; add the image"
                )
            elif not (task.regions if self.masks is None else self.masks.get(task.number)):
                self.report(f"{name} ({path.name}): has no annotation; label it, or remove it")
            else:
                key = key_of(path, self.images)
                by_key.setdefault(key, []).append(path)
                self._of[key] = task
        return self.unshared(by_key)

    def labels(self, key: str, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """The label map of an image, uint8 (H, W); DatasetError when it is unusable."""
        return self._painted(key, shape).labels

    def superpixels(self, key: str, shape: tuple[int, int]) -> NDArray[np.int32] | None:
        """The superpixel map of an image, int32 (H, W): its regions."""
        return self._painted(key, shape).superpixels

    def _painted(self, key: str, shape: tuple[int, int]) -> Painted:
        if self._last is None or self._last[0] != key:
            task = self._of[key]
            masks = self._regions(task, shape) if self.masks is None else self._files(task, shape)
            try:
                self._last = (key, paint(masks, shape, uncovered_class(self.classes)))
            except ValueError as error:
                raise DatasetError(f"image {key}: {error}; export it again") from error
        return self._last[1]

    def _regions(
        self, task: Task, shape: tuple[int, int]
    ) -> Iterator[tuple[NDArray[np.bool_], int]]:
        masks = _tags(task.regions, self.classes).masks(task.regions)
        for region in read_regions(masks, self.classes, shape):
            yield region.mask(), region.class_id

    def _files(self, task: Task, shape: tuple[int, int]) -> Iterator[tuple[NDArray[np.bool_], int]]:
        assert self.masks is not None
        names = {_sanitized(name): class_id for class_id, name in enumerate(self.classes)}
        for path in self.masks.get(task.number, ()):
            said = _matched(path)[2].rpartition("-")[0]  # without the number of the region
            known = [name for name in names if said.endswith(f"-{name}")]
            if not known:
                raise ValueError(f"{path.name} names none of the classes")
            yield _read_mask(inside(self.root, path), shape), names[max(known, key=len)]


def is_export(path: Path) -> bool:
    """Whether a path is a JSON file, or a folder with masks of tasks beside one."""
    if path.is_file():
        return path.suffix.lower() == ".json"
    return path.is_dir() and any(_MASK_FILE.fullmatch(name.name) for name in path.iterdir())


def open_export(path: Path, images: Path, classes: Path | None = None) -> Exported:
    """A reader of a JSON file, or of a folder of masks with a JSON file beside them.

    ``images`` is the folder of the images, ``classes`` a class list; without one the classes are
    the labels in their first order, after a class background. Raises DatasetError for what is no
    such export, and where no image is in the folder.
    """
    if not images.is_dir():
        raise DatasetError(f"{images}: is not a folder; give the folder of the images")
    files = None
    index, root = path, path.parent
    if path.is_dir():
        index, root = _index_of(path), path
        files = _newest_files(files_below(path))
    tasks = list(_tasks(index))
    names = _class_names(tasks) if classes is None else read_classes(classes)
    if classes is None and background(names) is None:
        names.insert(0, "background")
    found = Exported(
        root, checked_classes(names, str(index)), images=images, tasks=tasks, masks=files
    )
    if not found.image_paths():
        raise DatasetError(
            f"{index}: none of its tasks can be used: {'; '.join(found.problems[:3])}"
        )
    found.notes.append(
        f"{path}: the superpixels are the regions; what none covers is not asked about (--fill "
        "slic covers it)"
    )
    return found


def _index_of(folder: Path) -> Path:
    """The JSON file beside masks, which says which image a task has."""
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".json")
    if len(found) != 1:
        raise DatasetError(
            f"{folder}: has {len(found)} JSON files; masks are named after tasks, so put the "
            "project's JSON or JSON_MIN export beside them, which says their images"
        )
    return inside(folder, found[0])


def _tasks(path: Path) -> Iterator[Task]:
    """The tasks of a JSON or JSON_MIN export, in their order."""
    if path.stat().st_size > MAX_BYTES:
        raise DatasetError(f"{path}: is larger than {MAX_BYTES:,} bytes; export parts of it")
    listed = read_json(path)
    if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
        raise DatasetError(f"{path}: is no list of tasks; export the project as JSON or JSON_MIN")
    minimal: dict[int, tuple[str, Task]] = {}
    for index, record in enumerate(listed):
        number = record.get("id") if type(record.get("id")) is int else 0
        if isinstance(record.get("data"), dict):
            _, annotation = newest(record)
            result = annotation.get("result") if annotation else None
            yield Task(number, record["data"], result if isinstance(result, list) else [])
            continue
        task = Task(number, record, list(_minimal_regions(record)))
        moment = str(record.get("updated_at") or record.get("created_at") or "")
        place = number or -index - 1  # JSON_MIN has an entry for each annotation
        if place not in minimal or moment >= minimal[place][0]:
            minimal[place] = (moment, task)
    for _, task in minimal.values():
        yield task


def _minimal_regions(record: Json) -> Iterator[Json]:
    """The regions of an entry of JSON_MIN, in the form of an annotation's result."""
    for name, values in record.items():
        for number, value in enumerate(values if isinstance(values, list) else ()):
            kinds = [f"{shape}labels" for shape in SHAPES if isinstance(value, dict)]
            for kind in (kind for kind in kinds if kind in value):
                sizes = {k: value[k] for k in ("original_width", "original_height") if k in value}
                yield {
                    "id": f"{name}-{number}", "from_name": name, "type": kind, "value": value,
                } | sizes  # fmt: skip


def _tags(regions: Iterable[object], classes: list[str]) -> DatasetTags:
    """What a label config would say of regions: those with a shape are masks."""
    names = [region for region in regions if isinstance(region, dict) and _shape(region)]
    image = next((str(region["to_name"]) for region in names if "to_name" in region), "")
    return DatasetTags(
        image_name=image,
        image_field="",
        brush_name="",
        classes=classes,
        labels=classes,
        prompts={},
        aliases={},
        own=frozenset(str(region.get("from_name")) for region in names),
        others=frozenset(),
    )


def _shape(region: Json) -> bool:
    return str(region.get("type")) in {f"{shape}labels" for shape in SHAPES}


def _class_names(tasks: Iterable[Task]) -> list[str]:
    """The labels of all regions, in the order in which they come first."""
    found: dict[str, None] = {}
    for region in (region for task in tasks for region in task.regions):
        if not isinstance(region, dict) or not _shape(region):
            continue
        value = region.get("value")
        names: Any = value.get(region["type"]) if isinstance(value, dict) else None
        for name in names if isinstance(names, list) else ():
            if isinstance(name, str):
                found[name] = None
    return list(found)


def _image(folder: Path, data: Json) -> Path | None:
    """The image that a field of a task names, in ``folder`` or below; None where none does."""
    for value in data.values():
        for name in _names(value) if isinstance(value, str) else ():
            try:
                path = file_below(folder, name)
            except (DatasetError, OSError, ValueError):
                continue  # a link that leads out, or a name that is too long or none
            if path is not None and is_image(path):
                return path
    return None


def _names(address: str) -> Iterator[str]:
    """The names that an image may have in a folder, by its address: the longest path first."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return
    local = parse_qs(parts.query).get("d", [])
    for path in (*local, unquote(parts.path)):
        steps = [step for step in path.split("/") if step]
        if ".." in steps or "." in steps or not steps:
            continue
        for first in range(len(steps)):
            *above, name = steps[first:]
            yield "/".join((*above, name))
            if _UPLOAD.match(name) and len(name) > 9:
                yield "/".join((*above, name[9:]))


def _newest_files(paths: Iterable[Path]) -> dict[int, list[Path]]:
    """The masks of each task that are of its last annotation, sorted."""
    found: dict[int, dict[int, list[Path]]] = {}
    for path in paths:
        if _MASK_FILE.fullmatch(path.name):
            task, annotation, _ = _matched(path)
            found.setdefault(task, {}).setdefault(annotation, []).append(path)
    return {task: sorted(of[max(of)]) for task, of in found.items()}


def _matched(path: Path) -> tuple[int, int, str]:
    """The task, the annotation, and what follows them in the name of a file of a mask."""
    matched = _MASK_FILE.fullmatch(path.name)
    assert matched is not None
    return int(matched[1]), int(matched[2]), matched[3]


def _sanitized(label: str) -> str:
    """A label as Label Studio writes it into the name of a file."""
    return label.replace("/", "-").replace("\\", "-")


def _read_mask(path: Path, shape: Sequence[int]) -> NDArray[np.bool_]:
    """The mask in a file, bool (H, W); DatasetError or ValueError when it is unusable."""
    if path.suffix == ".png":
        values: NDArray[Any] = read_mask(path)
    else:
        try:  # mapped, so that no header makes an array that the file does not hold
            values = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError, SyntaxError) as error:
            raise DatasetError(f"{path.name}: cannot be read ({error}); export it again") from error
    if values.shape != tuple(shape) or values.dtype.kind not in "bui":
        raise DatasetError(
            f"{path.name}: holds {values.dtype} {values.shape}, its image is {tuple(shape)}; "
            "export the masks again"
        )
    mask: NDArray[np.bool_] = values > (0 if values.dtype.kind == "b" else OPAQUE)
    return mask

"""Importing images, initial label maps and superpixel maps into the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from alc_backend.common.files import sha256_of
from alc_backend.datasets.dataset import Dataset, Sample
from alc_backend.datasets.layouts import open_dataset
from alc_backend.datasets.names import checked_key
from alc_backend.errors import DatasetError, StorageError
from alc_backend.store import tallies, upkeep
from alc_backend.store.database import Store
from alc_backend.store.files import ProjectFiles
from alc_backend.store.models import TRAIN, VAL, Image, Project, Superpixel

ImportProgress = Callable[[int, str], None]
"""Called with the number of images done so far, and the key of the last one."""


@dataclass
class ImportSummary:
    """What an import did.

    ``imported`` counts the images under correction, ``superpixels`` theirs, ``validation`` the
    validation images, ``present`` those that were there before. ``problems`` names every file that
    was left out, with the remedy; ``notes`` says what may be wrong though nothing was left out.
    """

    project_id: int
    imported: int = 0
    present: int = 0
    superpixels: int = 0
    validation: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def show(self, console: Console) -> None:
        """Print the problems and notes, then the counts."""
        for problem in self.problems:
            console.print(f"left out: {problem}", markup=False, highlight=False)
        for note in self.notes:
            console.print(f"please check: {note}", markup=False, highlight=False)
        console.print(
            f"{self.imported} images with {self.superpixels} superpixels imported, "
            f"{self.validation} for validation, {self.present} already there, "
            f"{len(self.problems)} problems"
        )


def import_folder(
    store: Store,
    root: Path,
    name: str,
    *,
    validation: Path | None = None,
    superpixel_count: int = 100,
    strict: bool = False,
    progress: ImportProgress = lambda done, key: None,
) -> ImportSummary:
    """Import a dataset folder in any layout that :func:`open_dataset` knows.

    ``superpixel_count`` is the number of SLIC superpixels where the folder has none. For the rest,
    see :func:`import_dataset`.
    """
    folder = open_dataset(root, superpixel_count)
    held_out = None if validation is None else open_dataset(validation, validation=True)
    return import_dataset(store, folder, name, held_out, strict=strict, progress=progress)


def import_dataset(
    store: Store,
    dataset: Dataset,
    name: str,
    validation: Dataset | None = None,
    *,
    warm_start: dict[str, Any] | None = None,
    strict: bool = False,
    progress: ImportProgress = lambda done, key: None,
) -> ImportSummary:
    """Import a dataset into the project ``name``, which is created when it does not exist.

    Images that the project has already (by image key) stay as they are. ``warm_start`` says how
    images that are added later get their first label maps. With ``strict``, everything is checked
    first, and nothing is imported when there is any problem. Raises DatasetError for a dataset that
    cannot be used at all, for a class list that differs from the project's, and for the problems
    that ``strict`` finds.
    """
    checked: list[tuple[Dataset, str]] = [(dataset, TRAIN)]
    if validation is not None:
        validation.use_classes(dataset.classes)
        checked.append((validation, VAL))
    if strict:
        dataset.known = frozenset(dataset.image_paths())  # superpixels are made once, afterwards
        _refuse_problems(checked)
    project_id = project_named(store, name, dataset.classes, warm_start)
    dataset.known = _known(store, project_id)  # making superpixels may take a model seconds
    summary = ImportSummary(project_id)
    done = 0
    twins = _Twins()
    for part, split in checked:
        for sample in _samples(part, split):
            twins.add(split, sample)
            known = split == TRAIN and sample.superpixels is None
            added = None if known else add_sample(store, project_id, split, sample)
            if added is None and _is_of_a_task(store, project_id, split, sample.key):
                summary.problems.append(
                    f"{sample.key}: the project has an image of this name, which a task of Label "
                    "Studio got for want of another; rename the file"
                )
            elif added is None:
                summary.present += 1
            elif split == TRAIN:
                summary.imported += 1
                summary.superpixels += added
            else:
                summary.validation += 1
            done += 1
            progress(done, sample.key)
        summary.problems += part.problems
        summary.notes += part.notes
    summary.notes += twins.notes()
    return summary


def key_of_task(task: int) -> str:
    """The key of an image whose task in Label Studio, by its number, gives it none."""
    return f"task-{task}"


def _is_of_a_task(store: Store, project_id: int, split: str, key: str) -> bool:
    """Whether the image of a key is called so because its task in Label Studio gave it no name."""
    with store.reading() as session:
        image = _find(session, project_id, split, key)
    if image is None or image.dataset_task is None:
        return False
    return key == key_of_task(image.dataset_task)


class _Twins:
    """Finds validation images that are training images, too, by the content of their files."""

    def __init__(self) -> None:
        self._training: dict[str, str] = {}
        self._held_out: list[tuple[str, str]] = []

    def add(self, split: str, sample: Sample) -> None:
        """Take note of an image; the training images come first."""
        digest = sha256_of(sample.path)
        if split == TRAIN:
            self._training[digest] = sample.key
        elif digest in self._training:
            self._held_out.append((sample.key, self._training[digest]))

    def notes(self) -> list[str]:
        """A sentence that names the images which are both; none when there are none."""
        if not self._held_out:
            return []
        key, twin = self._held_out[0]
        return [
            f"{len(self._held_out)} validation images are training images, too (the first: {key}, "
            f"in training {twin}); the model mIoU is too high, since the network has seen them: "
            "give validation images of their own"
        ]


def add_sample(
    store: Store,
    project_id: int,
    split: str,
    sample: Sample,
    *,
    url: str | None = None,
    task: int | None = None,
    annotation_id: int | None = None,
    annotated_at: datetime | None = None,
    found: Mapping[int, dict[str, Any]] | None = None,
    warm_start: dict[str, Any] | None = None,
) -> int | None:
    """Add one image with its arrays; returns its number of superpixels, None if it was there.

    No lock of the database is held while the files are made; when that fails none of them stays.
    Raises DatasetError for a key that no file of an export can have (:func:`checked_key`),
    IntegrityError when another process adds the same image meanwhile.
    ``url`` and ``task`` are its address and its task in Label Studio. ``annotation_id`` is the
    annotation of Label Studio that its label map came from, as it was at ``annotated_at``;
    ``warm_start`` and, by superpixel, ``found`` are what a foundation model said.
    """
    checked_key(sample.key)
    row: dict[str, Any] = {
        "project_id": project_id,
        "key": sample.key,
        "split": split,
        "suffix": sample.path.suffix.lower(),
        "has_truth": sample.truth is not None,
        "height": sample.height,
        "width": sample.width,
        "url": url,
        "dataset_task": task,
        "initial_annotation": annotation_id,
        "initial_annotation_at": annotated_at,
        "warm_start": warm_start,
    }
    image_id = _free_id(store, row)
    if image_id is None:
        return None
    files = store.files(project_id)
    try:
        sizes = _write_files(files, image_id, row["suffix"], sample)
        with store.session() as session:
            session.add(Image(id=image_id, **row))
            session.flush()
            if sizes:
                rows = [
                    {"image_id": image_id, "number": number, "size": size,
                     "found": (found or {}).get(number)}
                    for number, size in sizes.items()
                ]  # fmt: skip
                session.execute(insert(Superpixel), rows)
            if split == TRAIN:
                tallies.add(session, project_id, upkeep.image_added(len(sizes)))
    except BaseException:  # Ctrl-C too: no file stays that belongs to no image
        with suppress(StorageError):
            for name in files.of_image(image_id, row["suffix"]):
                store.storage.delete(name)
        raise
    return len(sizes)


def _free_id(store: Store, row: dict[str, Any]) -> int | None:
    """An id that no image has or had, for the image that ``row`` describes; None if it is there.

    It names the image's files, which are made before the image itself is in the database: that
    takes seconds, and nobody else could write meanwhile.
    """
    with store.session() as session:
        if _find(session, row["project_id"], row["split"], row["key"]):
            return None
        image = Image(**row)
        session.add(image)
        session.flush()
        image_id = image.id
        session.delete(image)
        return image_id


def _write_files(files: ProjectFiles, image_id: int, suffix: str, sample: Sample) -> dict[int, int]:
    """Write an image's files; returns the size of each superpixel, in pixels, by its number."""
    files.keep_image(image_id, suffix, sample.path)
    if sample.truth is not None:
        files.write_label_map("ground_truth", image_id, sample.truth)
    if sample.labels is None or sample.superpixels is None:
        return {}
    files.write_label_map("initial", image_id, sample.labels)
    files.write_superpixels(image_id, sample.superpixels)
    found, sizes = np.unique(sample.superpixels[sample.superpixels > 0], return_counts=True)
    return dict(zip(found.tolist(), sizes.tolist(), strict=True))


def create_project(
    store: Store, name: str, classes: list[str], warm_start: dict[str, Any] | None = None
) -> int:
    """Create a project and return its id; DatasetError when the name is taken."""
    with store.session() as session:
        return add_project(session, name, classes, warm_start)


def add_project(
    session: Session, name: str, classes: list[str], warm_start: dict[str, Any] | None
) -> int:
    """Create a project, as :func:`create_project` does, in a session that writes."""
    if session.scalar(select(Project).where(Project.name == name)):
        raise DatasetError(f"a project {name!r} exists already; choose another --name")
    project = Project(name=name, classes=classes, warm_start=warm_start)
    session.add(project)
    session.flush()
    return project.id


def project_named(
    store: Store, name: str, classes: list[str], warm_start: dict[str, Any] | None = None
) -> int:
    """The id of the project with this name, which is created when there is none.

    ``warm_start``, where given, says how images added from now on get their first label maps.
    Raises DatasetError when the project has other classes; it may have got more, and other names
    for them.
    """
    with store.reading() as session:
        project = session.scalar(select(Project).where(Project.name == name))
    if project is None:
        return create_project(store, name, classes, warm_start)
    _refuse_other_classes(project, classes)
    if warm_start is not None:
        with store.session() as session:
            session.get_one(Project, project.id).warm_start = warm_start
    return project.id


def _refuse_other_classes(project: Project, classes: list[str]) -> None:
    """Raise DatasetError unless a folder's classes have the same ids in the project."""
    ids = [project.class_ids.get(name) for name in classes]
    if ids == list(range(len(classes))):
        return
    more = classes[len(project.classes) :]
    if more and ids == [*range(len(project.classes)), *(None for _ in more)]:
        names = " ".join(map(repr, more))
        raise DatasetError(
            f"the folder has more classes than project {project.name!r}; first run `alc classes "
            f"add {names}`"
        )
    raise DatasetError(
        f"project {project.name!r} has the classes {', '.join(project.classes)}, the folder has "
        f"{', '.join(classes)}; choose another --name"
    )


def _known(store: Store, project_id: int) -> frozenset[str]:
    """The keys of a project's images under correction, those that are out of the dataset too."""
    with store.reading() as session:
        ours = select(Image.key).where(Image.project_id == project_id, Image.split == TRAIN)
        return frozenset(session.scalars(ours))


def _find(session: Session, project_id: int, split: str, key: str) -> Image | None:
    return session.scalar(
        select(Image).where(Image.project_id == project_id, Image.split == split, Image.key == key)
    )


def _samples(folder: Dataset, split: str) -> Iterable[Sample]:
    return folder.samples() if split == TRAIN else folder.validation_samples()


def _refuse_problems(checked: list[tuple[Dataset, str]]) -> None:
    problems: list[str] = []
    for folder, split in checked:
        for _ in _samples(folder, split):
            pass
        problems += folder.problems
        folder.problems = []
    if problems:
        raise DatasetError(
            f"{len(problems)} problem(s), nothing imported (--strict):\n" + "\n".join(problems)
        )

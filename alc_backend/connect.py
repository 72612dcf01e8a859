"""Joining a project of the store with Label Studio: uploads, the two projects, the backend."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, urlparse

import numpy as np
from sqlalchemy import select

from alc_backend.core.arrays import VOID
from alc_backend.datasets.dataset import Sample, checked_classes, uncovered_class
from alc_backend.datasets.images import IMAGE_SUFFIXES, read_image
from alc_backend.errors import AlcError, DatasetError, LabelStudioError, SettingsError
from alc_backend.foundation.superpixels import slic
from alc_backend.labelstudio import projects
from alc_backend.labelstudio.annotation import parse
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.query import asked_about
from alc_backend.labelstudio.regions import painted
from alc_backend.settings import Settings
from alc_backend.store.database import Store
from alc_backend.store.importing import ImportSummary, add_sample, create_project
from alc_backend.store.models import TRAIN, Image, Project

Json = dict[str, Any]
Report = Callable[[str], None]

ANNOTATIONS = "annotations"


def connect_project(store: Store, client: Client, project_id: int, report: Report) -> Project:
    """Give a project its pictures, projects and backend in Label Studio; safe to repeat.

    What exists already is kept. Raises LabelStudioError when Label Studio refuses something.
    """
    secret = _secret(store.settings)
    with store.reading() as session:
        project = session.get_one(Project, project_id)
    if project.dataset_project is None:
        report("making the dataset project")
        number = projects.create_dataset_project(client, project.name, project.classes)
        project = _remember(store, project_id, dataset_project=number)
    _upload(store, client, project, report)
    if project.query_project is None:
        report("making the query project")
        overlap = store.settings.overlap
        name = f"{project.name} – correction queries"
        number = projects.create_query_project(client, name, overlap)
        project = _remember(store, project_id, query_project=number, overlap=overlap)
    report("connecting the backend")
    for connected in (project.dataset_project, project.query_project):
        assert connected is not None
        projects.connect_backend(client, connected, store.settings.backend, secret)
    return project


def import_project(
    store: Store,
    client: Client,
    label_studio_project: int,
    *,
    name: str | None = None,
    superpixel_count: int = 100,
    report: Report = lambda message: None,
) -> ImportSummary:
    """Import the pictures of an existing dataset project with their masks.

    Classes come from its label config. A picture's first label map is painted from the brush
    regions of its newest annotation, else of its newest prediction; each region is a superpixel.
    What no region covers is the class named background, or void when there is none; pictures
    without regions start as background with SLIC superpixels. Pictures that cannot be used are
    left out and named in the summary. Repeating it adds only new pictures. Raises DatasetError
    when the classes are no longer those of the first import, or the name is taken.
    """
    config = client.get(f"/api/projects/{label_studio_project}")
    tags = projects.read_dataset_config(config["label_config"])
    classes = checked_classes(tags.classes, f"the label config of project {label_studio_project}")
    with store.reading() as session:
        project = session.scalar(
            select(Project).where(Project.dataset_project == label_studio_project)
        )
    if project is None:
        project_id = create_project(store, name or str(config["title"]), classes)
        _remember(
            store,
            project_id,
            dataset_project=label_studio_project,
            brush_name=tags.brush_name,
            image_name=tags.image_name,
        )
    elif project.classes != classes:
        raise DatasetError(
            f"Label Studio project {label_studio_project} was imported with the classes "
            f"{', '.join(project.classes)} and now has {', '.join(classes)}; restore them there, "
            "or import into a new project"
        )
    else:
        project_id = project.id
    summary = ImportSummary(project_id)
    images = store.images(project_id, TRAIN)
    known_tasks = {image.dataset_task for image in images}
    known_keys = {image.key for image in images}
    with tempfile.TemporaryDirectory(prefix="alc-import-") as folder:
        for task in client.tasks(label_studio_project):
            report(f"importing task {task['id']}")
            uploaded_as = asked_about(task["data"]).image
            if task["id"] in known_tasks or uploaded_as in known_keys:
                summary.present += 1
                continue
            try:
                url = str(task["data"].get(tags.image_field, ""))
                path = Path(folder) / f"picture{_suffix(url)}"
                path.write_bytes(client.download(url))
                kind, newest = _newest(task)
                results = list(newest["result"]) if newest else []
                sample = _sample(task, results, path, classes, superpixel_count)
                begun = parse(newest, task["id"]) if newest and kind == ANNOTATIONS else None
            except (AlcError, ValueError) as error:
                summary.problems.append(f"task {task['id']}: {error}")
                continue
            added = add_sample(
                store, project_id, TRAIN, sample, url=url, task=int(task["id"]), annotation=begun
            )
            if added is None:
                summary.present += 1
            else:
                summary.imported += 1
                summary.superpixels += added
    return summary


def _upload(store: Store, client: Client, project: Project, report: Report) -> None:
    """Upload the pictures that Label Studio does not have, and make their dataset tasks."""
    assert project.dataset_project is not None
    files = store.files(project.id)
    waiting = _waiting(store, project.id)
    if waiting:  # some may be there from an attempt that was interrupted
        tasks = client.tasks(project.dataset_project, fields="task_only")
        there = {asked_about(task["data"]).image: task for task in tasks}
        known = [image for image in waiting if image.key in there]
        urls = [str(there[image.key]["data"]["image"]) for image in known]
        _remember_tasks(store, known, urls, [int(there[image.key]["id"]) for image in known])
        waiting = _waiting(store, project.id)
    for first in range(0, len(waiting), 50):
        part = waiting[first : first + 50]
        report(f"uploading pictures {first + 1}–{first + len(part)} of {len(waiting)}")
        urls = client.upload(
            project.dataset_project, [files.image(image.id, image.suffix) for image in part]
        )
        tasks = client.post(
            f"/api/projects/{project.dataset_project}/import",
            [
                {"data": {"image": url, "alc": {"image": image.key}}}
                for image, url in zip(part, urls, strict=True)
            ],
            return_task_ids="true",
        )["task_ids"]
        if len(tasks) != len(part):
            raise LabelStudioError(
                f"Label Studio made {len(tasks)} of {len(part)} tasks; run `alc init` again"
            )
        _remember_tasks(store, part, urls, tasks)


def _waiting(store: Store, project_id: int) -> Sequence[Image]:
    """The training pictures that are not in Label Studio yet."""
    return [image for image in store.images(project_id, TRAIN) if image.dataset_task is None]


def _remember_tasks(
    store: Store, images: Sequence[Image], urls: Sequence[str], tasks: Sequence[int]
) -> None:
    with store.session() as session:
        for image, url, task in zip(images, urls, tasks, strict=True):
            row = session.get_one(Image, image.id)
            row.url, row.dataset_task = url, int(task)


def _sample(
    task: Json, results: list[Json], path: Path, classes: list[str], superpixel_count: int
) -> Sample:
    image = read_image(path)
    shape = (image.shape[0], image.shape[1])
    uncovered = uncovered_class(classes)
    maps = painted(results, classes, uncovered)
    if maps is None and uncovered == VOID:
        raise DatasetError(
            "has no regions to start from, and no class of the label config is the background; add "
            'regions, or a <Label value="background"/>'
        )
    if maps is None:
        maps = np.full(shape, uncovered, dtype=np.uint8), slic(image, superpixel_count)
    elif maps[0].shape != shape:
        raise DatasetError(
            f"its regions are for {maps[0].shape[1]}×{maps[0].shape[0]} pixels, the picture has "
            f"{shape[1]}×{shape[0]}; import the picture again"
        )
    return Sample(f"task-{task['id']}", path, *shape, *maps, None)


def _newest(task: Json) -> tuple[str, Json | None]:
    """A task's newest annotation, else its newest prediction; which of them it is."""
    for kind in (ANNOTATIONS, "predictions"):
        records = [item for item in task.get(kind, []) if not item.get("was_cancelled")]
        if records:
            return kind, max(records, key=lambda item: str(item["created_at"]))
    return "", None


def _suffix(url: str) -> str:
    """The file ending of a picture's address, ``.jpg`` when it shows none."""
    parts = urlparse(url)
    names = [parts.path, *parse_qs(parts.query).get("d", [])]
    for name in names:
        suffix = PurePosixPath(name).suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            return suffix
    return ".jpg"


def _remember(store: Store, project_id: int, **values: Any) -> Project:
    with store.session() as session:
        project = session.get_one(Project, project_id)
        for name, value in values.items():
            setattr(project, name, value)
        return project


def _secret(settings: Settings) -> str:
    if settings.secret is None:
        raise SettingsError(
            "ALC_SECRET is not set; choose a password for the backend and give the same one to "
            "`alc serve` and `alc init`"
        )
    return settings.secret.get_secret_value()

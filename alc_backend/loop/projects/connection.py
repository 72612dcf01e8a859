"""Connecting a project of the store with Label Studio: uploads, the two projects, the backend.

Writes Label Studio (projects, tasks, the connected backend), and in the database the numbers by
which it is known there. Called by commands, and by the service for projects that were connected in
Label Studio.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import select

from alc_backend.common.types import Json
from alc_backend.datasets.classes import checked_classes
from alc_backend.errors import LabelStudioError, SettingsError
from alc_backend.labelstudio import projects
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.dataset_config import read_dataset_config
from alc_backend.labelstudio.query import asked_about
from alc_backend.labelstudio.task_pages import LeftOut
from alc_backend.labelstudio.texts import texts
from alc_backend.loop.projects.classes import refuse_missing, take_up_labels
from alc_backend.loop.task_sync import select_queries
from alc_backend.settings import Settings
from alc_backend.store import upkeep
from alc_backend.store.cvat import CvatProject
from alc_backend.store.database import Store
from alc_backend.store.importing import create_project
from alc_backend.store.models import TRAIN, Image, Project, Query

Report = Callable[[str], None]


def refuse_in_cvat(store: Store, name: str) -> None:
    """Raise SettingsError where the project of a name is asked in CVAT: it cannot be elsewhere."""
    with store.reading() as session:
        named = select(CvatProject.project_id).join(Project).where(Project.name == name)
        if session.scalar(named) is not None:
            raise SettingsError(
                f"project {name!r} is asked in CVAT; give another name with --name, or its task "
                "or project there with --cvat-task or --cvat-project"
            )


def connect_project(store: Store, client: Client, project_id: int, report: Report) -> Project:
    """Give a project its images, projects and backend in Label Studio; safe to repeat.

    What exists already is kept; labels that the label config has got since become classes. A query
    project that was deleted is made anew: the next round fills it. Images are uploaded last. Raises
    NotFoundError when the dataset project was deleted, DatasetError when the label config lacks
    classes, RoundError when it has new ones while a round is under way, LabelStudioError when Label
    Studio refuses something.
    """
    checked_secret(store.settings)
    with store.reading() as session:
        project = session.get_one(Project, project_id)
    refuse_in_cvat(store, project.name)
    if project.dataset_project is None:
        report("making the dataset project")
        number = projects.create_dataset_project(
            client, project.name, project.classes, store.settings.regions
        )
        project = _remember(store, project_id, dataset_project=number)
    projects.check_there(client, project.dataset_project or 0, projects.DATASET)
    if new := take_up_labels(store, client, project):
        report(f"new classes: {', '.join(new)}")
        with store.reading() as session:
            project = session.get_one(Project, project_id)
    if project.query_project is not None and not _is_there(client, project.query_project):
        report(f"Label Studio no longer has the query project {project.query_project}")
        project = _forget_queries(store, project)
    if project.query_project is None:
        report("making the query project")
        overlap, wording = store.settings.overlap, texts(store.settings.language)
        number = projects.create_query_project(
            client, project.name, overlap, len(project.classes), wording
        )
        with store.session() as session:
            upkeep.set_overlap(session, project_id, overlap)
        project = _remember(store, project_id, query_project=number)
    _upload(store, client, project, report)
    report("connecting the backend")
    connect_backends(store.settings, client, project)
    return project


def _is_there(client: Client, number: int) -> bool:
    return client.exists(f"/api/projects/{number}")


def _forget_queries(store: Store, project: Project) -> Project:
    """Forget the query project and its tasks; the answers in the ledger stay."""
    with store.session() as session:
        for query in session.scalars(select_queries(project.id, Query)):
            query.task_id, query.digest, query.closed_at = None, None, None
    return _remember(store, project.id, query_project=None, other_tasks=0)


def connect_backends(settings: Settings, client: Client, project: Project) -> None:
    """Connect this backend to those of a project's two projects that are in Label Studio.

    Safe to repeat; the passwords there become those of the present secret.
    """
    secret = checked_secret(settings)
    for number in (project.dataset_project, project.query_project):
        if number is not None:
            projects.connect_backend(client, number, settings.backend, secret)


def take_up_project(
    store: Store,
    client: Client,
    label_studio_project: int,
    *,
    name: str | None = None,
    warm_start: Json | None = None,
) -> int:
    """Make a project of an existing dataset project, or find the one made of it; returns its id.

    Its classes are those of the label config. Its images arrive by
    :mod:`alc_backend.loop.projects.image_queue` and get their first label maps as ``warm_start``
    says. Without a ``name`` it gets that of the dataset project, with its number where the name is
    taken. Raises DatasetError when the label config lacks classes of the first time, or the
    ``name`` is taken.
    """
    config = client.get(f"/api/projects/{label_studio_project}")
    tags = read_dataset_config(config["label_config"])
    classes = checked_classes(tags.classes, f"the label config of project {label_studio_project}")
    with store.reading() as session:
        project = session.scalar(
            select(Project).where(Project.dataset_project == label_studio_project)
        )
    if project is None:
        project_id = create_project(store, name or free_name(store, config), classes)
        _remember(
            store,
            project_id,
            dataset_project=label_studio_project,
            brush_name=tags.brush_name,
            image_name=tags.image_name,
        )
    else:
        refuse_missing(project, tags)
        project_id = project.id
    if warm_start is not None:
        _remember(store, project_id, warm_start=warm_start)
    return project_id


def free_name(store: Store, config: Json) -> str:
    """The title of a Label Studio project, with its number where a project has that name."""
    title, number = str(config["title"]), config["id"]
    with store.reading() as session:
        taken = set(session.scalars(select(Project.name)))
    names = [title, f"{title} ({number})"]
    names += [f"{title} ({number}, {again})" for again in range(2, len(taken) + 2)]
    return next(name for name in names if name not in taken)


def upload_images(
    store: Store, client: Client, project_id: int, paths: Mapping[str, Path], report: Report
) -> int:
    """Upload those of the images (by image key) that have no dataset task yet; returns how many.

    The project must be connected. The images come into the store by
    :mod:`alc_backend.loop.projects.image_queue`.
    """
    with store.reading() as session:
        project = session.get_one(Project, project_id)
    assert project.dataset_project is not None
    there = _tasks_of_images(client, project.dataset_project)
    missing = [(key, path) for key, path in paths.items() if key not in there]
    for _ in make_tasks(client, project.dataset_project, missing, report):
        pass
    return len(missing)


def _tasks_of_images(client: Client, dataset_project: int) -> dict[str, Json]:
    """The tasks of a dataset project by the keys of their images; those that cannot be had lack."""
    tasks = client.tasks(dataset_project, leave_out=LeftOut(), fields="task_only")
    return {asked_about(task["data"]).image: task for task in tasks}


def _upload(store: Store, client: Client, project: Project, report: Report) -> None:
    """Upload the images that Label Studio does not have, and make their dataset tasks."""
    assert project.dataset_project is not None
    files = store.files(project.id)
    waiting = _waiting(store, project.id)
    if waiting:  # some may be in Label Studio from an attempt that was interrupted
        there = _tasks_of_images(client, project.dataset_project)
        known = [image for image in waiting if image.key in there]
        urls = [str(there[image.key]["data"]["image"]) for image in known]
        _remember_tasks(store, known, urls, [int(there[image.key]["id"]) for image in known])
        waiting = _waiting(store, project.id)
    paths = [(image.key, files.image(image.id, image.suffix)) for image in waiting]
    done = 0
    for urls, numbers in make_tasks(client, project.dataset_project, paths, report):
        _remember_tasks(store, waiting[done : done + len(urls)], urls, numbers)
        done += len(urls)


def make_tasks(
    client: Client,
    project: int,
    paths: Sequence[tuple[str, Path]],
    report: Report,
    field: str = "image",
) -> Iterator[tuple[list[str], list[int]]]:
    """Upload images with their keys and make their tasks; yields addresses and tasks, in parts.

    ``field`` is the one of a task's data that holds the address.
    """
    for first in range(0, len(paths), 50):
        part = paths[first : first + 50]
        report(f"uploading images {first + 1}–{first + len(part)} of {len(paths)}")
        urls = client.upload(project, [path for _, path in part])
        tasks = client.post(
            f"/api/projects/{project}/import",
            [
                {"data": {field: url, "alc": {"image": key}}}
                for (key, _), url in zip(part, urls, strict=True)
            ],
            return_task_ids="true",
        )["task_ids"]
        if len(tasks) != len(part):
            raise LabelStudioError(
                f"Label Studio made {len(tasks)} of {len(part)} tasks; run `alc init` again"
            )
        yield urls, [int(task) for task in tasks]


def _waiting(store: Store, project_id: int) -> Sequence[Image]:
    """The images under correction that are not in Label Studio yet."""
    return [image for image in store.images(project_id, TRAIN) if image.dataset_task is None]


def _remember_tasks(
    store: Store, images: Sequence[Image], urls: Sequence[str], tasks: Sequence[int]
) -> None:
    with store.session() as session:
        for image, url, task in zip(images, urls, tasks, strict=True):
            row = session.get_one(Image, image.id)
            row.url, row.dataset_task = url, int(task)


def _remember(store: Store, project_id: int, **values: Any) -> Project:
    with store.session() as session:
        project = session.get_one(Project, project_id)
        for name, value in values.items():
            setattr(project, name, value)
        return project


def checked_secret(settings: Settings) -> str:
    """ALC_SECRET; SettingsError when it is not set."""
    if settings.secret is None:
        raise SettingsError(
            "ALC_SECRET is not set; choose a password for the backend and give the same one to "
            "`alc serve` and `alc init`"
        )
    return settings.secret.get_secret_value()

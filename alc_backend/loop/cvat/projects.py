"""Making a project of images and masks of a CVAT server, and the CVAT project for its questions.

Reads frames and masks of CVAT; writes images and label maps into the store, and in CVAT one project
with a webhook. Called by commands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from sqlalchemy import select

from alc_backend.cvat.client import Cvat as Server
from alc_backend.cvat.client import Frame
from alc_backend.cvat.shapes import digest_of, record_of
from alc_backend.cvat.signature import secret_of
from alc_backend.datasets.cvat import Cvat, classes_of
from alc_backend.datasets.cvat_xml import Record
from alc_backend.datasets.names import checked_name, key_of
from alc_backend.errors import CvatError, DatasetError, PlatformAwayError
from alc_backend.loop.cvat.masks import digest_of_map
from alc_backend.loop.projects.connection import checked_secret
from alc_backend.settings import Settings
from alc_backend.store import importing, upkeep
from alc_backend.store.cvat import CvatFrame, CvatProject
from alc_backend.store.database import Store
from alc_backend.store.models import TRAIN, Image, Project

TASK, PROJECT = "task", "project"
"""What of CVAT a project can be made of."""

Report = Callable[[str], None]

WEBHOOK = "/cvat/{questions}"
"""The path of the route that CVAT reports to, about its project ``questions`` (id)."""


def read_source(
    server: Server, source: str, number: int, folder: Path, report: Report
) -> tuple[Cvat, dict[str, tuple[int, Frame, str]]]:
    """A task or a project of CVAT as a dataset, whose images are put into ``folder``.

    The second value tells, for each name of an image, its task, its frame, and the digest of the
    masks there. Of a project, tasks that are videos are left out, and named by the dataset, as are
    images that CVAT does not give. Raises DatasetError for a source without masks, CvatError for a
    task that is a video.
    """
    labels = server.labels(source, number)
    where = f"CVAT's {source} {number}"
    classes = classes_of(labels.values(), where)
    tasks = [number] if source == TASK else [task for task, _ in server.tasks_of(number)]
    records: list[Record] = []
    places: dict[str, tuple[int, Frame, str]] = {}
    problems: list[str] = []
    for task in tasks:
        try:
            frames, shapes = server.frames(task), server.shapes(task)
        except CvatError as error:
            if source == TASK or isinstance(error, PlatformAwayError):
                raise
            problems.append(str(error))
            continue
        for done, frame in enumerate(frames):
            report(f"task {task}: image {done + 1} of {len(frames)} ({frame.name})")
            here = [shape for shape in shapes if shape["frame"] == frame.number]
            try:
                path = folder / checked_name(frame.name, where)
                if frame.name not in places:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(server.image(task, frame.number))
            except (CvatError, DatasetError) as error:
                if isinstance(error, PlatformAwayError):
                    raise
                problems.append(str(error))
                continue
            records.append(record_of(frame, here, labels))
            places[frame.name] = task, frame, digest_of(here)
    if not any(record.shapes for record in records):
        raise DatasetError(
            f"{where} has neither masks nor polygons; draw some, or let CVAT annotate it "
            "automatically, for example with `cvat-cli task auto-annotate`"
        )
    dataset = Cvat(folder, classes, split=TRAIN, records=records, folders=[folder], source=where)
    for problem in problems:
        dataset.report(problem)
    return dataset, places


def known_project(store: Store, source: str, number: int) -> Project | None:
    """The project that was made of a task or a project of CVAT, if there is one."""
    with store.reading() as session:
        return session.scalars(
            select(Project)
            .join(CvatProject, CvatProject.project_id == Project.id)
            .where(CvatProject.source == source, CvatProject.number == number)
        ).first()


def remember_frames(
    store: Store, project_id: int, places: dict[str, tuple[int, Frame, str]]
) -> None:
    """Write down which frame each image came from, and which masks are there.

    Frames that are known stay as they are.
    """
    by_key = {key_of(Path(_below(name)), Path()): place for name, place in places.items()}
    files = store.files(project_id)
    with store.reading() as session:
        known = set(session.scalars(select(CvatFrame.image_id)))
    new = [image for image in store.images(project_id, TRAIN) if image.id not in known]
    for image in new:
        if image.key not in by_key:
            continue
        task, frame, shapes = by_key[image.key]
        label_map = digest_of_map(files.read_label_map("initial", image.id))
        with store.session() as session:
            session.get_one(Image, image.id).url = f"/tasks/{task}?frame={frame.number}"
            session.add(
                CvatFrame(
                    image_id=image.id,
                    task=task,
                    frame=frame.number,
                    label_map=label_map,
                    shapes=shapes,
                )
            )


def _below(name: str) -> str:
    """A frame's name as the dataset's reader makes a key of it."""
    return re.sub("^images/", "", name)


def create_project(
    store: Store,
    name: str,
    classes: list[str],
    warm_start: dict[str, Any],
    *,
    source: str,
    number: int,
) -> int:
    """Create a project of a "task" or a "project" of CVAT; returns its id.

    One annotator answers its questions. Raises DatasetError when the name is taken.
    """
    with store.session() as session:
        project_id = importing.add_project(session, name, classes, warm_start)
        session.add(CvatProject(project_id=project_id, source=source, number=number))
        upkeep.set_overlap(session, project_id, 1)
        return project_id


def connect(store: Store, server: Server, project_id: int, report: Report) -> int:
    """Give a project the CVAT project for its questions, and that its webhook; safe to repeat.

    Returns the CVAT project's id. One that was deleted is made anew. Raises SettingsError without
    ALC_SECRET.
    """
    secret = checked_secret(store.settings)
    with store.reading() as session:
        project = session.get_one(Project, project_id)
        questions = session.get_one(CvatProject, project_id).questions
    if questions is None or not is_there(server, questions):
        report("making the project of the questions")
        questions = server.create_project(f"{project.name}: questions", project.classes)
        with store.session() as session:
            session.get_one(CvatProject, project_id).questions = questions
    report("connecting the webhook")
    connect_webhook(store.settings, server, questions, secret)
    return questions


def connect_webhook(settings: Settings, server: Server, questions: int, secret: str) -> None:
    """Let CVAT report changed jobs of a project with questions to this backend."""
    address = webhook_address(settings, questions)
    server.set_webhook(questions, address, secret_of(questions, secret))


def webhook_address(settings: Settings, questions: int) -> str:
    """Where CVAT reports changed jobs of a project with questions (id)."""
    return settings.backend + WEBHOOK.format(questions=questions)


def reconnect(store: Store, project_id: int) -> None:
    """Give the webhook of a project the present secret; nothing happens where it has none.

    Raises SettingsError, CvatError.
    """
    with store.reading() as session:
        row = session.get(CvatProject, project_id)
    if row is not None and row.questions is not None:
        with Server.from_settings(store.settings) as server:
            secret = checked_secret(store.settings)
            connect_webhook(store.settings, server, row.questions, secret)


def is_there(server: Server, project: int) -> bool:
    """Whether CVAT has a project (id)."""
    try:
        server.name_of(PROJECT, project)
    except CvatError as error:
        if error.status == HTTPStatus.NOT_FOUND:
            return False
        raise
    return True


def projects_in_cvat(store: Store) -> Sequence[int]:
    """The projects (row ids) that are asked in CVAT."""
    with store.reading() as session:
        return session.scalars(
            select(CvatProject.project_id).order_by(CvatProject.project_id)
        ).all()

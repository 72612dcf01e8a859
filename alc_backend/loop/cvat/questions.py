"""The questions of a round as one CVAT task: a frame each, with the pseudo label as its tag.

A frame is the part of an image around the superpixel, which is outlined. Writes CVAT's tasks and,
in the database, which frame asks which query. Called by ``rounds.platforms``; how a batch is
chosen, it does not know.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from http import HTTPStatus
from pathlib import Path

from scipy import ndimage
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from alc_backend.common.types import Progress
from alc_backend.cvat.client import Cvat as Server
from alc_backend.cvat.client import Job
from alc_backend.datasets.images import read_image
from alc_backend.errors import CvatError, RoundError
from alc_backend.labelstudio.sheets import draw_tile
from alc_backend.loop.task_sync import select_queries
from alc_backend.store.cvat import CvatJob, CvatProject, CvatQuestion, CvatTask
from alc_backend.store.database import Store
from alc_backend.store.models import Image, Project, Query, Round, Superpixel, utc_now

PER_JOB = 25
"""Frames of a job: its answers count together, once it is finished."""

SIDE_PX = 512
"""Side of a frame in pixels."""

QUALITY = 95
"""JPEG quality of a frame's file."""

Begin = Callable[[], AbstractContextManager[Session]]
"""Begins a session that writes, while the worker still has its part."""


def is_brought(store: Store, server: Server, round_: Round) -> bool:
    """Whether an earlier attempt has brought all frames of the round's questions into CVAT.

    What it left half made, or was to be chosen anew since, is removed.
    """
    with store.reading() as session:
        task = session.scalars(select(CvatTask).where(CvatTask.round_id == round_.id)).first()
        if task is None:
            return False
        mine = CvatQuestion.cvat_task_id == task.id
        asked = session.scalar(select(func.count()).select_from(CvatQuestion).where(mine))
    found = _find(server, _project_of(store, round_), task.name)
    if found is None:
        return False
    if asked and server.size_of(found) == asked:
        return True
    server.delete_task(found)
    return False


def plan(begin: Begin, round_: Round) -> None:
    """Write down which frame asks which of the round's queries, in their order."""
    with begin() as session:
        earlier = select(CvatTask.id).where(CvatTask.round_id == round_.id)
        session.execute(delete(CvatQuestion).where(CvatQuestion.cvat_task_id.in_(earlier)))
        session.execute(delete(CvatTask).where(CvatTask.round_id == round_.id))
        queries = session.scalars(
            select_queries(round_.project_id, Query)
            .where(Query.round_id == round_.id, Image.removed.is_(None))
            .order_by(Query.rank)
        ).all()
        if not queries:
            return
        name = f"Round {round_.number} ({secrets.token_hex(3)})"
        task = CvatTask(project_id=round_.project_id, round_id=round_.id, name=name)
        session.add(task)
        session.flush()
        session.add_all(
            CvatQuestion(
                cvat_task_id=task.id,
                frame=frame,
                query_id=query.id,
                preset=query.pseudo_label,
                round_number=query.question_round,
            )
            for frame, query in enumerate(queries)
        )


def bring(store: Store, server: Server, round_: Round, begin: Begin, report: Progress) -> None:
    """Bring the planned questions of a round into CVAT; they are in force then.

    Questions of earlier rounds that it does not ask are closed: they stay in their tasks, and are
    read when their jobs are finished. Raises CvatError, RoundError where a class has no label.
    """
    with store.reading() as session:
        task = session.scalars(select(CvatTask).where(CvatTask.round_id == round_.id)).first()
        questions: list[CvatQuestion] = []
        if task is not None:
            mine = select(CvatQuestion).where(CvatQuestion.cvat_task_id == task.id)
            questions = list(session.scalars(mine.order_by(CvatQuestion.frame)))
    jobs: list[Job] = []
    if task is not None:
        labels = _labels_of(store, server, round_, questions)
        number = _made(store, server, round_, task, report)
        _preset(server, number, questions, labels)
        jobs = server.jobs(number)
    with begin() as session:
        if task is not None:
            session.get_one(CvatTask, task.id).task = number
            for job in jobs:
                row = CvatJob(job=job.number, cvat_task_id=task.id, first=job.first, last=job.last)
                session.merge(row)
            for question in questions:
                query = session.get_one(Query, question.query_id)
                query.task_id, query.closed_at = -question.id, None
        earlier = select(Round.id).where(
            Round.project_id == round_.project_id, Round.number < round_.number
        )
        session.execute(
            update(Query)
            .where(
                Query.round_id.in_(earlier), Query.task_id.is_not(None), Query.closed_at.is_(None)
            )
            .values(closed_at=utc_now())
        )
        session.get_one(Round, round_.id).switched_at = utc_now()


def _made(store: Store, server: Server, round_: Round, task: CvatTask, report: Progress) -> int:
    """The id of the CVAT task with all frames, which is made where there is none."""
    project = _project_of(store, round_)
    found = _find(server, project, task.name)
    if found is not None:
        return found
    with tempfile.TemporaryDirectory(prefix="alc-cvat-") as folder:
        paths = _draw(store, round_.project_id, task.id, Path(folder), report)
        report(2, 3, f"bringing {len(paths)} questions into CVAT")
        return server.create_task(project, task.name, paths, PER_JOB)


def _find(server: Server, project: int, name: str) -> int | None:
    """The task of a name in a project; CvatError, saying what to do, where the project is gone."""
    try:
        listed = server.tasks_of(project)
    except CvatError as error:
        if error.status == HTTPStatus.NOT_FOUND:
            raise CvatError(
                f"CVAT no longer has project {project}, where the questions were asked; run `alc "
                "init` with --cvat-task or --cvat-project again, then start the round again",
                error.status,
            ) from error
        raise
    return next((task for task, known in listed if known == name), None)


def _labels_of(
    store: Store, server: Server, round_: Round, questions: Sequence[CvatQuestion]
) -> dict[int, int]:
    """The labels (ids) of all classes that are asked about; RoundError where one has none."""
    labels = label_ids(store, server, round_.project_id)
    missing = {question.preset for question in questions} - labels.keys()
    if missing:
        name = round_.project.classes[min(missing)]
        raise RoundError(
            f"the questions' project in CVAT has no label {name!r}; add it there as a tag, and "
            "start the round again"
        )
    return labels


def _preset(
    server: Server, task: int, questions: Sequence[CvatQuestion], labels: dict[int, int]
) -> None:
    """Give each frame that has no tag yet the one of its pseudo label."""
    tagged = server.tagged_frames(task)
    missing = [item for item in questions if item.frame not in tagged]
    if missing:
        server.create_tags(task, [(item.frame, labels[item.preset]) for item in missing])


def label_ids(store: Store, server: Server, project_id: int) -> dict[int, int]:
    """The labels (ids) of CVAT's project with questions, by the ids of the classes."""
    with store.reading() as session:
        classes = session.get_one(Project, project_id).class_ids
        questions = session.get_one(CvatProject, project_id).questions
    if questions is None:
        return {}
    listed = server.labels("project", questions)
    return {classes[name]: number for number, name in listed.items() if name in classes}


def _project_of(store: Store, round_: Round) -> int:
    """CVAT's project with questions; RoundError where none was made."""
    with store.reading() as session:
        row = session.get_one(CvatProject, round_.project_id)
    if row.questions is None:
        raise RoundError(
            f"project {round_.project.name!r} has no project for its questions in CVAT; run `alc "
            f"init --cvat-{row.source} {row.number}` to make it, then start the round again"
        )
    return row.questions


def _draw(
    store: Store, project_id: int, task_id: int, folder: Path, report: Progress
) -> list[Path]:
    """Draw the frames of a task into ``folder``, each image being read once; in their order."""
    with store.reading() as session:
        rows = session.execute(
            select(CvatQuestion.frame, Superpixel.number, Image.id, Image.key, Image.suffix)
            .join(Query, Query.id == CvatQuestion.query_id)
            .join(Superpixel, Superpixel.id == Query.superpixel_id)
            .join(Image, Image.id == Superpixel.image_id)
            .where(CvatQuestion.cvat_task_id == task_id)
            .order_by(Image.id, CvatQuestion.frame)
        ).all()
    files = store.files(project_id)
    by_image: dict[int, list[int]] = {}
    for place, row in enumerate(rows):
        by_image.setdefault(row.id, []).append(place)
    drawn: dict[int, Path] = {}
    for places in by_image.values():
        image = rows[places[0]]
        report(1, 3, f"drawing the questions about {image.key}")
        picture = read_image(files.image(image.id, image.suffix))
        superpixels = files.read_superpixels(image.id)
        boxes = ndimage.find_objects(superpixels)
        for row in (rows[place] for place in places):
            tile = draw_tile(
                picture, superpixels, row.number, boxes[row.number - 1], side_px=SIDE_PX
            )
            path = folder / f"{row.frame + 1:07}.jpg"
            tile.save(path, "JPEG", quality=QUALITY)
            drawn[row.frame] = path
    return [drawn[frame] for frame in sorted(drawn)]

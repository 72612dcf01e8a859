"""Which task of Label Studio asks what, and which of them Label Studio may still hand out.

Compares the questions in the database, single ones and pages, with the tasks of the query project:
takes over what an interrupted attempt made, forgets what was deleted there, and closes what is not
asked. Called by ``query_tasks``, ``page_tasks``, ``annotations`` and ``rounds``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from sqlalchemy import Select, exists, func, select, update
from sqlalchemy.orm import Session

from alc_backend.common.batches import batched
from alc_backend.errors import LabelStudioError
from alc_backend.labelstudio import query, tasks
from alc_backend.labelstudio.client import Client, is_outage
from alc_backend.store.database import Store
from alc_backend.store.models import TRAIN, Image, Project, Query, Round, Superpixel, utc_now
from alc_backend.store.pages import Page, Tile
from alc_backend.store.round_states import RoundState

log = logging.getLogger(__name__)

AT_ONCE = 500
"""Images, pages or tasks that a query lists."""

Question = tuple[type[Query] | type[Page], int]
"""A question: its table and its row id."""


def select_queries(project_id: int, *wanted: Any) -> Select[Any]:
    """Select ``wanted`` (tables or columns) of all queries, superpixels and images of a project."""
    return (
        select(*wanted)
        .select_from(Query)
        .join(Superpixel, Superpixel.id == Query.superpixel_id)
        .join(Image, Image.id == Superpixel.image_id)
        .where(Image.project_id == project_id)
    )


def asked_by(project_id: int, key: query.Key) -> Select[Any]:
    """Select the query about a training image's superpixel that a task's ``key`` names."""
    return select_queries(project_id, Query).where(
        Image.split == TRAIN,
        Image.key == key.image,
        Superpixel.number == key.superpixel,
        Query.adjudication == key.adjudication,
    )


def keys_by_id(session: Session, project_id: int) -> dict[int, query.Key]:
    """What each query of a project asks about, by its row id."""
    columns = (Query.id, Image.key, Superpixel.number, Query.adjudication)
    rows = session.execute(select_queries(project_id, *columns))
    return {row.id: query.Key(row.key, row.number, row.adjudication) for row in rows}


def page_keys(session: Session, project_id: int) -> dict[str, int]:
    """The pages of a project: the row id of each by its key."""
    pages = select(Page.key, Page.id).where(Page.project_id == project_id)
    return {row.key: row.id for row in session.execute(pages)}


def _questions(session: Session, project_id: int) -> dict[query.Key, Query | Page]:
    """All questions of a project by what their tasks say they are about."""
    keys = keys_by_id(session, project_id)
    found: dict[query.Key, Query | Page] = {
        keys[row.id]: row for row in session.scalars(select_queries(project_id, Query))
    }
    for page in session.scalars(select(Page).where(Page.project_id == project_id)):
        found[query.Key("", 0, page=page.key)] = page
    return found


def _count_tasks(session: Session, project_id: int) -> int:
    """How many tasks the query project should have that this backend made."""
    counted = 0
    for question in (Query, Page):
        rounds = select(Round.id).where(Round.project_id == project_id)
        made = select(func.count()).where(
            question.round_id.in_(rounds), question.task_id.is_not(None)
        )
        counted += session.scalar(made) or 0
    return counted


def sync_tasks(store: Store, client: Client, project_id: int, *, look: bool = False) -> None:
    """Compare the questions with the tasks that Label Studio holds.

    Does so when their number is not what it should be, or with ``look``. Tasks that an interrupted
    attempt made are taken over, those that were deleted there or ask something else are forgotten,
    and those that ask the same as another one, or were closed, are closed. That tasks are gone is
    noted: the answers in them must be looked for. Raises LabelStudioError.
    """
    with store.reading() as session:
        project = session.get_one(Project, project_id)
        expected = _count_tasks(session, project_id) + project.other_tasks
    if project.query_project is None:
        return
    if not look and tasks.count_tasks(client, project.query_project) == expected:
        return
    with store.reading() as session:
        asked = _questions(session, project_id)
        before = {key: row.task_id for key, row in asked.items() if row.task_id is not None}
    held = tasks.existing_tasks(client, project.query_project)
    known = {number: task.key for number, task in held.items()}
    with store.session() as session:
        rows = _questions(session, project_id)
        lost = {
            key: row
            for key, row in rows.items()
            if row.task_id == before.get(key)
            and known.get(before.get(key, 0)) not in (key, query.NOT_OURS)
        }
        for row in lost.values():
            row.task_id, row.closed_at = None, None
            if isinstance(row, Query):
                row.digest = None
        session.flush()  # two may exchange their tasks
        taken = {row.task_id for row in rows.values()}
        by_key = {key: task_id for task_id, key in known.items() if task_id not in taken}
        for key, row in lost.items():
            row.task_id = by_key.get(key)
            if row.task_id is not None and held[row.task_id].is_closed:
                row.closed_at = utc_now()
        taken = {row.task_id for row in rows.values() if row.task_id is not None}
        noted, others = session.get_one(Project, project_id), len(known.keys() - taken)
        if lost or others < noted.other_tasks:
            noted.tasks_gone_at = utc_now()
        noted.other_tasks = others
    close_reopened(
        store, client, project_id, {n: task.key for n, task in held.items() if task.is_open}
    )


def close_reopened(
    store: Store, client: Client, project_id: int, served: Mapping[int, query.Key]
) -> None:
    """Close those of the ``served`` tasks (id → what it asks) that should be closed.

    Label Studio serves a closed task again when somebody skips it, deletes an annotation of it or
    changes how many annotators each is put to, or when its database comes from an older dump. A
    task that asks the same as another one is closed, too. Those that a round opens which is being
    published are left to it. Raises LabelStudioError in an outage.
    """
    if not served:
        return
    with store.reading() as session:
        asked_by = _tasks_of(session, project_id, served.values())
        closed = _closed(session, project_id, served)
    twins = {n for n, key in served.items() if asked_by.get(key, n) != n}
    wanted = {n: closed.get(n) for n in served if n in closed or n in twins}
    close(store.session, client, wanted)


def _tasks_of(
    session: Session, project_id: int, keys: Collection[query.Key]
) -> dict[query.Key, int]:
    """The tasks of the questions with some keys; questions without one are left out."""
    found: dict[query.Key, int] = {}
    for images in batched(sorted({key.image for key in keys if not key.page}), AT_ONCE):
        columns = (Image.key, Superpixel.number, Query.adjudication, Query.task_id)
        rows = session.execute(
            select_queries(project_id, *columns).where(
                Image.split == TRAIN, Image.key.in_(images), Query.task_id.is_not(None)
            )
        )
        found.update((query.Key(*row[:3]), row.task_id) for row in rows)
    for pages in batched(sorted({key.page for key in keys if key.page}), AT_ONCE):
        which = (Page.project_id == project_id, Page.key.in_(pages), Page.task_id.is_not(None))
        for row in session.execute(select(Page.key, Page.task_id).where(*which)):
            found[query.Key("", 0, page=row.key)] = row.task_id
    return found


def _closed(session: Session, project_id: int, served: Iterable[int]) -> dict[int, Question]:
    """The questions of those of some tasks that should be closed, by the tasks' ids."""
    found: dict[int, Question] = {}
    for part in batched(sorted(served), AT_ONCE):
        columns = (Query.id, Query.task_id, Round.state, Image.removed)
        queries = session.execute(
            select_queries(project_id, *columns)
            .join(Round, Round.id == Query.round_id)
            .where(Query.closed_at.is_not(None), Query.task_id.in_(part))
        )
        found.update(
            (row.task_id, (Query, row.id))
            for row in queries
            if row.state != RoundState.PUBLISHING or row.removed is not None
        )
        pages = select(Page.id, Page.task_id).where(
            Page.project_id == project_id, Page.closed_at.is_not(None), Page.task_id.in_(part)
        )
        found.update((row.task_id, (Page, row.id)) for row in session.execute(pages))
    return found


def pages_about_removed(project_id: int) -> Select[Any]:
    """Select a project's open pages with a tile about an image that is out of the dataset."""
    out = (
        exists()
        .where(Tile.page_id == Page.id)
        .where(Superpixel.id == Tile.superpixel_id, Image.id == Superpixel.image_id)
        .where(Image.removed.is_not(None))
    )
    return select(Page).where(
        Page.project_id == project_id, Page.task_id.is_not(None), Page.closed_at.is_(None), out
    )


def close(
    begin: Callable[[], AbstractContextManager[Session]],
    client: Client,
    wanted: Mapping[int, Question | None],
) -> list[str]:
    """Close tasks (id → its question, if any); returns why some could not be closed.

    That a task is closed is noted in a session of its own, which ``begin`` begins. One that Label
    Studio does not close holds up no other. Raises LabelStudioError in an outage.
    """
    refused: list[str] = []
    for task_id, question in wanted.items():
        try:
            tasks.close_task(client, task_id)
        except LabelStudioError as error:
            if is_outage(error):
                raise
            log.warning("task %s was not closed: %s", task_id, error)
            refused.append(str(error))
            continue
        if question is not None:
            table, row_id = question
            with begin() as session:
                session.execute(update(table).where(table.id == row_id).values(closed_at=utc_now()))
    return refused

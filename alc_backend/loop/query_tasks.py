"""Correction queries and the tasks of Label Studio that ask them.

Which query has which task, making tasks that are missing, giving them new questions, closing them,
and what each shows. Touches the queries in the database and the tasks of the query project; knows
nothing of how a batch is chosen. Called by ``annotations``, ``rounds`` and the service.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from sqlalchemy import ColumnElement, Result, Row, Select, exists, select, update
from sqlalchemy.orm import Session, aliased

from alc_backend.common.types import Progress
from alc_backend.errors import LabelStudioError
from alc_backend.labelstudio import query, tasks
from alc_backend.labelstudio.client import Client, is_outage
from alc_backend.labelstudio.texts import texts
from alc_backend.store.database import Store
from alc_backend.store.models import (
    ANSWERS,
    Image,
    LedgerEntry,
    Project,
    Query,
    Round,
    Superpixel,
    utc_now,
)
from alc_backend.store.round_states import RoundState

log = logging.getLogger(__name__)


def select_queries(project_id: int, *wanted: Any) -> Select[Any]:
    """Select ``wanted`` (tables or columns) of all queries, superpixels and images of a project."""
    return (
        select(*wanted)
        .select_from(Query)
        .join(Superpixel, Superpixel.id == Query.superpixel_id)
        .join(Image, Image.id == Superpixel.image_id)
        .where(Image.project_id == project_id)
    )


def keys_by_id(session: Session, project_id: int) -> dict[int, query.Key]:
    """What each query of a project asks about, by its row id."""
    columns = (Query.id, Image.key, Superpixel.number, Query.adjudication)
    rows = session.execute(select_queries(project_id, *columns))
    return {row.id: query.Key(row.key, row.number, row.adjudication) for row in rows}


def create_missing(
    store: Store, client: Client, round_: Round, which: ColumnElement[bool], *, look: bool = False
) -> None:
    """Make a task for each query of the round's project that ``which`` selects and has none.

    What Label Studio holds is read in full only when its number of tasks is not what it should be
    (or with ``look``): that takes longer than everything else. Raises LabelStudioError.
    """
    number = round_.project.query_project
    assert number is not None
    sync_tasks(store, client, round_.project_id, look=look)
    missing = queue_items(store, round_, which & Query.task_id.is_(None))
    tasks.create_tasks(client, number, missing, lambda made: _note_tasks(store, made, missing))


def update_changed(
    store: Store,
    client: Client,
    round_: Round,
    which: ColumnElement[bool],
    queue: Sequence[tasks.QueueItem] | None = None,
    report: Progress = lambda done, total, message: None,
) -> None:
    """Give tasks whose question has changed the new one, and reopen those that were closed.

    They are the tasks of ``queue``, or else of the queries that ``which`` selects.
    """
    for item in queue if queue is not None else queue_items(store, round_, which):
        if item.task_id is not None and (item.changed or item.closed):
            report(2, 3, f"updating the question of task {item.task_id}")
            tasks.update_task(client, item)
            with store.session() as session:
                row = session.get_one(Query, item.query)
                row.digest, row.closed_at = query.digest(item.data), None


def sync_tasks(store: Store, client: Client, project_id: int, *, look: bool = False) -> bool:
    """Compare the queries with the tasks that Label Studio holds; returns whether that was needed.

    It is when their number is not what it should be, or with ``look``. Tasks that an interrupted
    attempt made are taken over, those that were deleted there or ask something else are forgotten,
    and those that ask the same as another one, or were closed, are closed. Raises LabelStudioError.
    """
    with store.reading() as session:
        project = session.get_one(Project, project_id)
        rows = session.execute(select_queries(project_id, Query.id, Query.task_id))
        before = {row.id: row.task_id for row in rows if row.task_id is not None}
    if project.query_project is None:
        return False
    there = tasks.count_tasks(client, project.query_project)
    if not look and there == len(before) + project.other_tasks:
        return False
    held = tasks.existing_tasks(client, project.query_project)
    known = {number: task.key for number, task in held.items()}
    with store.session() as session:
        ours = {key: query_id for query_id, key in keys_by_id(session, project_id).items()}
        all_queries = session.scalars(select_queries(project_id, Query))
        by_id = {row.id: row for row in all_queries}
        lost = {
            key: by_id[query_id]
            for key, query_id in ours.items()
            if by_id[query_id].task_id == before.get(query_id)
            and known.get(before.get(query_id, 0)) not in (key, query.NOT_OURS)
        }
        for row in lost.values():
            row.task_id, row.digest, row.closed_at = None, None, None
        session.flush()  # two may exchange their tasks
        taken = {row.task_id for row in by_id.values()}
        by_key = {key: task_id for task_id, key in known.items() if task_id not in taken}
        for key, row in lost.items():
            row.task_id = by_key.get(key)
        taken = {row.task_id for row in by_id.values() if row.task_id is not None}
        session.get_one(Project, project_id).other_tasks = len(known.keys() - taken)
    close_reopened(
        store, client, project_id, {n: task.key for n, task in held.items() if task.is_open}
    )
    return True


def close_reopened(
    store: Store, client: Client, project_id: int, served: Mapping[int, query.Key]
) -> None:
    """Close those of the ``served`` tasks (id → what it asks) that should be closed.

    Label Studio serves a closed task again when somebody skips it, deletes an annotation of it or
    changes how many annotators each is put to, or when its database comes from an older dump. A
    task that asks the same as another one is closed, too. Those that a round opens which is being
    published are left to it. Raises LabelStudioError in an outage.
    """
    with store.reading() as session:
        columns = (Query.id, Query.task_id, Query.closed_at, Round.state, Image.removed)
        queries = session.execute(
            select_queries(project_id, *columns).join(Round, Round.id == Query.round_id)
        ).all()
        keys = keys_by_id(session, project_id)
    closed = {
        row.task_id: row.id
        for row in queries
        if row.closed_at is not None
        and (row.state != RoundState.PUBLISHING or row.removed is not None)
    }
    asked_by = {keys[row.id]: row.task_id for row in queries if row.task_id is not None}
    twins = {n for n, key in served.items() if asked_by.get(key, n) != n}
    wanted = {n: closed.get(n) for n in served if n in closed or n in twins}
    close(store.session, client, wanted)


def close(
    begin: Callable[[], AbstractContextManager[Session]],
    client: Client,
    wanted: Mapping[int, int | None],
) -> list[str]:
    """Close tasks (id → the row id of its query, if any); returns why some could not be closed.

    That a task is closed is noted in a session of its own, which ``begin`` begins. One that Label
    Studio does not close holds up no other. Raises LabelStudioError in an outage.
    """
    refused: list[str] = []
    for task_id, query_id in wanted.items():
        try:
            tasks.close_task(client, task_id)
        except LabelStudioError as error:
            if is_outage(error):
                raise
            log.warning("task %s was not closed: %s", task_id, error)
            refused.append(str(error))
            continue
        if query_id is not None:
            with begin() as session:
                session.get_one(Query, query_id).closed_at = utc_now()
    return refused


def queries_left_behind(session: Session, round_: Round) -> list[Query]:
    """The queries of earlier rounds that are not in this round's queue and that nobody answered.

    Label Studio hands out their tasks unless they are closed. Answered: an accept or a correction
    of them is in force; an answer on a page is none of their task.
    """
    revised = aliased(LedgerEntry)
    answered = (
        exists()
        .where(
            LedgerEntry.superpixel_id == Query.superpixel_id,
            LedgerEntry.adjudication == Query.adjudication,
            LedgerEntry.position == 0,
            LedgerEntry.kind.in_(ANSWERS),
        )
        .where(
            ~exists().where(
                revised.project_id == LedgerEntry.project_id,
                revised.annotation_id == LedgerEntry.annotation_id,
                revised.position == LedgerEntry.position,
                revised.revision > LedgerEntry.revision,
            )
        )
    )
    return list(
        session.scalars(
            select(Query)
            .join(Round, Round.id == Query.round_id)
            .where(
                Round.project_id == round_.project_id,
                Round.number < round_.number,
                Query.task_id.is_not(None),
                ~answered,
            )
            .order_by(Query.id)
        )
    )


def contents(
    session: Session, project: Project, where: ColumnElement[bool]
) -> list[tuple[Row[Any], query.QueryContent]]:
    """The queries that ``where`` selects of a project's images, best first, with what each shows.

    The rows carry the query's ``id``, ``task_id``, ``round_id``, ``round_number`` (of the round
    that asks it), ``rank``, ``digest`` and ``closed_at``. (They are columns because thousands of
    Query objects would take twice as long.)
    Queries whose superpixel has no shape yet are left out.
    """
    rows: Result[Any] = session.execute(
        select_queries(
            project.id,
            Query.id, Query.task_id, Query.round_id, Query.rank, Query.digest, Query.closed_at,
            Query.row, Query.col, Query.pseudo_label, Query.chosen_in, Query.adjudication,
            Query.proposed, Query.likely, Superpixel.number, Superpixel.shape,
            Round.number.label("round_number"), Image.url, Image.key, Image.height, Image.width,
        )
        .join(Round, Round.id == Query.round_id)
        .where(where, Image.removed.is_(None))
        .order_by(Query.rank)
    )  # fmt: skip
    known = select(Round.number, Round.config).where(Round.project_id == project.id)
    epsilon = {round_.number: round_.config.epsilon for round_ in session.execute(known)}
    return [
        (
            row,
            query.QueryContent(
                url=row.url or "",
                image_key=row.key,
                height=row.height,
                width=row.width,
                superpixel=row.number,
                row=row.row,
                col=row.col,
                pseudo_label=row.pseudo_label,
                classes=project.classes,
                round_number=_question_round(row),
                shape=row.shape,
                proposed=tuple(row.proposed or ()) if row.adjudication else (),
                likely=tuple(row.likely or ()),
                epsilon=epsilon[_question_round(row)],
            ),
        )
        for row in rows
        if row.shape is not None
    ]


def _question_round(row: Row[Any]) -> int:
    """The number of the round that chose what a query asks."""
    return int(row.round_number if row.chosen_in is None else row.chosen_in)


def queue_items(
    store: Store, round_: Round, which: ColumnElement[bool] | None = None
) -> list[tasks.QueueItem]:
    """The queries that ``which`` selects (default: the round's), ready to publish, best first.

    The images must be in Label Studio.
    """
    with store.reading() as session:
        queue = contents(
            session, round_.project, Query.round_id == round_.id if which is None else which
        )
    found = []
    wording = texts(store.settings.language)
    for row, content in queue:
        data = query.task_data(content, wording)
        found.append(
            tasks.QueueItem(
                query=row.id,
                key=query.asked_about(data),
                task_id=row.task_id,
                changed=query.digest(data) != row.digest,
                closed=row.closed_at is not None,
                data=data,
                result=query.prediction(content),
            )
        )
    return found


def _note_tasks(store: Store, made: dict[query.Key, int], new: Sequence[tasks.QueueItem]) -> None:
    """Write down which task, of those just ``made``, asks which query."""
    with store.session() as session:
        session.execute(
            update(Query),
            [
                {
                    "id": item.query,
                    "task_id": made[item.key],
                    "digest": query.digest(item.data),
                    "closed_at": None,
                }
                for item in new
                if item.key in made
            ],
        )

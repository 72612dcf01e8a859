"""Correction queries and the tasks of Label Studio that ask them.

Which query has which task, making tasks that are missing, giving them new questions, closing them,
and what each shows. Touches the queries in the database and the tasks of the query project; knows
nothing of how a batch is chosen. Called by ``annotations``, ``rounds`` and the service.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Result, Row, exists, select, update
from sqlalchemy.orm import Session, aliased

from alc_backend.common.types import Progress
from alc_backend.core.runs import SuperpixelRuns
from alc_backend.labelstudio import query, tasks
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.texts import texts
from alc_backend.loop import task_sync
from alc_backend.loop.task_sync import select_queries
from alc_backend.store.database import Store
from alc_backend.store.kinds import ANSWERS
from alc_backend.store.models import Image, LedgerEntry, Project, Query, Round, Superpixel

log = logging.getLogger(__name__)


def create_missing(
    store: Store, client: Client, round_: Round, which: ColumnElement[bool], *, look: bool = False
) -> None:
    """Make a task for each query of the round's project that ``which`` selects and has none.

    What Label Studio holds is read in full only when its number of tasks is not what it should be
    (or with ``look``): that takes longer than everything else. Raises LabelStudioError.
    """
    number = round_.project.query_project
    assert number is not None
    task_sync.sync_tasks(store, client, round_.project_id, look=look)
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


def queries_left_behind(session: Session, round_: Round) -> list[Query]:
    """The open queries of earlier rounds that are not in this round's queue and nobody answered.

    Label Studio hands out their tasks. Answered: an accept or a correction
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
                Query.closed_at.is_(None),
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
    that asks it), ``rank``, ``place``, ``digest`` and ``closed_at``. (They are columns because
    thousands of Query objects would take twice as long.)
    Queries whose superpixel has no shape yet are left out.
    """
    rows: Result[Any] = session.execute(
        select_queries(
            project.id,
            Query.id, Query.task_id, Query.round_id, Query.rank, Query.place, Query.digest,
            Query.closed_at, Query.row, Query.col, Query.pseudo_label, Query.chosen_in,
            Query.adjudication, Query.proposed, Query.likely, Superpixel.number, Superpixel.shape,
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
                place=row.place,
                data=data,
                result=query.prediction(content),
            )
        )
    return found


class Outlined(NamedTuple):
    """A superpixel of an image (row ids), ``number`` in the map; ``has_outline`` once drawn."""

    superpixel_id: int
    number: int
    image_id: int
    image_key: str
    has_outline: bool


def draw_outlines(
    store: Store,
    project_id: int,
    asked: Iterable[Outlined],
    begin: Callable[[], AbstractContextManager[Session]],
    progress: Progress,
) -> None:
    """Write the boxes and outlines by which queries show superpixels, for those that lack them.

    ``begin`` begins the sessions that write.
    """
    by_image: dict[int, list[Outlined]] = {}
    for item in asked:
        if not item.has_outline:
            by_image.setdefault(item.image_id, []).append(item)
    files = store.files(project_id)
    for image_id, members in by_image.items():
        progress(0, 3, f"choosing the batch: drawing outlines in {members[0].image_key}")
        superpixels = files.read_superpixels(image_id)
        image = superpixels.shape[0], superpixels.shape[1]
        found = SuperpixelRuns(superpixels)
        shapes = [
            {"id": item.superpixel_id, "shape": query.shape_of(*found.part(item.number), image)}
            for item in members
        ]
        with begin() as session:
            session.execute(update(Superpixel), shapes)


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

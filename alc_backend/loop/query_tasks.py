"""query_tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Result, Row, exists, select, update
from sqlalchemy.orm import Session, aliased

from alc_backend.labelstudio import query, tasks
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.texts import texts
from alc_backend.loop import query_tasks
from alc_backend.store.database import Store
from alc_backend.store.models import (
    EntryKind,
    Image,
    LedgerEntry,
    Project,
    Query,
    Round,
    Superpixel,
)


def columns(session: Session, project_id: int, *wanted: Any) -> Sequence[Any]:
    """Columns of all queries of a project."""
    return session.execute(
        select(*wanted)
        .join(Superpixel, Superpixel.id == Query.superpixel_id)
        .join(Image, Image.id == Superpixel.image_id)
        .where(Image.project_id == project_id)
    ).all()


def queries(session: Session, project_id: int) -> Sequence[Query]:
    """Every query of a project."""
    return session.scalars(
        select(Query)
        .join(Superpixel, Superpixel.id == Query.superpixel_id)
        .join(Image, Image.id == Superpixel.image_id)
        .where(Image.project_id == project_id)
    ).all()


def create_missing(
    store: Store, client: Client, round_: Round, which: ColumnElement[bool], *, look: bool = False
) -> None:
    """Make the tasks that the queries which ``which`` chooses lack.

    What Label Studio holds is read in full only when its number of tasks is not what it should be
    (or with ``look``): that takes longer than everything else.
    """
    number = round_.project.query_project
    assert number is not None
    sync_tasks(store, client, round_.project_id, look=look)
    missing = items(store, round_, which & Query.task_id.is_(None))
    tasks.create_tasks(client, number, missing, lambda made: _note_tasks(store, made, missing))


def update_changed(
    store: Store,
    client: Client,
    round_: Round,
    which: ColumnElement[bool],
    queue: Sequence[tasks.QueueItem] | None = None,
    report: Callable[[int, int, str], None] = lambda done, total, message: None,
) -> None:
    """Give tasks whose question has changed, or that were closed, what they lack."""
    for item in queue if queue is not None else items(store, round_, which):
        if item.task_id is not None and (item.changed or item.closed):
            report(2, 3, f"updating the question of task {item.task_id}")
            tasks.update_task(client, item)
            with store.session() as session:
                entry = session.get_one(Query, item.query)
                entry.digest, entry.closed_at = query.digest(item.data), None


def sync_tasks(store: Store, client: Client, project_id: int, *, look: bool = False) -> bool:
    """Learn which query tasks Label Studio holds, when their number is not what it should be.

    Takes over tasks of an interrupted attempt, forgets those that were deleted there, and closes
    those that ask what another one asks. Returns whether it looked (``look``: in any case).
    """
    with store.reading() as session:
        project = session.get_one(Project, project_id)
        before = {
            row.id: row.task_id
            for row in query_tasks.columns(session, project_id, Query.id, Query.task_id)
            if row.task_id is not None
        }
    if project.query_project is None:
        return False
    there = tasks.count_tasks(client, project.query_project)
    if not look and there == len(before) + project.other_tasks:
        return False
    known = tasks.existing_tasks(client, project.query_project)
    taken = set(before.values())
    by_key = {key: task_id for task_id, key in known.items() if task_id not in taken}
    with store.session() as session:
        ours = {name: number for number, name in _keys(session, project_id).items()}
        entries = {entry.id: entry for entry in query_tasks.queries(session, project_id)}
        for name, number in ours.items():
            entry = entries[number]
            if entry.task_id in known or entry.task_id != before.get(number):
                continue
            entry.task_id = by_key.pop(name, None)
            entry.digest, entry.closed_at = None, None
        held = {entry.task_id for entry in entries.values() if entry.task_id is not None}
        session.get_one(Project, project_id).other_tasks = len(known.keys() - held)
    for task_id, name in known.items():
        if task_id not in held and name in ours:
            tasks.close_task(client, task_id)
    return True


def outside(session: Session, round_: Round) -> list[Query]:
    """The queries of earlier rounds' queues whose tasks Label Studio hands out, unless closed.

    That is: nobody's accept or correction of them is in force.
    """
    revised = aliased(LedgerEntry)
    answered = (
        exists()
        .where(
            LedgerEntry.superpixel_id == Query.superpixel_id,
            LedgerEntry.adjudication == Query.adjudication,
            LedgerEntry.kind.in_((EntryKind.ACCEPT, EntryKind.CORRECT)),
        )
        .where(
            ~exists().where(
                revised.project_id == LedgerEntry.project_id,
                revised.annotation_id == LedgerEntry.annotation_id,
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


def close_again(store: Store, client: Client, project_id: int) -> None:
    """Close what was closed once more: Label Studio opens all tasks when its overlap is changed."""
    with store.reading() as session:
        closed = [entry for entry in query_tasks.queries(session, project_id) if entry.closed_at]
    for entry in closed:
        if entry.task_id is not None:
            tasks.close_task(client, entry.task_id)


def contents(
    session: Session, project: Project, where: ColumnElement[bool]
) -> list[tuple[Row[Any], query.QueryContent]]:
    """The queries of a project that ``where`` chooses, best first, with what each shows.

    The rows carry the query's ``id``, ``task_id``, ``round_id``, ``rank``, ``digest`` and
    ``closed_at``. (Columns: objects of thousands of queries would take twice as long.)
    """
    rows: Result[Any] = session.execute(
        select(
            Query.id, Query.task_id, Query.round_id, Query.rank, Query.digest, Query.closed_at,
            Query.row, Query.col, Query.pseudo_label, Query.adjudication, Query.proposed,
            Query.likely, Superpixel.number, Superpixel.shape, Round.number.label("round_number"),
            Image.url, Image.key, Image.height, Image.width,
        )
        .join(Round, Round.id == Query.round_id)
        .join(Superpixel, Superpixel.id == Query.superpixel_id)
        .join(Image, Image.id == Superpixel.image_id)
        .where(Image.project_id == project.id, where)
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
                round_number=row.round_number,
                shape=row.shape,
                proposed=tuple(row.proposed or ()) if row.adjudication else (),
                likely=tuple(row.likely or ()),
                epsilon=epsilon[row.round_number],
            ),
        )
        for row in rows
        if row.shape is not None
    ]


def items(
    store: Store, round_: Round, which: ColumnElement[bool] | None = None
) -> list[tasks.QueueItem]:
    """The queries that ``which`` chooses (default: the round's queue), best first."""
    with store.reading() as session:
        queue = contents(
            session, round_.project, Query.round_id == round_.id if which is None else which
        )
    found = []
    wording = texts(store.settings.language)
    for entry, content in queue:
        data = query.task_data(content, wording)
        found.append(
            tasks.QueueItem(
                query=entry.id,
                key=query.asked_about(data),
                task_id=entry.task_id,
                changed=query.digest(data) != entry.digest,
                closed=entry.closed_at is not None,
                data=data,
                result=query.prediction(content),
            )
        )
    return found


def _note_tasks(store: Store, made: dict[query.Key, int], new: Sequence[tasks.QueueItem]) -> None:
    """Remember which task asks which query."""
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


def _keys(session: Session, project_id: int) -> dict[int, query.Key]:
    """Query row id → what it asks about."""
    rows = session.execute(
        select(Query.id, Query.adjudication, Superpixel.number, Image.key)
        .join(Superpixel, Superpixel.id == Query.superpixel_id)
        .join(Image, Image.id == Superpixel.image_id)
        .where(Image.project_id == project_id)
    )
    return {row.id: query.Key(row.key, row.number, row.adjudication) for row in rows}

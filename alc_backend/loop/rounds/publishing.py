"""A round's queue in Label Studio: its tasks, their order, and what is taken out of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Result, Row, exists, select, update
from sqlalchemy.orm import Session, aliased

from alc_backend import batch, rounds
from alc_backend.claims import Reporter
from alc_backend.errors import LabelStudioError, RoundError
from alc_backend.labelstudio import publish, query
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.texts import texts
from alc_backend.store import ledger
from alc_backend.store.database import Store
from alc_backend.store.models import Answer, Image, Project, Query, Round, Superpixel, utc_now


def publish_round(store: Store, round_: Round, report: Reporter) -> None:
    """Put the round's queue into Label Studio, in order.

    Queries that two annotators disagree about come first, then the best B, then older unanswered
    ones (or these leave the queue, where that is set). A query keeps its task. Tasks that are not
    asked any more are closed: nobody gets them, but who has one on the screen can submit it. Once
    Label Studio has switched to the round's queue, it stays as it is.
    """
    project = round_.project
    if project.query_project is None:
        raise RoundError(
            f"project {project.name!r} has no query project; run `alc init` to make it, then "
            "start the round again"
        )
    version = rounds.model_version(round_.number)
    with Client.from_settings(store.settings) as client:
        # After an older backup was restored, Label Studio may know a round of this number already:
        # only a batch that was chosen here can be the one that it follows.
        switched = publish.is_switched(client, project.query_project, version)
        if not (switched and _is_chosen(store, round_)):
            report(0, 3, "choosing the batch")
            chosen = batch.choose(store, round_)
            if chosen and chosen not in (round_.warning or ""):
                with store.session() as session:
                    row = session.get_one(Round, round_.id)
                    row.warning = "; ".join(filter(None, [row.warning, chosen]))
            report(1, 3, "bringing new queries into Label Studio")
            _order(store, client, round_, version, report)
        _close_outside(store, client, round_, report)


def _is_chosen(store: Store, round_: Round) -> bool:
    with store.reading() as session:
        found = select(Query.id).where(Query.round_id == round_.id).limit(1)
        return session.scalar(found) is not None


def _order(store: Store, client: Client, round_: Round, version: str, report: Reporter) -> None:
    """Import the predictions of the whole queue and let Label Studio switch to them."""
    number = round_.project.query_project
    assert number is not None
    create_missing(store, client, round_, Query.round_id == round_.id)
    queue = items(store, round_, Query.round_id == round_.id)
    report(2, 3, f"ordering {len(queue)} queries")
    if not publish.import_queue(client, number, version, queue):
        create_missing(store, client, round_, Query.round_id == round_.id, look=True)
        queue = items(store, round_, Query.round_id == round_.id)
        if not publish.import_queue(client, number, version, queue):
            raise LabelStudioError(
                "Label Studio does not keep the predictions of all tasks; look into its log and "
                "start the round again"
            )
    # As late as possible: on a screen, a new question does not fit the old prediction.
    update_changed(store, client, round_, Query.round_id == round_.id, queue, report)
    if queue:
        publish.switch(client, number, version)


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
    publish.create_tasks(client, number, missing, lambda made: _note_tasks(store, made, missing))


def update_changed(
    store: Store,
    client: Client,
    round_: Round,
    which: ColumnElement[bool],
    queue: Sequence[publish.QueueItem] | None = None,
    report: Callable[[int, int, str], None] = lambda done, total, message: None,
) -> None:
    """Give tasks whose question has changed, or that were closed, what they lack."""
    for item in queue if queue is not None else items(store, round_, which):
        if item.task_id is not None and (item.changed or item.closed):
            report(2, 3, f"updating the question of task {item.task_id}")
            publish.update_task(client, item)
            with store.session() as session:
                entry = session.get_one(Query, item.query)
                entry.published, entry.closed_at = query.digest(item.data), None


def sync_tasks(store: Store, client: Client, project_id: int, *, look: bool = False) -> bool:
    """Learn which query tasks Label Studio holds, when their number is not what it should be.

    Takes over tasks of an interrupted attempt, forgets those that were deleted there, and closes
    those that ask what another one asks. Returns whether it looked (``look``: in any case).
    """
    with store.reading() as session:
        project = session.get_one(Project, project_id)
        before = {
            row.id: row.task_id
            for row in batch.columns(session, project_id, Query.id, Query.task_id)
            if row.task_id is not None
        }
    if project.query_project is None:
        return False
    there = publish.count_tasks(client, project.query_project)
    if not look and there == len(before) + project.other_tasks:
        return False
    known = publish.existing_tasks(client, project.query_project)
    taken = set(before.values())
    by_key = {key: task_id for task_id, key in known.items() if task_id not in taken}
    with store.session() as session:
        ours = {name: number for number, name in _keys(session, project_id).items()}
        entries = {entry.id: entry for entry in batch.queries(session, project_id)}
        for name, number in ours.items():
            entry = entries[number]
            if entry.task_id in known or entry.task_id != before.get(number):
                continue
            entry.task_id = by_key.pop(name, None)
            entry.published, entry.closed_at = None, None
        held = {entry.task_id for entry in entries.values() if entry.task_id is not None}
        session.get_one(Project, project_id).other_tasks = len(known.keys() - held)
    for task_id, name in known.items():
        if task_id not in held and name in ours:
            publish.close_task(client, task_id)
    return True


def outside(session: Session, round_: Round) -> list[Query]:
    """The queries of earlier rounds' queues whose tasks Label Studio hands out, unless closed.

    That is: nobody's accept or correction of them is in force.
    """
    revised = aliased(Answer)
    answered = (
        exists()
        .where(
            Answer.superpixel_id == Query.superpixel_id,
            Answer.adjudication == Query.adjudication,
            Answer.kind.in_((ledger.ACCEPT, ledger.CORRECT)),
        )
        .where(
            ~exists().where(
                revised.project_id == Answer.project_id,
                revised.annotation_id == Answer.annotation_id,
                revised.revision > Answer.revision,
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
        closed = [entry for entry in batch.queries(session, project_id) if entry.closed_at]
    for entry in closed:
        if entry.task_id is not None:
            publish.close_task(client, entry.task_id)


def _close_outside(store: Store, client: Client, round_: Round, report: Reporter) -> None:
    """Close the tasks outside the round's queue that Label Studio would still hand out."""
    with store.reading() as session:
        obsolete = [entry for entry in outside(session, round_) if entry.closed_at is None]
    for place, entry in enumerate(obsolete):
        report(2, 3, f"closing task {place + 1} of {len(obsolete)} that are not asked any more")
        assert entry.task_id is not None
        publish.close_task(client, entry.task_id)
        with store.session() as session:
            session.get_one(Query, entry.id).closed_at = utc_now()


def contents(
    session: Session, project: Project, where: ColumnElement[bool]
) -> list[tuple[Row[Any], query.QueryContent]]:
    """The queries of a project that ``where`` chooses, best first, with what each shows.

    The rows carry the query's ``id``, ``task_id``, ``round_id``, ``rank``, ``published`` and
    ``closed_at``. (Columns: objects of thousands of queries would take twice as long.)
    """
    rows: Result[Any] = session.execute(
        select(
            Query.id, Query.task_id, Query.round_id, Query.rank, Query.published, Query.closed_at,
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
    epsilon = {
        round_.number: float(round_.config.get("epsilon", 0.0)) for round_ in session.execute(known)
    }
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
) -> list[publish.QueueItem]:
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
            publish.QueueItem(
                query=entry.id,
                key=query.asked_about(data),
                task_id=entry.task_id,
                changed=query.digest(data) != entry.published,
                closed=entry.closed_at is not None,
                data=data,
                result=query.prediction(content),
            )
        )
    return found


def _note_tasks(store: Store, made: dict[query.Key, int], new: Sequence[publish.QueueItem]) -> None:
    """Remember which task asks which query."""
    with store.session() as session:
        session.execute(
            update(Query),
            [
                {
                    "id": item.query,
                    "task_id": made[item.key],
                    "published": query.digest(item.data),
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

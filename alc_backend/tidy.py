"""Clearing away what older rounds left behind, without taking anything off a labeler's screen."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise

from sqlalchemy import delete, exists, select, update
from sqlalchemy.orm import Session

from alc_backend import rounds
from alc_backend.labelstudio import publish
from alc_backend.labelstudio.client import Client
from alc_backend.store.database import Store
from alc_backend.store.models import Answer, Project, Query, Round, Score, utc_now

HELD = timedelta(hours=24)
"""How long Label Studio keeps a fetched task for its annotator; what is older is on no screen."""


def due(store: Store) -> list[int]:
    """The projects that have something to clear away."""
    with store.reading() as session:
        projects = session.scalars(select(Project).where(Project.query_project.is_not(None)))
        return [
            project.id
            for project in projects
            if (round_ := _open_round(session, project.id)) is not None
            and (
                _replaced(session, project.id)
                or _leaving(session, round_)
                or _closed(session, round_)
            )
        ]


def tidy(store: Store, project_id: int, go_on: Callable[[], bool] = lambda: True) -> None:
    """Clear away what is due: may be stopped or repeated at any moment.

    Tasks of queries that have left the queue are closed: nobody gets them any more, but who has
    one on the screen can submit it. A day later they are deleted, unless they were answered. The
    predictions and scores of a round go a day after the next round has replaced them.
    """
    with store.reading() as session:
        round_ = _open_round(session, project_id)
        if round_ is None or round_.project.query_project is None:
            return
        leaving, closed = _leaving(session, round_), _closed(session, round_)
        replaced = _replaced(session, project_id)
    number = round_.project.query_project
    with Client.from_settings(store.settings) as client:
        for query in leaving:
            if not go_on():
                return
            assert query.task_id is not None
            publish.close_task(client, query.task_id)
            _set(store, [query.id], closed_at=utc_now())
        if closed:
            drafted = publish.drafted_tasks(client, number)
            gone = {query.task_id: query.id for query in closed if query.task_id not in drafted}
            publish.delete_tasks(client, number, [task for task in gone if task is not None])
            _set(store, list(gone.values()), task_id=None, published=None, closed_at=None)
        for old in replaced:
            publish.prune_version(client, number, rounds.model_version(old.number))
            with store.session() as session:
                session.execute(  # what was asked once may still be answered late
                    delete(Score).where(
                        Score.round_id == old.id,
                        Score.superpixel_id.not_in(select(Query.superpixel_id)),
                    )
                )
                session.get_one(Round, old.id).pruned = True


def _set(store: Store, queries: list[int], **values: object) -> None:
    for first in range(0, len(queries), 500):
        part = queries[first : first + 500]
        with store.session() as session:
            session.execute(update(Query).where(Query.id.in_(part)).values(**values))


def _open_round(session: Session, project_id: int) -> Round | None:
    """The project's last round, when it is open (another one may be about to change the queue)."""
    latest = select(Round).where(Round.project_id == project_id).order_by(Round.number.desc())
    round_ = session.scalars(latest.limit(1)).first()
    return round_ if round_ is not None and round_.state == rounds.OPEN else None


def _replaced(session: Session, project_id: int) -> list[Round]:
    """The rounds whose predictions were replaced longer ago than a screen may show them."""
    found = session.scalars(
        select(Round)
        .where(Round.project_id == project_id, Round.opened_at.is_not(None))
        .order_by(Round.number)
    ).all()
    return [
        old
        for old, following in pairwise(found)
        if not old.pruned and following.opened_at and following.opened_at < utc_now() - HELD
    ]


def _leaving(session: Session, round_: Round) -> list[Query]:
    """The queries that are not asked any more and whose tasks are still served."""
    return [query for query in _unasked(session, round_) if query.closed_at is None]


def _closed(session: Session, round_: Round) -> list[Query]:
    """The queries whose tasks were closed so long ago that they are on no screen."""
    limit = utc_now() - HELD
    return [
        query
        for query in _unasked(session, round_)
        if query.closed_at is not None and query.closed_at < limit
    ]


def _unasked(session: Session, round_: Round) -> list[Query]:
    """The queries with a task that are not in the round's queue and that nobody ever answered."""
    answered = exists().where(
        Answer.superpixel_id == Query.superpixel_id, Answer.adjudication == Query.adjudication
    )
    queries = (
        select(Query)
        .join(Round, Round.id == Query.round_id)
        .where(
            Round.project_id == round_.project_id,
            Query.round_id != round_.id,
            Query.task_id.is_not(None),
            ~answered,
        )
        .order_by(Query.id)
    )
    return list(session.scalars(queries))

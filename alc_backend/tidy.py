"""Clearing away what older rounds left behind, without taking anything off a labeler's screen."""

from __future__ import annotations

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
            and (_replaced(session, project.id) or _closed(session, round_))
        ]


def tidy(store: Store, project_id: int) -> None:
    """Clear away what is due; may be repeated after a crash at any moment.

    Tasks that were closed a day ago are deleted, unless they were ever answered. The predictions
    and scores of a round go a day after the next round has replaced them.
    """
    with store.reading() as session:
        round_ = _open_round(session, project_id)
        if round_ is None or round_.project.query_project is None:
            return
        closed, replaced = _closed(session, round_), _replaced(session, project_id)
    number = round_.project.query_project
    with Client.from_settings(store.settings) as client:
        if closed:
            drafted = publish.drafted_tasks(client, number)
            gone = {query.task_id: query.id for query in closed if query.task_id not in drafted}
            publish.delete_tasks(client, number, [task for task in gone if task is not None])
            _forget(store, list(gone.values()))
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


def _forget(store: Store, queries: list[int]) -> None:
    """Note that queries have no task any more."""
    for first in range(0, len(queries), 500):
        part = queries[first : first + 500]
        with store.session() as session:
            session.execute(
                update(Query)
                .where(Query.id.in_(part))
                .values(task_id=None, published=None, closed_at=None)
            )


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


def _closed(session: Session, round_: Round) -> list[Query]:
    """The queries whose tasks were closed so long ago that they are on no screen.

    None that was ever answered: its task holds the annotation.
    """
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
            Query.closed_at < utc_now() - HELD,
            ~answered,
        )
        .order_by(Query.id)
    )
    return list(session.scalars(queries))

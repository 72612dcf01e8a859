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
from alc_backend.store.models import Answer, Query, Round, Score, utc_now

AT_ONCE = 500
"""Tasks that are looked at and deleted together."""

HELD = timedelta(hours=24)
"""How long Label Studio keeps a fetched task for its annotator; what is older is on no screen."""


def is_due(session: Session, round_: Round) -> bool:
    """Whether something of an open round's project is to be cleared away."""
    return bool(_replaced(session, round_) or _closed(session, round_))


def tidy(store: Store, round_: Round) -> None:
    """Clear away what is due; may be repeated after a crash at any moment.

    Tasks that were closed a day ago are deleted, unless Label Studio or the ledger has anything
    that was ever said about them. The predictions and scores of a round go a day after the next
    round has replaced them.
    """
    number = round_.project.query_project
    if number is None:
        return
    with store.reading() as session:
        closed, replaced = _closed(session, round_), _replaced(session, round_)
    with Client.from_settings(store.settings) as client:
        for first in range(0, len(closed), AT_ONCE):
            part = {query.task_id: query.id for query in closed[first : first + AT_ONCE]}
            tasks = [task for task in part if task is not None]
            gone = publish.delete_untouched(client, number, tasks)
            _forget(store, [part[task] for task in gone])
        for old in replaced:
            version = rounds.model_version(old.number)
            if not publish.is_switched(client, number, version):
                publish.prune_version(client, number, version)
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
    with store.session() as session:
        session.execute(
            update(Query)
            .where(Query.id.in_(queries))
            .values(task_id=None, published=None, closed_at=None)
        )


def _replaced(session: Session, round_: Round) -> list[Round]:
    """The rounds whose predictions were replaced longer ago than a screen may show them."""
    found = session.scalars(
        select(Round)
        .where(Round.project_id == round_.project_id, Round.opened_at.is_not(None))
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

"""Adjudication: asking again what annotators disagree about, as soon as they do."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from alc_backend import batch, rounds
from alc_backend.labelstudio import publish
from alc_backend.labelstudio.client import Client
from alc_backend.store import ledger
from alc_backend.store.database import Store
from alc_backend.store.models import Query, Round


def adjudicate(store: Store, project_id: int) -> int:
    """Put a query about every dispute at the front of the open round's queue; returns how many.

    A round that is being published brings its disputes itself. May be repeated after a crash.
    Raises LabelStudioError.
    """
    with store.session() as session:
        round_ = session.scalars(
            select(Round).where(Round.project_id == project_id, Round.state == rounds.OPEN)
        ).first()
        if round_ is None or round_.project.query_project is None:
            return 0
        for superpixel_id, proposed in ledger.judgement(session, project_id).disputed.items():
            _note(session, round_, superpixel_id, proposed)
    new = [item for item in _asked(store, round_) if item.task_id is None]
    with Client.from_settings(store.settings) as client:
        publish.create_tasks(
            client,
            round_.project.query_project,
            new,
            lambda made: batch.note_tasks(store, project_id, made, new),
        )
        for item in _asked(store, round_):
            publish.put_first(client, item, rounds.model_version(round_.number))
    with store.session() as session:
        ledger.lock(session, project_id)
        asked = set(
            session.scalars(
                select(Query.superpixel_id).where(
                    Query.round_id == round_.id, Query.adjudication, Query.task_id.is_not(None)
                )
            )
        )
        disputed = ledger.judgement(session, project_id).disputed.keys()
        session.get_one(Round, round_.id).disputes = not disputed <= asked
    return len(new)


def _asked(store: Store, round_: Round) -> list[publish.QueueItem]:
    return [item for item in batch.items(store, round_) if item.key.adjudication]


def _note(session: Session, round_: Round, superpixel_id: int, proposed: tuple[int, ...]) -> None:
    """Write the adjudication query of a superpixel, which shows what was asked before."""
    asked = {
        entry.adjudication: entry
        for entry in session.scalars(select(Query).where(Query.superpixel_id == superpixel_id))
    }
    if False not in asked:
        return
    before = asked[False]
    entry = asked.get(True) or Query(superpixel_id=superpixel_id, adjudication=True)
    if entry.id is None:
        session.add(entry)
    entry.round_id, entry.rank, entry.score = round_.id, 0, before.score
    entry.row, entry.col, entry.pseudo_label = before.row, before.col, before.pseudo_label
    entry.proposed = list(proposed)

"""A chore of an open round: asking what its queue lacks.

That is what annotators disagree about, what was answered and then undone, and what Label Studio
lost, where ``republishing`` brings it back. Writes the queries in
the database and the tasks of Label Studio. Called by ``executor`` when the round is ``unasked``.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from alc_backend.labelstudio import model_version, tasks
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.query import shape_of
from alc_backend.loop import query_tasks
from alc_backend.loop.rounds import republishing
from alc_backend.loop.rounds.progress import Reporter
from alc_backend.store import ledger, standing
from alc_backend.store.database import Store
from alc_backend.store.files import ProjectFiles
from alc_backend.store.models import Query, Round
from alc_backend.store.pages import Page, Tile

FIRST_RANK = -1
"""The rank of queries that were put at the front of a queue that was published already."""


def ask_missing(store: Store, round_: Round, report: Reporter) -> int:
    """Put the missing queries at the front of the queue; returns how many there are by now.

    One about every superpixel that annotators disagree about, or whose answer a review doubts, and
    those whose answer was withdrawn after the round was published. May be repeated after a crash.
    Raises LabelStudioError.
    """
    if round_.project.query_project is None:
        return 0
    files = store.files(round_.project_id)
    with store.session() as session:
        ledger.lock(session, round_.project_id)  # before the part, as everyone does
        report.lock(session)
        for superpixel_id, proposed in standing.disputed(session, round_.project_id).items():
            _write_adjudication(session, files, round_, superpixel_id, proposed)
        for query in _undone(session, round_):
            query.ask_again(round_, FIRST_RANK)
        session.flush()
        first = _first(session, round_)
    with Client.from_settings(store.settings) as client:
        client.before_change = report.check
        if round_.displaced:
            republishing.bring_back(store, client, round_, report)
        query_tasks.create_missing(store, client, round_, Query.id.in_(first))
        items = query_tasks.queue_items(store, round_, Query.id.in_(first))
        for item in items:
            tasks.put_first(client, item, model_version.of_round(round_.number))
        query_tasks.update_changed(store, client, round_, Query.id.in_(first), items)
    with store.session() as session:
        ledger.lock(session, round_.project_id)
        report.lock(session)
        asked = set(
            session.scalars(
                select(Query.superpixel_id).where(
                    Query.round_id == round_.id, Query.adjudication, Query.task_id.is_not(None)
                )
            )
        )
        disputed = standing.disputed(session, round_.project_id)
        left = bool(_undone(session, round_)) or not disputed.keys() <= asked
        session.get_one(Round, round_.id).unasked = left
    return len(first)


def _undone(session: Session, round_: Round) -> list[Query]:
    """The queries of earlier rounds that are open again: their answers were withdrawn."""
    left = query_tasks.queries_left_behind(session, round_)
    settled = standing.settled_among(session, {query.superpixel_id for query in left})
    return [query for query in left if query.superpixel_id not in settled]


def _first(session: Session, round_: Round) -> list[int]:
    """The queries (row ids) at the front of a round's queue, put there by this chore."""
    return list(
        session.scalars(
            select(Query.id).where(Query.round_id == round_.id, Query.rank == FIRST_RANK)
        )
    )


def _write_adjudication(
    session: Session,
    files: ProjectFiles,
    round_: Round,
    superpixel_id: int,
    proposed: tuple[int, ...],
) -> None:
    """Write the adjudication query of a superpixel, about the pixel that was asked about before.

    ``proposed``: the classes that annotators gave. One that was only asked about on pages has the
    pixel of its last tile.
    """
    asked = {
        query.adjudication: query
        for query in session.scalars(select(Query).where(Query.superpixel_id == superpixel_id))
    }
    before = asked.get(False) or _tile_of(session, round_.project_id, superpixel_id)
    if before is None:
        return
    if isinstance(before, Tile):
        chosen_in, score, likely = before.page.round.number, 0.0, None
    else:
        chosen_in, score, likely = before.question_round, before.score, before.likely
    superpixel = before.superpixel
    if superpixel.shape is None:
        numbers = files.read_superpixels(superpixel.image_id)
        superpixel.shape = shape_of(numbers == superpixel.number)
    query = asked.get(True) or Query(superpixel_id=superpixel_id, adjudication=True)
    if query.id is None:
        session.add(query)
    query.round_id, query.rank, query.score = round_.id, FIRST_RANK, score
    query.chosen_in = chosen_in
    query.row, query.col, query.pseudo_label = before.row, before.col, before.pseudo_label
    query.proposed, query.likely = list(proposed), likely


def _tile_of(session: Session, project_id: int, superpixel_id: int) -> Tile | None:
    """The tile that last asked about a superpixel, on a page of a project."""
    return session.scalars(
        select(Tile)
        .join(Page, Page.id == Tile.page_id)
        .where(Page.project_id == project_id, Tile.superpixel_id == superpixel_id)
        .where(~Tile.repeated, ~Page.review)
        .order_by(Page.id.desc())
        .limit(1)
    ).first()

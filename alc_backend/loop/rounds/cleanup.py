"""A chore of an open round: removing what earlier rounds left behind.

Nothing goes that a labeler may still have on the screen. Deletes tasks and predictions in Label
Studio, pages and scores in the database, and most of what the files of traits hold. Called by
``executor`` when ``plan`` says that it is due.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sqlalchemy import delete, select, update

from alc_backend.errors import NotFoundError
from alc_backend.labelstudio import model_version, uploads
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.tasks import delete_untouched, is_switched, prune_version
from alc_backend.loop.questions import round_traits
from alc_backend.loop.rounds.plan import closed_pages, closed_queries, replaced_rounds
from alc_backend.loop.rounds.progress import Reporter
from alc_backend.store.database import Store
from alc_backend.store.models import Query, Round, Score
from alc_backend.store.pages import Page, Tile

AT_ONCE = 500
"""Tasks that are looked up and deleted together."""


def remove_leftovers(store: Store, round_: Round, report: Reporter) -> None:
    """Remove what earlier rounds left behind; may be repeated after a crash at any moment.

    Tasks that were closed a day ago are deleted, unless Label Studio or the ledger has an answer,
    a skip or a draft of them; those of pages go with their sheets and rows. The predictions and
    scores of a round go a day after the next round has replaced them, and so do the traits of
    superpixels that were not asked about, and its pages that never came into Label Studio. Raises
    LabelStudioError.
    """
    number = round_.project.query_project
    if number is None:
        return
    with store.reading() as session:
        closed, replaced = closed_queries(session, round_), replaced_rounds(session, round_)
        pages = closed_pages(session, round_)
    with Client.from_settings(store.settings) as client:
        client.before_change = report.check
        for first in range(0, len(closed), AT_ONCE):
            part = {query.task_id: query.id for query in closed[first : first + AT_ONCE]}
            tasks = [task for task in part if task is not None]
            gone = delete_untouched(client, number, tasks)
            _forget_tasks(store, [part[task] for task in gone])
        for first in range(0, len(pages), AT_ONCE):
            _remove_pages(store, client, number, pages[first : first + AT_ONCE])
        for old in replaced:
            version = model_version.of_round(old.number)
            if not is_switched(client, number, version):
                prune_version(client, number, version)
            _reduce_traits(store, old, report)
            with store.reading() as session:
                unmade = select(Page).where(Page.round_id == old.id, Page.task_id.is_(None))
                never_asked = session.scalars(unmade).all()
            _forget_pages(store, client, number, never_asked)
            with report.session() as session:
                session.execute(  # what was asked once may still be answered late
                    delete(Score).where(
                        Score.round_id == old.id,
                        Score.superpixel_id.not_in(select(Query.superpixel_id)),
                    )
                )
                session.get_one(Round, old.id).pruned = True


def _remove_pages(store: Store, client: Client, query_project: int, pages: Sequence[Page]) -> None:
    """Delete the tasks of pages with their sheets, and forget those that are gone."""
    by_task = {page.task_id: page for page in pages if page.task_id is not None}
    gone = [by_task[task] for task in delete_untouched(client, query_project, [*by_task])]
    _forget_pages(store, client, query_project, gone)


def _forget_pages(store: Store, client: Client, query_project: int, pages: Sequence[Page]) -> None:
    """Delete the sheets and rows of pages that have no task."""
    drawn = [page.key for page in pages if page.sheet is not None]
    if drawn:
        sheets = uploads.sheets_project(client, query_project)
        uploads.remove_sheets(client, sheets, drawn)
    rows = [page.id for page in pages]
    with store.session() as session:
        session.execute(delete(Tile).where(Tile.page_id.in_(rows)))
        session.execute(delete(Page).where(Page.id.in_(rows)))


def _reduce_traits(store: Store, old: Round, report: Reporter) -> None:
    """Keep, of what a replaced round saw, what its answers teach: no features, no others' traits.

    A file that is missing or damaged stays as it is.
    """
    if old.config.questions == "single":
        return
    with store.reading() as session:
        shards = round_traits.shards_of(session, old)
        # a query moves on to the round that asks it again, and answers to the old one may be late
        queries = select(Query.superpixel_id).join(Round, Round.id == Query.round_id)
        asked = {*session.scalars(queries.where(Round.project_id == old.project_id))}
        tiles = select(Tile.superpixel_id).join(Page, Page.id == Tile.page_id)
        asked |= {*session.scalars(tiles.where(Page.round_id == old.id))}
    files, wanted = store.files(old.project_id), np.array(sorted(asked), dtype=np.int64)
    files.delete_plannable(old.number)
    for shard in shards:
        try:
            traits = files.read_traits(old.number, shard)
        except NotFoundError:
            continue
        report.check()
        files.write_traits(old.number, shard, traits.only(wanted).without_features())


def _forget_tasks(store: Store, queries: list[int]) -> None:
    """Note that queries have no task any more."""
    with store.session() as session:
        session.execute(
            update(Query)
            .where(Query.id.in_(queries))
            .values(task_id=None, digest=None, closed_at=None)
        )

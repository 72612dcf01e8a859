"""The fourth step of a round: bringing its queue into Label Studio.

Writes Label Studio (tasks, predictions, the version in force) and the queries in the database.
Called by ``executor``; the batch is chosen by ``selection``, tasks are made by ``query_tasks``.
"""

from __future__ import annotations

from sqlalchemy import select

from alc_backend.errors import LabelStudioError, RoundError
from alc_backend.labelstudio import model_version, tasks
from alc_backend.labelstudio.client import Client
from alc_backend.loop.query_tasks import (
    create_missing,
    queries_left_behind,
    queue_items,
    update_changed,
)
from alc_backend.loop.rounds import selection
from alc_backend.loop.rounds.progress import Reporter
from alc_backend.store.database import Store
from alc_backend.store.models import Query, Round, utc_now


def publish_round(store: Store, round_: Round, report: Reporter) -> None:
    """Put the round's queue into Label Studio, in order.

    Queries that two annotators disagree about come first, then the best B, then older unanswered
    ones (or these leave the queue, where that is set). A query keeps its task. Tasks of questions
    that are not asked any more are closed: Label Studio hands them out to nobody, but whoever has
    one on the screen can still submit it. A queue that Label Studio has switched to is not changed
    any more. Raises RoundError for a project that is not connected, LabelStudioError.
    """
    project = round_.project
    if project.query_project is None:
        raise RoundError(
            f"project {project.name!r} has no query project; run `alc init` to make it, then "
            "start the round again"
        )
    version = model_version.of_round(round_.number)
    with Client.from_settings(store.settings) as client:
        # After an older backup was restored, Label Studio may know a round of this number already:
        # only a batch that was chosen here can be the one that it follows.
        switched = tasks.is_switched(client, project.query_project, version)
        if not (switched and _is_chosen(store, round_)):
            report(0, 3, "choosing the batch")
            chosen = selection.choose_batch(store, round_)
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
    queue = queue_items(store, round_, Query.round_id == round_.id)
    report(2, 3, f"ordering {len(queue)} queries")
    if not tasks.import_queue(client, number, version, queue):
        create_missing(store, client, round_, Query.round_id == round_.id, look=True)
        queue = queue_items(store, round_, Query.round_id == round_.id)
        if not tasks.import_queue(client, number, version, queue):
            raise LabelStudioError(
                "Label Studio does not keep the predictions of all tasks; look into its log and "
                "start the round again"
            )
    # As late as possible: on a screen, a new question does not fit the old prediction.
    update_changed(store, client, round_, Query.round_id == round_.id, queue, report)
    if queue:
        tasks.switch(client, number, version)


def _close_outside(store: Store, client: Client, round_: Round, report: Reporter) -> None:
    """Close the tasks outside the round's queue that Label Studio would still hand out."""
    with store.reading() as session:
        obsolete = [
            query for query in queries_left_behind(session, round_) if query.closed_at is None
        ]
    for done, query in enumerate(obsolete):
        report(2, 3, f"closing task {done + 1} of {len(obsolete)} that are not asked any more")
        assert query.task_id is not None
        tasks.close_task(client, query.task_id)
        with store.session() as session:
            session.get_one(Query, query.id).closed_at = utc_now()

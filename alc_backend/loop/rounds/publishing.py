"""The fourth step of a round: bringing its queue into Label Studio.

Writes Label Studio (tasks, predictions, the version in force) and the queries in the database.
Called by ``platforms``; the batch is chosen by ``selection``, tasks are made by ``query_tasks``.
"""

from __future__ import annotations

from datetime import datetime

from alc_backend.errors import LabelStudioAwayError, LabelStudioError, RoundError
from alc_backend.labelstudio import model_version, tasks
from alc_backend.labelstudio.client import Client
from alc_backend.loop import page_tasks
from alc_backend.loop.query_tasks import (
    create_missing,
    queries_left_behind,
    queue_items,
    update_changed,
)
from alc_backend.loop.questions import asking, planning
from alc_backend.loop.questions.planning import Plan
from alc_backend.loop.questions.relabelling import relabel
from alc_backend.loop.rounds import selection
from alc_backend.loop.rounds.progress import Reporter
from alc_backend.loop.task_sync import close
from alc_backend.store.database import Store
from alc_backend.store.models import Project, Query, Round, utc_now
from alc_backend.store.pages import Page
from alc_backend.store.warnings import warn


def publish_round(store: Store, round_: Round, report: Reporter) -> None:
    """Put the round's queue into Label Studio, in order.

    Queries that two annotators disagree about come first, then the best B, then older unanswered
    ones (or these leave the queue, where that is set). A query keeps its task. Tasks of questions
    that are not asked any more are closed: Label Studio hands them out to nobody, but whoever has
    one on the screen can still submit it. A queue that Label Studio has switched to is not changed
    any more, and tasks that cannot be closed are told in the round's warning. Raises RoundError for
    a project that is not connected, LabelStudioError, CancelledError.
    """
    project = round_.project
    if project.query_project is None:
        raise RoundError(
            f"project {project.name!r} has no query project; run `alc init` to make it, then "
            "start the round again"
        )
    version = model_version.of_round(round_.number)
    with Client.from_settings(store.settings) as client:
        client.before_change = report.check
        if not _is_in_force(client, round_, version, report):
            report(0, 3, "choosing the batch")
            _warn(report, round_, selection.choose_batch(store, round_, report))
            plan = None
            if round_.config.questions != "single":
                plan = planning.make_plan(store, round_, report, report)
            report(1, 3, "bringing new queries into Label Studio")
            _order(store, client, round_, plan, report)
            if plan is not None:
                asking.note_plan(report, round_, plan)
                relabel(store, round_, plan, report)
        _warn(report, round_, _close_outside(store, client, round_, report))


def _is_in_force(client: Client, round_: Round, version: str, report: Reporter) -> bool:
    """Whether Label Studio follows the round's queue, as an earlier attempt has told it to.

    Label Studio alone could not say: after an older backup was restored, it may follow another
    round of this number.
    """
    number = round_.project.query_project
    assert number is not None
    if round_.switched_at is None:
        return False
    if tasks.is_switched(client, number, version):
        return True
    _note_switch(report, round_, None)  # it never arrived
    return False


def _switch(client: Client, round_: Round, version: str, report: Reporter) -> None:
    """Let Label Studio follow the round's queue; from now on the round cannot be cancelled.

    That is noted before: whether the request has arrived is not known when the connection, or this
    process, breaks off meanwhile.
    """
    number = round_.project.query_project
    assert number is not None
    _note_switch(report, round_, utc_now())
    try:
        tasks.switch(client, number, version)
    except LabelStudioAwayError:
        raise
    except LabelStudioError:
        _note_switch(report, round_, None)
        raise


def _note_switch(report: Reporter, round_: Round, moment: datetime | None) -> None:
    with report.session() as session:
        session.get_one(Round, round_.id).switched_at = moment


def _warn(report: Reporter, round_: Round, sentence: str | None) -> None:
    if sentence:
        with report.session() as session:
            warn(session, round_.id, sentence)


def _order(
    store: Store, client: Client, round_: Round, plan: Plan | None, report: Reporter
) -> None:
    """Import the predictions of the plan and the whole queue, and let Label Studio follow them."""
    number = round_.project.query_project
    assert number is not None
    version = model_version.of_round(round_.number)
    pages = page_tasks.planned(round_, 0 if plan is None else plan.number)

    with store.reading() as session:
        awaiting = page_tasks.awaiting_review(session.get_one(Project, round_.project_id))

    def reviews() -> list[tasks.QueueItem]:
        """The pages of reviews: handed out to nobody, but whoever opens one finds it ticked."""
        return page_tasks.page_items(store, round_, awaiting & Page.task_id.is_not(None))

    def whole_queue(*, look: bool = False) -> list[tasks.QueueItem]:
        create_missing(store, client, round_, Query.round_id == round_.id, look=look)
        page_tasks.create_missing(store, client, round_, pages, report)
        return [
            *page_tasks.page_items(store, round_, pages),
            *queue_items(store, round_, Query.round_id == round_.id),
        ]

    queue = whole_queue()
    report(2, 3, f"ordering {len(queue)} queries")
    if not tasks.import_queue(client, number, version, [*queue, *reviews()]):
        queue = whole_queue(look=True)
        if not tasks.import_queue(client, number, version, [*queue, *reviews()]):
            raise LabelStudioError(
                "Label Studio does not keep the predictions of all tasks; look into its log and "
                "start the round again"
            )
    # As late as possible: on a screen, a new question does not fit the old prediction.
    singles = [item for item in queue if not item.key.page]
    update_changed(store, client, round_, Query.round_id == round_.id, singles, report)
    page_tasks.reopen(store, client, queue)
    if queue:
        _switch(client, round_, version, report)


def _close_outside(store: Store, client: Client, round_: Round, report: Reporter) -> str | None:
    """Close the tasks outside the round's queue that Label Studio would still hand out.

    Returns what an admin should know about tasks that it does not close, or None.
    """
    with store.reading() as session:
        obsolete = queries_left_behind(session, round_)
    refused: list[str] = []
    for done, query in enumerate(obsolete):
        report(2, 3, f"closing task {done + 1} of {len(obsolete)} that are not asked any more")
        assert query.task_id is not None
        refused += close(report.session, client, {query.task_id: (Query, query.id)})
    refused += page_tasks.close_replaced(store, client, round_)
    if not refused:
        return None
    return (
        f"{len(refused)} tasks that are not asked any more were not closed; the next round tries "
        f"again (the first: {refused[0]})"
    )

"""Bringing a plan into Label Studio.

Writes Label Studio (sheets, tasks, predictions) and, by ``query_tasks`` and ``page_tasks``, which
task asks what. Called by ``rounds``.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, exists, select

from alc_backend.common.types import Progress
from alc_backend.errors import LabelStudioError
from alc_backend.labelstudio import model_version, tasks
from alc_backend.labelstudio.client import Client
from alc_backend.labelstudio.tasks import PLANNED_TO
from alc_backend.loop import page_tasks, query_tasks
from alc_backend.loop.leases import Lease
from alc_backend.loop.questions.planning import Plan, make_plan
from alc_backend.loop.questions.relabelling import relabel
from alc_backend.store.database import Store
from alc_backend.store.derived import Standing
from alc_backend.store.models import Query, Round


def plan_next(store: Store, round_: Round, lease: Lease, progress: Progress) -> None:
    """Make an open round's next plan and put it before everything that is in its queue.

    The pages of the plan before it that nobody has answered are closed. Then the machine writes and
    withdraws what it may by itself (see :mod:`alc_backend.loop.questions.relabelling`). May be
    repeated after a crash at any moment: the next attempt makes a plan of its own, and brings what
    the interrupted ones asked singly into Label Studio behind it. Raises LabelStudioError.
    """
    number = round_.project.query_project
    if number is None:
        return
    plan = make_plan(store, round_, lease, progress)
    which = Query.id.in_([*plan.queries, *left_over(store, round_, plan)])
    with Client.from_settings(store.settings) as client:
        client.before_change = lease.check
        query_tasks.create_missing(store, client, round_, which)
        page_tasks.create_missing(
            store, client, round_, page_tasks.planned(round_, plan.number), progress
        )
        items = planned_items(store, round_, plan, which)
        progress(2, 3, f"putting {len(items)} questions first")
        scored = [(item, item.place or 0.0) for item in items]
        version = model_version.of_round(round_.number)
        if not tasks.add_predictions(client, number, version, scored):
            query_tasks.create_missing(store, client, round_, which, look=True)
            raise LabelStudioError("Label Studio does not keep the predictions of all questions")
        query_tasks.update_changed(store, client, round_, which)
        page_tasks.reopen(store, client, items)
        page_tasks.close_replaced(store, client, round_)
    note_plan(lease, round_, plan)
    relabel(store, round_, plan, lease)


def left_over(store: Store, round_: Round, plan: Plan) -> list[int]:
    """The single questions (row ids) of plans that were interrupted before this one.

    They have places, later ones than those of ``plan``, that Label Studio does not know. Not those
    that are settled by now, or disputed.
    """
    with store.reading() as session:
        in_force = session.get_one(Round, round_.id).plan_in_force
        decided = exists().where(
            Standing.superpixel_id == Query.superpixel_id,
            Standing.way.is_not(None) | Standing.disputed.is_not(None),
        )
        found = select(Query.id).where(
            Query.round_id == round_.id,
            Query.place < PLANNED_TO / (in_force + 1),  # where the plan in force begins
            Query.id.not_in(plan.queries),
            ~decided,
        )
        return list(session.scalars(found.order_by(Query.id)))


def planned_items(
    store: Store, round_: Round, plan: Plan, which: ColumnElement[bool]
) -> list[tasks.QueueItem]:
    """The questions of a plan, the next first; ``which`` selects its single ones."""
    pages = page_tasks.page_items(store, round_, page_tasks.planned(round_, plan.number))
    singles = query_tasks.queue_items(store, round_, which)
    return sorted([*pages, *singles], key=lambda item: item.place or 0.0)


def note_plan(lease: Lease, round_: Round, plan: Plan) -> None:
    """Note that a plan is in force: the next is made when enough was answered since."""
    with lease.session() as session:
        row = session.get_one(Round, round_.id)
        row.planned_to, row.plan_in_force = plan.position, plan.number

"""What a worker does: the part that it is given, and waking what no worker is at.

Every step may be repeated from its beginning: what is done already is found and kept. Touches the
rows of rounds and parts by ``work_items``, and what the modules of the steps touch. Called by the
jobs of the service and by nothing in the loop; calls the module of each step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError, OperationalError

from alc_backend.errors import AlcError, CancelledError, PlatformAwayError
from alc_backend.loop.leases import Heartbeat
from alc_backend.loop.questions import planning
from alc_backend.loop.questions.asking import plan_next
from alc_backend.loop.rounds import adjudication, cleanup, nodes, plan, platforms, scoring, training
from alc_backend.loop.rounds.machines import Machines
from alc_backend.loop.rounds.plan import Work
from alc_backend.loop.rounds.preparation import prepare
from alc_backend.loop.rounds.progress import Reporter
from alc_backend.loop.rounds.work_items import (
    Enqueue,
    claim_part,
    finish_part,
    give_up_part,
    open_rounds,
    ready_parts,
    release_part,
    retry_part_later,
)
from alc_backend.store.database import Store
from alc_backend.store.models import Part
from alc_backend.store.round_states import CHORES, RoundState, Step

log = logging.getLogger(__name__)


STEPS: dict[Step, Callable[[Store, Part, Reporter], object]] = {
    Step.CREATED: lambda store, part, report: prepare(store, part.round, report),
    Step.TRAINING: lambda store, part, report: training.train(store, part.round, report),
    Step.SCORING: scoring.score,
    Step.PUBLISHING: lambda store, part, report: platforms.platform_of(
        store, part.round.project_id
    ).ask(part.round, report),
    Step.ASKING: lambda store, part, report: adjudication.ask_missing(store, part.round, report),
    Step.PLANNING: lambda store, part, report: plan_next(store, part.round, report, report),
    Step.TIDYING: lambda store, part, report: cleanup.remove_leftovers(store, part.round, report),
}
"""What is called for each step of a running round, and for each chore of an open one."""


def train_with(machines: Machines, is_stopping: Callable[[], bool]) -> None:
    """From now on, have this process train rounds as node 0 of several machines.

    While it waits for the others it leaves the training to another worker once it ``is_stopping``.
    """
    STEPS[Step.TRAINING] = lambda store, part, report: nodes.lead(
        store, machines, report, is_stopping
    )


def run_part(store: Store, enqueue: Enqueue, part_id: int) -> None:
    """Do a part of a round's current step; after the last part, queue those of the next step.

    Returns without doing anything when another worker has the part or nothing is to be done.
    While the place where annotators work, the database, or another machine of a training is away
    the part is put off. Any other error ends the round as failed; one that nobody expected is
    raised as well.
    """
    part = claim_part(store, part_id)
    if part is None:
        return
    round_ = part.round
    log.info(
        "project %s round %s: %s, part %s", round_.project_id, round_.number, part.step, part.number
    )
    following: list[Part] = []
    try:
        with Heartbeat(store, part) as heartbeat:
            STEPS[part.step](store, part, Reporter(store, part, heartbeat))
        following = finish_part(store, part)
    except CancelledError:
        give_up_part(store, part, RoundState.CANCELLED, None)
    except nodes.StoppingError:
        release_part(store, part)
    except (PlatformAwayError, nodes.AloneError, OperationalError) as error:
        log.warning("round %s waits: %s", round_.number, error)
        retry_part_later(store, part, str(error))
    except AlcError as error:
        log.error("round %s failed in %s: %s", round_.number, part.step, error)
        give_up_part(store, part, RoundState.FAILED, str(error))
    except Exception as error:
        give_up_part(
            store, part, RoundState.FAILED, f"{type(error).__name__}: {error}; see the worker's log"
        )
        raise
    for ready in following:
        enqueue(ready)


def recover(store: Store, enqueue: Enqueue) -> int:
    """Queue the parts that no living worker holds and the chores that are due; how many.

    Their worker has died, their pause is over, or they never reached a queue.
    """
    _wake_chores(store)
    ready = ready_parts(store)
    for part in ready:
        enqueue(part)
    return len(ready)


def _wake_chores(store: Store) -> None:
    """Make a part, or wake the finished one, for each chore that is due in an open round."""
    with store.reading() as session:
        due = [
            (round_.id, step)
            for round_ in open_rounds(session)
            if round_.project.query_project is not None  # CVAT needs none of them
            for step, is_due in (
                (Step.ASKING, round_.unasked),
                (Step.PLANNING, planning.is_due(session, round_)),
                (Step.TIDYING, plan.cleanup_is_due(session, round_)),
            )
            if is_due
        ]
        known = {
            (part.round_id, part.step): part
            for part in session.scalars(select(Part).where(Part.step.in_(CHORES)))
        }
    for round_id, step in due:
        part = known.get((round_id, step))
        if part is not None and part.finished_at is None:
            continue
        try:
            with store.session() as session:
                if part is None:
                    session.add(Part(round_id=round_id, step=step, number=0, work=Work().as_json()))
                else:
                    row = session.get_one(Part, part.id)
                    row.finished_at, row.retries, row.retry_at = None, 0, None
        except IntegrityError:  # another worker was a moment faster
            continue

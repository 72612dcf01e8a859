"""What a worker does in each state of a round.

Every step may be repeated from its beginning: what is done already is found and kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError, OperationalError

from alc_backend.errors import (
    AlcError,
    CancelledError,
    LabelStudioAwayError,
)
from alc_backend.loop.leases import Heartbeat
from alc_backend.loop.rounds import adjudication, cleanup, plan, publishing, scoring, training
from alc_backend.loop.rounds.preparation import prepare
from alc_backend.loop.rounds.progress import Reporter
from alc_backend.loop.rounds.work_items import (
    Enqueue,
    claim_part,
    end_part,
    finish_part,
    open_rounds,
    postpone_part,
    waiting,
)
from alc_backend.store.database import Store
from alc_backend.store.models import Part
from alc_backend.store.round_states import CHORES, RoundState, Step

log = logging.getLogger(__name__)


STEPS: dict[Step, Callable[[Store, Part, Reporter], object]] = {
    Step.CREATED: lambda store, part, report: prepare(store, part.round, report),
    Step.TRAINING: lambda store, part, report: training.train(store, part.round, report),
    Step.SCORING: scoring.score,
    Step.PUBLISHING: lambda store, part, report: publishing.publish_round(
        store, part.round, report
    ),
    Step.ASKING: lambda store, part, report: adjudication.ask(store, part.round),
    Step.TIDYING: lambda store, part, report: cleanup.clear_away(store, part.round),
}
"""The work of each running state, and the chores of an open round."""


def run_part(store: Store, enqueue: Enqueue, part_id: int) -> None:
    """Do a part of a round's present step; after the last part, queue those of the next step.

    Returns without doing anything when another worker has the part or nothing is to be done.
    While Label Studio or the database is away the part waits, and is tried again later.
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
        with Heartbeat(store, part):
            STEPS[part.step](store, part, Reporter(store, part))
        following = finish_part(store, part)
    except CancelledError:
        end_part(store, part, RoundState.CANCELLED, None)
    except (LabelStudioAwayError, OperationalError) as error:
        log.warning("round %s waits: %s", round_.number, error)
        postpone_part(store, part, str(error))
    except AlcError as error:
        log.error("round %s failed in %s: %s", round_.number, part.step, error)
        end_part(store, part, RoundState.FAILED, str(error))
    except Exception as error:
        end_part(
            store, part, RoundState.FAILED, f"{type(error).__name__}: {error}; see the worker's log"
        )
        raise
    for ready in following:
        enqueue(ready)


def recover(store: Store, enqueue: Enqueue) -> int:
    """Queue again the parts whose worker has died or that never reached a queue; how many."""
    _wake_chores(store)
    ready = waiting(store)
    for part in ready:
        enqueue(part)
    return len(ready)


def _wake_chores(store: Store) -> None:
    """Let the chores of open rounds wait for a worker where they are due."""
    with store.reading() as session:
        due = [
            (round_.id, step)
            for round_ in open_rounds(session)
            for step, is_due in (
                (Step.ASKING, round_.unasked),
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
                    session.add(Part(round_id=round_id, step=step, number=0, work={}))
                else:
                    row = session.get_one(Part, part.id)
                    row.finished_at, row.retries, row.retry_at = None, 0, None
        except IntegrityError:  # another worker was a moment faster
            continue

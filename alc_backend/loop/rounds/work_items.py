"""Work items: the parts of a round's steps and its chores, claimed, finished and retried.

A part is claimed by one worker at a time and may be repeated after a crash at any moment. The
transaction that finishes the last part of a step moves the round on and makes the parts of the
next step, as ``plan`` tells. Touches the rows of rounds and parts, nothing else. Called by
``executor`` (claim, finish, retry) and ``lifecycle`` (start, cancel); does no work itself and
calls neither of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from alc_backend.errors import CancelledError
from alc_backend.loop import leases
from alc_backend.loop.rounds import plan
from alc_backend.loop.rounds.plan import Work
from alc_backend.settings import Settings
from alc_backend.store import ledger
from alc_backend.store.cvat import CvatProject
from alc_backend.store.database import Store
from alc_backend.store.models import Part, Project, Round, utc_now
from alc_backend.store.round_states import CHORES, NEXT, RUNNING, RoundState, Step

log = logging.getLogger(__name__)

Enqueue = Callable[[Part], object]
"""Puts a part of a round's current step on its queue; does nothing when it is there already."""

QUEUE_STEPS = (Step.PUBLISHING, *CHORES)
"""The steps that change a project's queue in Label Studio: one at a time may run."""


def begin_step(session: Session, round_: Round, state: RoundState, works: Sequence[Work]) -> None:
    """Let a round begin the step of ``state``, with one part for each of ``works``."""
    round_.state, round_.step_began_at, round_.message = state, None, ""
    round_.done, round_.total = 0, sum(work.total for work in works)
    gone = delete(Part).where(Part.round_id == round_.id)
    step = Step(state)
    session.execute(gone if step == Step.CREATED else gone.where(Part.step == step))
    session.add_all(
        Part(round_id=round_.id, step=step, number=number, work=work.as_json(), total=work.total)
        for number, work in enumerate(works)
    )


def ready_parts(store: Store, round_id: int | None = None) -> list[Part]:
    """The parts that a worker may take up now, of all rounds or of one.

    They belong to the current step of a running round, or are chores of an open one; no living
    worker holds them, and their pause, if any, is over.
    """
    running = Round.state.in_(RUNNING) & (Part.step == Round.state)
    chores = (Round.state == RoundState.OPEN) & Part.step.in_(CHORES)
    wanted = (
        select(Part)
        .join(Round, Round.id == Part.round_id)
        .where(running | chores, Part.finished_at.is_(None))
        .order_by(Part.id)
    )
    if round_id is not None:
        wanted = wanted.where(Round.id == round_id)
    with store.reading() as session:
        parts = session.scalars(wanted).all()
    now = utc_now()
    return [
        part
        for part in parts
        if (part.claimed_by is None or leases.is_abandoned(part, store.settings))
        and (part.retry_at is None or part.retry_at <= now)
    ]


def open_rounds(session: Session) -> list[Round]:
    """The open rounds whose questions are with annotators, in Label Studio or CVAT."""
    in_cvat = select(CvatProject.project_id).where(CvatProject.questions.is_not(None))
    return list(
        session.scalars(
            select(Round)
            .join(Project, Project.id == Round.project_id)
            .where(
                Round.state == RoundState.OPEN,
                Project.query_project.is_not(None) | Project.id.in_(in_cvat),
            )
        )
    )


def claim_part(store: Store, part_id: int) -> Part | None:
    """Claim a part for this process; None when another worker holds it or it needs no work.

    A part of a round that is to be cancelled is not claimed; once no worker holds any of its
    parts, the round becomes cancelled.
    """
    with store.session() as session:
        if _queue_is_busy(session, store.settings, part_id):
            return None
        found = leases.lock_part(session, part_id)
        if found is None:
            return None
        part, round_ = found
        if not leases.is_current(part, round_) or part.finished_at is not None:
            return None
        if part.claimed_by is not None and not leases.is_abandoned(part, store.settings):
            return None
        if round_.cancel_requested:
            part.claimed_by = None
            _stop_when_idle(session, round_, store.settings)
            return None
        leases.claim(part)
        if round_.step_began_at is None:
            round_.step_began_at = utc_now()
        return part


def finish_part(store: Store, claimed: Part) -> list[Part]:
    """End a part; the last part of a step ends the step. Returns the parts that can begin now.

    A chore that has more to do by now is put off instead. Does nothing when another worker has
    taken the part over after a long silence. Raises CancelledError when cancelling was asked for.
    """
    with store.session() as session:
        found = leases.lock_part(session, claimed.id)
        if found is None or not leases.is_held(found, claimed):
            return []
        part, round_ = found
        if part.step in CHORES:
            if plan.chore_is_due_again(session, part):
                leases.put_off(part)
            else:
                part.claimed_by, part.finished_at = None, utc_now()
            return []
        if round_.cancel_requested and part.step != Step.PUBLISHING:  # Label Studio has switched
            raise CancelledError("cancelled")
        part.claimed_by, part.finished_at = None, utc_now()
        part.done = part.total
        session.flush()
        left = session.scalar(
            select(func.count()).where(
                Part.round_id == round_.id, Part.step == part.step, Part.finished_at.is_(None)
            )
        )
        if left:
            return []
        following = NEXT[part.step]
        if following == RoundState.OPEN:
            open_round(session, round_)
        else:
            begin_step(session, round_, following, plan.works_of(session, round_, following))
    return ready_parts(store, claimed.round_id)


def give_up_part(store: Store, claimed: Part, state: RoundState, error: str | None) -> None:
    """End a part's round as ``state``: FAILED with the ``error``, or CANCELLED.

    A cancelled round ends with the last worker that lets go of it. A chore ends no round: it is
    put off, and the queue stays as it is.
    """
    with store.session() as session:
        found = leases.lock_part(session, claimed.id)
        if found is None or not leases.is_held(found, claimed):
            return
        part, round_ = found
        part.claimed_by = None
        session.flush()
        if part.step in CHORES:
            leases.put_off(part)
        elif state == RoundState.FAILED:
            stop_round(session, round_, state, error)
        else:
            _stop_when_idle(session, round_, store.settings)


def release_part(store: Store, claimed: Part) -> None:
    """Give back a part whose work has not begun, for any worker to take up at once."""
    with store.session() as session:
        found = leases.lock_part(session, claimed.id)
        if found is not None and leases.is_held(found, claimed):
            found[0].claimed_by = None


def retry_part_later(store: Store, claimed: Part, reason: str) -> None:
    """Put a part off until what was away (Label Studio, the database) may be there again."""
    with store.session() as session:
        found = leases.lock_part(session, claimed.id)
        if found is None or not leases.is_held(found, claimed):
            return
        part, round_ = found
        pause = leases.put_off(part)
        if part.step in CHORES:
            return
        round_.message = f"trying again in {pause} s: {reason}"
        session.flush()
        if round_.cancel_requested:
            _stop_when_idle(session, round_, store.settings)


def open_round(session: Session, round_: Round) -> None:
    """Make a published round the project's open one, and close the one before."""
    round_.state, round_.opened_at, round_.message = RoundState.OPEN, utc_now(), ""
    round_.cancel_requested = False
    round_.unasked = True  # something may have come up while it was published
    session.execute(
        update(Round)
        .where(
            Round.project_id == round_.project_id,
            Round.number < round_.number,
            Round.state == RoundState.OPEN,
        )
        .values(state=RoundState.CLOSED)
    )


def stop_round(session: Session, round_: Round, state: RoundState, error: str | None) -> None:
    """End a running round as failed or cancelled; workers at its parts notice and let go."""
    round_.failed_in, round_.state, round_.error = round_.state, state, error
    round_.cancel_requested = False
    session.execute(update(Part).where(Part.round_id == round_.id).values(claimed_by=None))


def _stop_when_idle(session: Session, round_: Round, settings: Settings) -> None:
    """Cancel a round once no living worker holds any of its parts."""
    if not leases.count_workers(session, round_, settings):
        stop_round(session, round_, RoundState.CANCELLED, None)


def _queue_is_busy(session: Session, settings: Settings, part_id: int) -> bool:
    """Whether a part that changes the project's queue has to wait for another one that does.

    Chores also wait while a round is being published. Locks the project before anything else is
    locked, as everyone does who writes the ledger.
    """
    part = session.get(Part, part_id)
    if part is None or part.step not in QUEUE_STEPS:
        return False
    project_id = part.round.project_id
    ledger.lock(session, project_id)
    busy = session.scalars(
        select(Part)
        .join(Round, Round.id == Part.round_id)
        .where(
            Round.project_id == project_id,
            Part.step.in_(QUEUE_STEPS),
            Part.claimed_by.is_not(None),
            Part.id != part.id,
        )
    )
    publishing = select(func.count()).where(
        Round.project_id == project_id, Round.state == RoundState.PUBLISHING
    )
    return any(not leases.is_abandoned(other, settings) for other in busy) or (
        part.step in CHORES and bool(session.scalar(publishing))
    )

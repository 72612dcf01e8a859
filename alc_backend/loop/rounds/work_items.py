"""The parts of a round's steps, and the chores of an open round: what the workers do.

A part is claimed by one worker at a time and may be repeated after a crash at any moment. The
transaction that finishes the last part of a step moves the round on and makes the parts of the
next step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from alc_backend.errors import CancelledError
from alc_backend.loop.leases import at_work, is_dead, is_ours, is_present, locked, take
from alc_backend.loop.rounds import plan
from alc_backend.settings import Settings
from alc_backend.store.database import Store
from alc_backend.store.models import Part, Project, Round, utc_now
from alc_backend.store.round_states import CHORES, NEXT, RUNNING, RoundState, Step

log = logging.getLogger(__name__)

Enqueue = Callable[[Part], object]
"""Puts a part of a round's present step on its queue; does nothing when it is there already."""

RETRY_S = (5, 10, 20, 40, 80, 160, 300)
"""Pauses before a part is tried again that Label Studio's absence stopped; the last one repeats."""


def enter(session: Session, round_: Round, state: RoundState, works: list[dict[str, Any]]) -> None:
    """Let a round begin a step, in parts; ``works`` says what each is to do.

    ``total`` in a part's work is how much that is, where it is known beforehand.
    """
    round_.state, round_.step_began_at, round_.message = state, None, ""
    round_.done, round_.total = 0, sum(work.get("total", 0) for work in works)
    gone = delete(Part).where(Part.round_id == round_.id)
    step = Step(state)
    session.execute(gone if step == Step.CREATED else gone.where(Part.step == step))
    session.add_all(
        Part(
            round_id=round_.id,
            step=Step(state),
            number=number,
            work=work,
            total=work.get("total", 0),
        )
        for number, work in enumerate(works)
    )


def waiting(store: Store, round_id: int | None = None) -> list[Part]:
    """The parts of present steps, and chores, that no living worker has and that may begin."""
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
        if (part.claimed_by is None or is_dead(part, store.settings))
        and (part.retry_at is None or part.retry_at <= now)
    ]


def open_rounds(session: Session) -> list[Round]:
    """The open rounds whose queue is in Label Studio."""
    return list(
        session.scalars(
            select(Round)
            .join(Project, Project.id == Round.project_id)
            .where(Round.state == RoundState.OPEN, Project.query_project.is_not(None))
        )
    )


def claim_part(store: Store, part_id: int) -> Part | None:
    """Take up a part for this process; None when another worker has it or nothing is to do."""
    with store.session() as session:
        if _queue_is_taken(session, store.settings, part_id):
            return None
        found = locked(session, part_id)
        if found is None:
            return None
        part, round_ = found
        if not is_present(part, round_) or part.finished_at is not None:
            return None
        if part.claimed_by is not None and not is_dead(part, store.settings):
            return None
        if round_.cancel_requested:
            part.claimed_by = None
            if not at_work(session, round_, store.settings):
                stop(session, round_, RoundState.CANCELLED, None)
            return None
        take(part)
        if round_.step_began_at is None:
            round_.step_began_at = utc_now()
        return part


def finish_part(store: Store, claimed: Part) -> list[Part]:
    """End a part; the last one of a step ends the step. Returns the parts that can begin."""
    with store.session() as session:
        found = locked(session, claimed.id)
        if found is None or not is_ours(found, claimed):
            return []  # taken over by another worker after a long silence
        part, round_ = found
        if part.step in CHORES:
            if plan.is_due_again(session, part):
                put_off(part)  # something came up meanwhile
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
        if following != RoundState.OPEN:
            enter(session, round_, following, plan.parts_of(session, round_, following))
        else:
            open_queue(session, round_)
    return waiting(store, claimed.round_id)


def open_queue(session: Session, round_: Round) -> None:
    """Let a round that was published be the open one, which the one before is no longer."""
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


def end_part(store: Store, claimed: Part, state: RoundState, error: str | None) -> None:
    """Give a part back after it was cancelled or has failed; its round ends with it.

    A cancelled round ends with the last worker that lets go of it.
    """
    with store.session() as session:
        found = locked(session, claimed.id)
        if found is None or not is_ours(found, claimed):
            return
        part, round_ = found
        part.claimed_by = None
        session.flush()
        if part.step in CHORES:
            put_off(part)  # the queue stays as it is; the next try may do better
        elif state == RoundState.FAILED or not at_work(session, round_, store.settings):
            stop(session, round_, state, error)


def postpone_part(store: Store, claimed: Part, reason: str) -> None:
    """Give a part back, to be tried again once Label Studio or the database may be there."""
    with store.session() as session:
        found = locked(session, claimed.id)
        if found is None or not is_ours(found, claimed):
            return
        part, round_ = found
        pause = put_off(part)
        if part.step in CHORES:
            return
        round_.message = f"trying again in {pause} s: {reason}"
        session.flush()
        if round_.cancel_requested and not at_work(session, round_, store.settings):
            stop(session, round_, RoundState.CANCELLED, None)


def put_off(part: Part) -> int:
    """Give a part back, to be tried again after some seconds, which are returned."""
    pause = RETRY_S[min(part.retries, len(RETRY_S) - 1)]
    part.claimed_by, part.retries = None, part.retries + 1
    part.retry_at = utc_now() + timedelta(seconds=pause)
    return pause


def _queue_is_taken(session: Session, settings: Settings, part_id: int) -> bool:
    """Whether somebody else is at the project's queue in Label Studio, which one at a time may.

    Locks the project, as those do who write the ledger, before anything else is locked.
    """
    part = session.get(Part, part_id)
    if part is None or part.step not in (Step.PUBLISHING, *CHORES):
        return False
    project_id = part.round.project_id
    session.get_one(Project, project_id, with_for_update={"of": Project, "key_share": True})
    busy = session.scalars(
        select(Part)
        .join(Round, Round.id == Part.round_id)
        .where(
            Round.project_id == project_id,
            Part.step.in_((Step.PUBLISHING, *CHORES)),
            Part.claimed_by.is_not(None),
            Part.id != part.id,
        )
    )
    publishing = select(func.count()).where(
        Round.project_id == project_id, Round.state == RoundState.PUBLISHING
    )
    return any(not is_dead(other, settings) for other in busy) or (
        part.step in CHORES and bool(session.scalar(publishing))
    )


def stop(session: Session, round_: Round, state: RoundState, error: str | None) -> None:
    """End a running round as failed or cancelled; whoever works at it will notice."""
    round_.failed_in, round_.state, round_.error = round_.state, state, error
    round_.cancel_requested = False
    session.execute(update(Part).where(Part.round_id == round_.id).values(claimed_by=None))

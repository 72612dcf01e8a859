"""Who works at what: claims on the parts of a round, heartbeats, progress."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
from datetime import timedelta
from pathlib import Path

import psutil
from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from alc_backend.errors import CancelledError
from alc_backend.settings import Settings
from alc_backend.store.database import Store
from alc_backend.store.models import Arrival, Part, Round, utc_now
from alc_backend.store.round_states import CHORES, RoundState

log = logging.getLogger(__name__)

Claimable = Part | Arrival
"""What a worker can have: ``claimed_by``, ``claims``, ``heartbeat_at``, ``retry_at``."""


ROUND_LOCK = {"of": Round, "key_share": True}
"""Lock only the round's row where the database has row locks (SQLite locks the whole file).

Whoever changes a part locks its round first. Others may refer to the row meanwhile.
"""


def host() -> str:
    """This machine, or rather what shares its process numbers (a container has its own)."""
    try:
        numbers = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        numbers = ""
    return f"{socket.gethostname()}/{numbers}"


def take(part: Claimable) -> None:
    """Put this process's name on a part, or on an image."""
    part.claimed_by = f"{host()}|{os.getpid()}|{secrets.token_hex(4)}"
    part.heartbeat_at, part.retry_at = utc_now(), None
    part.claims += 1


def check(session: Session, claimed: Part) -> None:
    """Raise CancelledError when a part no longer has the worker that ``claimed`` it."""
    found = locked(session, claimed.id)
    if found is None or not is_ours(found, claimed):
        raise CancelledError("taken over by another worker")


def locked(session: Session, part_id: int) -> tuple[Part, Round] | None:
    """A part and its round, locked against other workers; None when it is gone."""
    part = session.get(Part, part_id)
    if part is None:
        return None
    round_ = session.get_one(
        Round, part.round_id, with_for_update=ROUND_LOCK, populate_existing=True
    )
    session.refresh(part)
    return part, round_


def is_ours(found: tuple[Part, Round], claimed: Part) -> bool:
    """Whether a part, as :func:`locked` found it, still has the worker that ``claimed`` it."""
    part, round_ = found
    return part.claimed_by == claimed.claimed_by and is_present(part, round_)


def is_present(part: Part, round_: Round) -> bool:
    """Whether a part is of its round's present step, or a chore of an open round."""
    if part.step in CHORES:
        return round_.state == RoundState.OPEN
    return part.step.value == round_.state.value


class Heartbeat:
    """Says every few seconds, while something is worked at, that its worker is alive."""

    def __init__(self, store: Store, claimed: Claimable) -> None:
        self._store, self._claimed = store, claimed
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._over.wait(self._store.settings.stale_after_s / 5):
            try:
                table = type(self._claimed)
                with self._store.session() as session:
                    session.execute(
                        update(table)
                        .where(
                            table.id == self._claimed.id,
                            table.claimed_by == self._claimed.claimed_by,
                        )
                        .values(heartbeat_at=utc_now())
                    )
            except SQLAlchemyError as error:
                log.warning("the heartbeat could not be written, trying again: %s", error)


def at_work(session: Session, round_: Round, settings: Settings) -> int:
    """How many living workers have a part of the round."""
    parts = session.scalars(
        select(Part).where(Part.round_id == round_.id, Part.claimed_by.is_not(None))
    )
    return sum(not is_dead(part, settings) for part in parts)


def is_dead(part: Claimable, settings: Settings) -> bool:
    """Whether the worker that claimed a part, or an image, is gone."""
    where, process, _ = (part.claimed_by or "").split("|")
    if where == host() and not psutil.pid_exists(int(process)):
        return True
    limit = utc_now() - timedelta(seconds=settings.stale_after_s)
    return part.heartbeat_at is None or part.heartbeat_at < limit

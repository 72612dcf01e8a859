"""Leases: which worker has which part of a round, or which image, and whether it still lives.

A lease is a few columns of the row itself (``claimed_by``, ``heartbeat_at``, ``retry_at``). Touches
these columns in the database, and this machine's process table; starts the heartbeat's thread.
Called by ``rounds`` and ``projects``.
"""

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

from alc_backend.common.retries import pause_after
from alc_backend.errors import CancelledError
from alc_backend.settings import Settings
from alc_backend.store.database import Store
from alc_backend.store.models import Arrival, Part, Round, utc_now
from alc_backend.store.round_states import CHORES, RoundState

log = logging.getLogger(__name__)

Claimable = Part | Arrival
"""What one worker at a time can have: a part of a round, or an image without a label map."""


ROUND_LOCK = {"of": Round, "key_share": True}
"""Lock only the round's row where the database has row locks (SQLite locks the whole file).

Whoever changes a part locks its round first. Others may refer to the row meanwhile.
"""


def host() -> str:
    """The name of this machine with its process namespace (each container has its own).

    Two processes with the same host share their process numbers.
    """
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = ""
    return f"{socket.gethostname()}/{namespace}"


def claim(item: Claimable) -> None:
    """Make this process the holder of a part or an image, in the caller's transaction."""
    item.claimed_by = f"{host()}|{os.getpid()}|{secrets.token_hex(4)}"
    item.heartbeat_at, item.retry_at = utc_now(), None
    item.claims += 1


def put_off(item: Claimable) -> int:
    """Give a part or an image back, to be tried again later; returns the pause in seconds."""
    item.claimed_by, item.retries = None, item.retries + 1
    pause = pause_after(item.retries)
    item.retry_at = utc_now() + timedelta(seconds=pause)
    return pause


def lock_part(session: Session, part_id: int) -> tuple[Part, Round] | None:
    """A part and its round, locked against other workers; None when the part is gone."""
    part = session.get(Part, part_id)
    if part is None:
        return None
    round_ = session.get_one(
        Round, part.round_id, with_for_update=ROUND_LOCK, populate_existing=True
    )
    session.refresh(part)
    return part, round_


def check_claim(session: Session, claimed: Part) -> None:
    """Lock a part; raises CancelledError unless it is still held as when it was ``claimed``."""
    found = lock_part(session, claimed.id)
    if found is None or not is_held(found, claimed):
        raise CancelledError("taken over by another worker")


def is_held(found: tuple[Part, Round], claimed: Part) -> bool:
    """Whether a part and its round, as read now, still give the part to its claimer.

    ``claimed`` is the part as it was when this worker claimed it. False once another worker has
    taken it over, or the round has left the part's step.
    """
    part, round_ = found
    return part.claimed_by == claimed.claimed_by and is_current(part, round_)


def is_current(part: Part, round_: Round) -> bool:
    """Whether a part belongs to its round's current step, or is a chore of an open round."""
    if part.step in CHORES:
        return round_.state == RoundState.OPEN
    return part.step.value == round_.state.value


def is_abandoned(item: Claimable, settings: Settings) -> bool:
    """Whether the worker that holds a part or an image is dead.

    Its process is gone from this machine, or it has not been heard of for ``stale_after_s``.
    """
    where, process, _ = (item.claimed_by or "").split("|")
    if where == host() and not psutil.pid_exists(int(process)):
        return True
    limit = utc_now() - timedelta(seconds=settings.stale_after_s)
    return item.heartbeat_at is None or item.heartbeat_at < limit


def count_workers(session: Session, round_: Round, settings: Settings) -> int:
    """How many parts of the round living workers hold."""
    parts = session.scalars(
        select(Part).where(Part.round_id == round_.id, Part.claimed_by.is_not(None))
    )
    return sum(not is_abandoned(part, settings) for part in parts)


class Heartbeat:
    """Notes every few seconds, while its context lasts, that the holder of a lease is alive."""

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

"""Who works at what: claims on the parts of a round, heartbeats, progress."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from datetime import timedelta

import psutil
from sqlalchemy import func, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from alc_backend.errors import CancelledError
from alc_backend.settings import Settings
from alc_backend.store.database import Store
from alc_backend.store.models import Part, Round, utc_now

log = logging.getLogger(__name__)

REPORT_EVERY_S = 0.5

ROUND_LOCK = {"of": Round}
"""Lock only the round's row where the database has row locks (SQLite locks the whole file)."""


def take(part: Part) -> None:
    """Put this process's name on a part."""
    part.claimed_by = f"{socket.gethostname()}|{os.getpid()}|{secrets.token_hex(4)}"
    part.heartbeat_at, part.retry_at = utc_now(), None
    part.claims += 1


class Reporter:
    """Progress of a part, in its row and its round's.

    Raises CancelledError once cancelling is asked for, or another worker has taken the part.
    """

    def __init__(self, store: Store, part: Part) -> None:
        self._store, self._part_id, self._claim = store, part.id, part.claimed_by
        self._last = float("-inf")

    def __call__(self, done: int, total: int, message: str) -> None:
        """Report ``done`` of ``total`` and a sentence; written a few times a second at most."""
        now = time.monotonic()
        if now - self._last < REPORT_EVERY_S and done < total:
            with self._store.reading() as session:
                part = session.get(Part, self._part_id)
        else:
            self._last = now
            with self._store.session() as session:
                part = session.get(Part, self._part_id)
                if part is not None and part.claimed_by == self._claim:
                    part.done, part.total = done, total
                    session.flush()
                    part.round.done, part.round.total = _progress(session, part)
                    part.round.message = message
        if part is None or part.claimed_by != self._claim:
            raise CancelledError("taken over by another worker")
        if part.round.cancel_requested or part.round.state != part.step:
            raise CancelledError("cancelled")


def _progress(session: Session, part: Part) -> tuple[int, int]:
    """How far all parts of a step are."""
    sums = select(func.sum(Part.done), func.sum(Part.total)).where(
        Part.round_id == part.round_id, Part.step == part.step
    )
    done, total = session.execute(sums).one()
    return int(done), int(total)


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
    return part.claimed_by == claimed.claimed_by and round_.state == part.step


class Heartbeat:
    """Says every few seconds, while a part is worked at, that its worker is alive."""

    def __init__(self, store: Store, claimed: Part) -> None:
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
                with self._store.session() as session:
                    session.execute(
                        update(Part)
                        .where(
                            Part.id == self._claimed.id,
                            Part.claimed_by == self._claimed.claimed_by,
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


def is_dead(part: Part, settings: Settings) -> bool:
    """Whether the worker that claimed a part is gone."""
    host, process, _ = (part.claimed_by or "").split("|")
    if host == socket.gethostname() and not psutil.pid_exists(int(process)):
        return True
    limit = utc_now() - timedelta(seconds=settings.stale_after_s)
    return part.heartbeat_at is None or part.heartbeat_at < limit

"""Leases: which worker has which part of a round, or which image, and whether it still lives.

A lease is a few columns of the row itself (``claimed_by``, ``heartbeat_at``, ``retry_at``). Each
claim has a name of its own, by which a worker that was paused for long sees that another one has
taken its work over; it looks before every step that others see. Touches these columns in the
database, and this machine's process table; starts the heartbeat's thread. Called by ``rounds``,
``projects`` and the service's workers.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from alc_backend.common.retries import pause_after
from alc_backend.errors import CancelledError
from alc_backend.settings import Settings
from alc_backend.store.database import Store
from alc_backend.store.incoming import Arrival
from alc_backend.store.models import Part, Round, utc_now
from alc_backend.store.round_states import CHORES, RoundState

log = logging.getLogger(__name__)

Claimable = Part | Arrival
"""What one worker at a time can have: a part of a round, or an image without a label map."""


ROUND_LOCK = {"of": Round, "key_share": True}
"""Lock only the round's row where the database has row locks (SQLite locks the whole file).

Whoever changes a part locks its round first. Others may refer to the row meanwhile.
"""


_APART = secrets.token_hex(8)
"""What tells this process from all others where the system does not name its last start."""


def machine() -> str:
    """A name that two processes share where each sees the other's process number, and only there.

    It holds the host's name for people to read; what counts is the random id that Linux draws when
    it starts (a cloned machine has the same name, but starts anew) and the namespace of the process
    numbers (each container has its own). Elsewhere no two processes share a name.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        namespace = Path("/proc/self/ns/pid").readlink()
    except OSError:
        return f"{socket.gethostname()}/{_APART}"
    return f"{socket.gethostname()}/{boot}/{namespace}"


def this_process() -> str:
    """The name of this process, unlike that of any other one on any machine at any time."""
    return f"{machine()}|{os.getpid()}|{_began(os.getpid())}"


def is_here(process: str) -> bool:
    """Whether a process, by its name, runs or ran where this one can look it up."""
    return process.partition("|")[0] == machine()


def is_gone(process: str) -> bool:
    """Whether a process, by its name, has ended; False as well where this machine cannot tell."""
    _, _, rest = process.partition("|")
    number, _, began = rest.partition("|")
    if not is_here(process) or not number.isdecimal():
        return False
    found = _began(int(number))
    return not _exists(int(number)) if found is None else found != began


def _began(number: int) -> str | None:
    """When a process of this machine began, in ticks of Linux's clock; "" when it has ended.

    None where that cannot be read: there is none, or it is another user's and hidden.
    """
    try:
        facts = Path(f"/proc/{number}/stat").read_text("utf-8", errors="replace")
    except OSError:
        return None
    state, *_, began = facts.rpartition(")")[2].split()[:20]
    return "" if state in ("Z", "X") else began


def _exists(number: int) -> bool:
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def claim(item: Claimable) -> None:
    """Make this process the holder of a part or an image, in the caller's transaction."""
    item.claimed_by = f"{this_process()}|{secrets.token_hex(8)}"
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


class Lease:
    """What gives a worker the right to do a part, until another one takes the part over.

    ``claimed`` is the part as it was when this worker claimed it.
    """

    def __init__(self, store: Store, claimed: Part) -> None:
        self._store, self.claimed = store, claimed

    def check(self) -> None:
        """Do nothing while this worker may go on; called before every step that others see.

        Raises CancelledError once another worker has the part, or the round is to be cancelled.
        """
        with self._store.reading() as session:
            part = session.get(Part, self.claimed.id)
            self._check(None if part is None else (part, part.round))

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A transaction that changes what this worker alone may change.

        Raises CancelledError as :meth:`check` does; nobody takes the part over meanwhile.
        """
        with self._store.session() as session:
            self.lock(session)
            yield session

    def lock(self, session: Session) -> None:
        """Lock the part in a transaction; raises CancelledError as :meth:`check` does."""
        self._check(lock_part(session, self.claimed.id))

    def _check(self, found: tuple[Part, Round] | None) -> None:
        if found is None or not is_held(found, self.claimed):
            raise CancelledError("taken over by another worker, or stopped")
        part, round_ = found
        if round_.cancel_requested and part.step not in CHORES:
            raise CancelledError("cancelled")


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
    if is_gone((item.claimed_by or "").rpartition("|")[0]):
        return True
    limit = utc_now() - timedelta(seconds=settings.stale_after_s)
    return item.heartbeat_at is None or item.heartbeat_at < limit


def count_workers(session: Session, round_: Round, settings: Settings) -> int:
    """How many parts of the round living workers hold."""
    parts = session.scalars(
        select(Part).where(Part.round_id == round_.id, Part.claimed_by.is_not(None))
    )
    return sum(not is_abandoned(part, settings) for part in parts)


_beating: set[Heartbeat] = set()
"""The heartbeats of this process."""


class Heartbeat:
    """Notes every few seconds, while its context lasts, that the holder of a lease is alive.

    It stops once the holder has shown no :meth:`progress` for ``hung_after_minutes``.
    """

    def __init__(self, store: Store, claimed: Claimable) -> None:
        self._store, self._claimed = store, claimed
        self._over = threading.Event()
        self._progress_at = time.monotonic()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self.progress()
        _beating.add(self)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        _beating.discard(self)
        self._over.set()
        self._thread.join()

    def progress(self) -> None:
        """Take note that the work goes on."""
        self._progress_at = time.monotonic()

    @property
    def is_hung(self) -> bool:
        """Whether the work shows no progress any more."""
        silent = time.monotonic() - self._progress_at
        return silent > 60 * self._store.settings.hung_after_minutes

    def _beat(self) -> None:
        while not self._over.wait(self._store.settings.stale_after_s / 5):
            if self.is_hung:
                log.error("no progress any more; the work is left to another worker")
                return
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


def is_hung() -> bool:
    """Whether some work of this process has shown no progress for too long."""
    return any(heartbeat.is_hung for heartbeat in list(_beating))

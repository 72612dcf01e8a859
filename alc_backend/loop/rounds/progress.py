"""Progress of the part at hand, written where people see it.

Touches the rows of the part and its round. Made by ``executor``, called by every step.
"""

from __future__ import annotations

import time

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from alc_backend.loop.leases import Heartbeat, Lease
from alc_backend.store.database import Store
from alc_backend.store.models import Part, Round
from alc_backend.store.round_states import CHORES

REPORT_EVERY_S = 0.5
"""How often, at most, progress is written into the database."""


class Reporter(Lease):
    """Writes the progress of a claimed part into its row and its round's.

    A call raises CancelledError once cancelling was asked for, or another worker has the part.
    Each one, and each check of the lease, tells the ``heartbeat`` that the work goes on.
    """

    def __init__(self, store: Store, part: Part, heartbeat: Heartbeat | None = None) -> None:
        super().__init__(store, part)
        self._heartbeat = heartbeat
        self._last = float("-inf")

    def __call__(self, done: int, total: int, message: str) -> None:
        """Report ``done`` of ``total`` and a sentence; written a few times a second at most."""
        now = time.monotonic()
        if now - self._last < REPORT_EVERY_S and done < total:
            self.check()
            return
        with self.session() as session:
            self._last = now
            part = session.get_one(Part, self.claimed.id)
            part.done, part.total = done, total
            session.flush()
            if part.step not in CHORES:
                round_ = session.get_one(Round, part.round_id)
                round_.done, round_.total = _step_progress(session, part)
                round_.message = message

    def _check(self, found: tuple[Part, Round] | None) -> None:
        super()._check(found)
        if self._heartbeat is not None:
            self._heartbeat.progress()


def _step_progress(session: Session, part: Part) -> tuple[int, int]:
    """How much is done, and how much there is, in all parts of a part's step."""
    sums = select(func.sum(Part.done), func.sum(Part.total)).where(
        Part.round_id == part.round_id, Part.step == part.step
    )
    done, total = session.execute(sums).one()
    return int(done), int(total)

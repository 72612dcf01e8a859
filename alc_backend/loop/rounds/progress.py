"""Progress of the part at hand, written where people see it.

Touches the rows of the part and its round. Made by ``executor``, called by every step.
"""

from __future__ import annotations

import time

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from alc_backend.errors import CancelledError
from alc_backend.loop.leases import is_held, lock_part
from alc_backend.store.database import Store
from alc_backend.store.models import Part, Round
from alc_backend.store.round_states import CHORES

REPORT_EVERY_S = 0.5
"""How often, at most, progress is written into the database."""


class Reporter:
    """Writes the progress of a claimed part into its row and its round's.

    A call raises CancelledError once cancelling was asked for, or another worker has the part.
    """

    def __init__(self, store: Store, part: Part) -> None:
        self._store, self._claimed = store, part
        self._last = float("-inf")

    def __call__(self, done: int, total: int, message: str) -> None:
        """Report ``done`` of ``total`` and a sentence; written a few times a second at most."""
        now = time.monotonic()
        written = now - self._last >= REPORT_EVERY_S or done >= total
        find = lock_part if written else _look_up
        with self._store.session() if written else self._store.reading() as session:
            found = find(session, self._claimed.id)
            if found is None or not is_held(found, self._claimed):
                raise CancelledError("taken over by another worker, or stopped")
            part, round_ = found
            if written:
                self._last = now
                part.done, part.total = done, total
                session.flush()
                if part.step not in CHORES:
                    round_.done, round_.total = _step_progress(session, part)
                    round_.message = message
            cancelled = round_.cancel_requested and part.step not in CHORES
        if cancelled:
            raise CancelledError("cancelled")


def _look_up(session: Session, part_id: int) -> tuple[Part, Round] | None:
    """A part and its round, not locked; None when the part is gone."""
    part = session.get(Part, part_id)
    return (part, part.round) if part is not None else None


def _step_progress(session: Session, part: Part) -> tuple[int, int]:
    """How much is done, and how much there is, in all parts of a part's step."""
    sums = select(func.sum(Part.done), func.sum(Part.total)).where(
        Part.round_id == part.round_id, Part.step == part.step
    )
    done, total = session.execute(sums).one()
    return int(done), int(total)

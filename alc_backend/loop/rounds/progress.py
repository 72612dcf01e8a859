"""progress."""

from __future__ import annotations

import time

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from alc_backend.errors import CancelledError
from alc_backend.loop.leases import is_ours, locked
from alc_backend.store.database import Store
from alc_backend.store.models import Part, Round
from alc_backend.store.round_states import CHORES

REPORT_EVERY_S = 0.5


class Reporter:
    """Progress of a part, in its row and its round's.

    Raises CancelledError once cancelling is asked for, or another worker has taken the part.
    """

    def __init__(self, store: Store, part: Part) -> None:
        self._store, self._claimed = store, part
        self._last = float("-inf")

    def __call__(self, done: int, total: int, message: str) -> None:
        """Report ``done`` of ``total`` and a sentence; written a few times a second at most."""
        now = time.monotonic()
        written = now - self._last >= REPORT_EVERY_S or done >= total
        with self._store.session() if written else self._store.reading() as session:
            found = (
                locked(session, self._claimed.id) if written else _seen(session, self._claimed.id)
            )
            if found is None or not is_ours(found, self._claimed):
                raise CancelledError("taken over by another worker, or stopped")
            part, round_ = found
            if written:
                self._last = now
                part.done, part.total = done, total
                session.flush()
                if part.step not in CHORES:
                    round_.done, round_.total = _progress(session, part)
                    round_.message = message
            cancelled = round_.cancel_requested and part.step not in CHORES
        if cancelled:
            raise CancelledError("cancelled")


def _seen(session: Session, part_id: int) -> tuple[Part, Round] | None:
    part = session.get(Part, part_id)
    return (part, part.round) if part is not None else None


def _progress(session: Session, part: Part) -> tuple[int, int]:
    """How far all parts of a step are."""
    sums = select(func.sum(Part.done), func.sum(Part.total)).where(
        Part.round_id == part.round_id, Part.step == part.step
    )
    done, total = session.execute(sums).one()
    return int(done), int(total)

"""How long questions take in a project, by the lead times of its answers.

Reads the ledger; writes nothing. Called by ``planning``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import median

from sqlalchemy.orm import Session

from alc_backend.core.questions import PUBLISHED, Pace
from alc_backend.store import ledger
from alc_backend.store.kinds import EntryKind
from alc_backend.store.models import LedgerEntry

FEWEST = 20
"""With fewer answers of a kind, its published time is taken, or that of a user study."""

FURTHEST = 4.0
"""A time is taken for at most so many times the published one, and at least for that part."""


NEWEST = 2000
"""The entries of the ledger that are looked at, the newest ones: people get faster."""


def newest(session: Session, project_id: int) -> list[LedgerEntry]:
    """The newest entries in force that people made, in the order of the ledger."""
    entries = ledger.in_force_by_people(project_id)
    found = session.scalars(entries.order_by(LedgerEntry.id.desc()).limit(NEWEST))
    return [*found][::-1]


def measured_pace(entries: Iterable[LedgerEntry], published: Pace = PUBLISHED) -> Pace:
    """The seconds that accepting, correcting and a tile take, by entries in force.

    They are medians, so that interruptions do not count. A page takes its ``published`` time
    beside its tiles'.
    """
    times: dict[EntryKind, list[float]] = defaultdict(list)
    pages: dict[int, list[float]] = defaultdict(list)
    for entry in entries:
        if entry.lead_time is None or entry.lead_time <= 0 or entry.kind == EntryKind.SKIP:
            continue
        if entry.position:
            pages[entry.annotation_id].append(entry.lead_time)
        elif entry.superpixel_id is not None:
            times[entry.kind].append(entry.lead_time)
    tiles = [(sum(shares) - published.page) / len(shares) for shares in pages.values()]
    return published._replace(
        accept=_typical(times[EntryKind.ACCEPT], published.accept),
        correct=_typical(times[EntryKind.CORRECT], published.correct),
        tile=_typical(tiles, published.tile),
    )


def _typical(seconds: Sequence[float], published: float) -> float:
    """The median of ``seconds``, within reason; the published time where they are few."""
    if len(seconds) < FEWEST:
        return published
    return min(max(median(seconds), published / FURTHEST), published * FURTHEST)

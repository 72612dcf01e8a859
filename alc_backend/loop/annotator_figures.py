"""What each annotator of a project did.

Computes on the counts of a project, and reads the ledger. Called by ``overview``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from alc_backend.loop.annotations.confirmations import share_accepted
from alc_backend.store.derived import Counted
from alc_backend.store.kinds import ANSWERS, EntryKind
from alc_backend.store.ledger import in_force_by_people as in_force
from alc_backend.store.models import LedgerEntry
from alc_backend.store.tallies import Key, weighted_median


@dataclass(frozen=True)
class Annotator:
    """What one annotator did.

    ``skipped`` counts questions, pages and images. ``accepted`` is the share of pseudo labels that
    they accepted where these were asked about singly, ``pace`` the answers per hour of
    answering, ``seconds`` the median time of an answer, each None when it is not known. Of the
    tiles that pages ``repeated`` though they were known to be wrong, ``overlooked`` were left
    ticked. ``last`` is when they answered last.
    """

    name: str
    answers: int
    skipped: int
    accepted: float | None
    pace: float | None
    seconds: float | None
    repeated: int
    overlooked: int
    last: datetime


def annotator_figures(session: Session, project_id: int, counts: Counter[Key]) -> list[Annotator]:
    """What each annotator did, by the counts of a project, those with most answers first."""
    kinds: dict[str, Counter[str]] = {}
    singly: dict[str, Counter[str]] = {}
    skipped: Counter[str] = Counter()
    overlooked: Counter[str] = Counter()
    times: dict[str, Counter[int]] = {}
    for key, count in counts.items():
        if key.what in (Counted.SAID, Counted.SAID_ON_PAGES):
            kinds.setdefault(key.who, Counter())[key.about] += count
            if key.what == Counted.SAID:
                singly.setdefault(key.who, Counter())[key.about] += count
        elif key.what == Counted.SKIPPED:
            skipped[key.who] += count
        elif key.what == Counted.OVERLOOKED:
            overlooked[key.who] += count
        elif key.what == Counted.SECONDS:
            times.setdefault(key.who, Counter())[key.number] += count
    found = []
    for name, theirs in kinds.items():
        last = _last_said(session, project_id, name)
        if last is None:
            continue
        took = times.get(name, Counter())
        total = sum(time * count for time, count in took.items()) / 1000
        middle = weighted_median(took)
        found.append(
            Annotator(
                name,
                sum(theirs[kind] for kind in ANSWERS),
                skipped[name],
                share_accepted(singly.get(name, {})),
                3600 * took.total() / total if took else None,
                None if middle is None else middle / 1000,
                theirs[EntryKind.REPEATED],
                overlooked[name],
                last,
            )
        )
    return sorted(found, key=lambda annotator: (-annotator.answers, annotator.name))


def _last_said(session: Session, project_id: int, annotator: str) -> datetime | None:
    """When an annotator said the last of what is in force, None where nothing is."""
    theirs = in_force(project_id).where(LedgerEntry.annotator == annotator)
    last = theirs.order_by(LedgerEntry.answered_at.desc()).limit(1)
    entry: LedgerEntry | None = session.scalars(last).first()
    return None if entry is None else entry.answered_at

"""Counts that are kept beside the ledger: what one annotation adds to them, and reading them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from alc_backend.store.derived import Counted, Tally, Way
from alc_backend.store.kinds import EntryKind
from alc_backend.store.models import LedgerEntry
from alc_backend.store.upserts import upsert

DIGITS = 3
"""Times are counted with so many significant digits."""


class Key(NamedTuple):
    """What a count is of; see :class:`~alc_backend.store.derived.Counted`."""

    what: Counted
    who: str = ""
    about: str = ""
    number: int = 0


def milliseconds(seconds: float) -> int:
    """A time above 0 as it is counted: in milliseconds, with DIGITS significant digits."""
    return max(1, round(float(f"{seconds:.{DIGITS}g}") * 1000))


def way_of(entry: LedgerEntry) -> Way:
    """How an entry confirms a label."""
    if entry.superpixel_id is None:
        return Way.EDIT
    return Way.PAGE if entry.position else Way.SINGLE


def said(entries: Iterable[LedgerEntry]) -> Counter[Key]:
    """What one annotation adds to the counts, by its entries in force; the machine adds nothing."""
    counts: Counter[Key] = Counter()
    screens: dict[Way, tuple[float, int]] = {}
    skipped: set[Key] = set()
    for entry in entries:
        if entry.is_by_machine:
            continue
        day = entry.answered_at.date().toordinal()
        what = Counted.SAID_ON_PAGES if entry.position else Counted.SAID
        counts[Key(what, entry.annotator, str(entry.kind), day)] += 1
        if entry.kind == EntryKind.SKIP:
            skipped.add(Key(Counted.SKIPPED, entry.annotator, number=day))
        counts.update(_of_answer(entry))
        if entry.kind == EntryKind.REVIEWED:
            continue  # it labels nothing
        seconds, named = screens.get(way_of(entry), (0.0, 0))
        most = sum(change["most"] for change in entry.changes or ())
        screens[way_of(entry)] = (
            seconds + (entry.lead_time or 0.0),
            named + int(entry.is_answer) + most,
        )
    counts.update(skipped)
    for way, (seconds, named) in screens.items():
        if seconds > 0:
            counts[Key(Counted.SCREENS, about=str(way), number=milliseconds(seconds))] += 1
            counts[Key(Counted.NAMED, about=str(way), number=milliseconds(seconds))] += named
    return counts


def _of_answer(entry: LedgerEntry) -> Iterable[Key]:
    """What an entry adds to the counts of times, corrections and proposals."""
    if entry.is_answer and entry.lead_time is not None and entry.lead_time > 0:
        yield Key(Counted.SECONDS, entry.annotator, number=milliseconds(entry.lead_time))
    shown, given = entry.pseudo_label, entry.class_id
    if entry.kind == EntryKind.CORRECT and shown is not None and given is not None:
        yield Key(Counted.CORRECTED, number=256 * shown + given)
    if entry.kind == EntryKind.REPEATED and given is not None:
        yield Key(Counted.OVERLOOKED, entry.annotator)
    told = entry.is_answer or entry.kind == EntryKind.RULED_OUT
    if entry.position and entry.proposed is not None and told:
        yield Key(Counted.PROPOSED, number=entry.proposed)
        if entry.is_answer:
            yield Key(Counted.TICKED, number=entry.proposed)


def add(session: Session, project_id: int, changes: Mapping[Key, int]) -> None:
    """Add ``changes`` to the counts of a project, all in one statement.

    In the order of their keys, so that two transactions never wait for each other in a circle.
    """
    rows = [
        {"project_id": project_id, **key._asdict(), "count": count}
        for key, count in sorted(changes.items())
        if count
    ]
    upsert(session, Tally, rows, add=["count"])


def read(session: Session, project_id: int, *wanted: Counted) -> Counter[Key]:
    """The counts of a project that are not 0, of what is ``wanted`` (default: all)."""
    rows = select(Tally.what, Tally.who, Tally.about, Tally.number, Tally.count).where(
        Tally.project_id == project_id, Tally.count != 0
    )
    if wanted:
        rows = rows.where(Tally.what.in_(wanted))
    return Counter({Key(*row[:4]): row[4] for row in session.execute(rows)})


def count(session: Session, project_id: int, what: Counted, about: str = "") -> int:
    """One count of a project that tells of nobody and no number."""
    key = (project_id, what, "", about, 0)
    found = session.get(Tally, key, populate_existing=True)
    return found.count if found else 0


def weighted_median(counts: Mapping[int, int]) -> float | None:
    """The median of numbers that each occur ``counts`` times; None without any."""
    total = sum(counts.values())
    if not total:
        return None
    found, seen = [], 0
    wanted: Collection[int] = ((total - 1) // 2, total // 2)
    for number, many in sorted(counts.items()):
        found += [number for index in wanted if seen <= index < seen + many]
        seen += many
    return sum(found) / 2

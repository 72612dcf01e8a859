"""What stands: reading what is kept of each superpixel, now and as it was at an earlier moment.

What is kept is of the present moment; an earlier one differs from it only in what was said since.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from sqlalchemy import select
from sqlalchemy.orm import Session

from alc_backend.common.batches import batched
from alc_backend.store import ledger
from alc_backend.store.derived import Standing
from alc_backend.store.kinds import ANSWERS
from alc_backend.store.models import LedgerEntry, Project

AT_ONCE = 500
"""Superpixels, images or annotations that a query lists."""

STREAMED = 10_000
"""Rows in memory at once where many are read."""


def is_disputed(session: Session, superpixel_id: int) -> bool:
    """Whether annotators disagree about a superpixel and nobody has settled it."""
    which = (Standing.superpixel_id == superpixel_id, Standing.disputed.is_not(None))
    return session.scalar(select(Standing.superpixel_id).where(*which)) is not None


def disputed(session: Session, project_id: int) -> dict[int, tuple[int, ...]]:
    """The superpixels (row ids) that annotators disagree about, and the classes they gave."""
    rows = session.execute(
        select(Standing.superpixel_id, Standing.disputed)
        .where(Standing.project_id == project_id, Standing.disputed.is_not(None))
        .order_by(Standing.superpixel_id)
    )
    return {row.superpixel_id: tuple(row.disputed) for row in rows}


def settled(session: Session, project_id: int) -> Iterator[int]:
    """The superpixels (row ids) that need no query any more, in no order."""
    mine = (Standing.project_id == project_id, Standing.way.is_not(None))
    yield from session.scalars(
        select(Standing.superpixel_id).where(*mine).execution_options(yield_per=STREAMED)
    )


def settled_of(session: Session, images: Collection[int]) -> set[int]:
    """The superpixels (row ids) of some images (row ids) that need no query any more."""
    found: set[int] = set()
    for part in batched(sorted(images), AT_ONCE):
        which = (Standing.image_id.in_(part), Standing.way.is_not(None))
        found.update(session.scalars(select(Standing.superpixel_id).where(*which)))
    return found


def settled_among(session: Session, superpixels: Collection[int]) -> set[int]:
    """Those of some superpixels (row ids) that need no query any more."""
    found: set[int] = set()
    for part in batched(sorted(superpixels), AT_ONCE):
        which = (Standing.superpixel_id.in_(part), Standing.way.is_not(None))
        found.update(session.scalars(select(Standing.superpixel_id).where(*which)))
    return found


def settled_since(session: Session, project_id: int, position: int) -> set[int]:
    """The superpixels (row ids) that are settled, and were not after the ledger entry of an id."""
    touched = touched_since(session, project_id, position)
    overlap = session.get_one(Project, project_id).overlap
    before: set[int] = set()
    for part in batched(sorted(touched), AT_ONCE):
        entries = ledger.standing_about(session, part, position)
        before |= ledger.judge(entries, overlap).settled
    return settled_among(session, touched) - before


def touched_since(session: Session, project_id: int, position: int) -> set[int]:
    """The superpixels (row ids) of which another thing may stand since the ledger entry of an id.

    An annotation whose number is given again may be about another superpixel than before.
    """
    newer = (LedgerEntry.project_id == project_id, LedgerEntry.id > position)
    annotations = set(session.scalars(select(LedgerEntry.annotation_id).where(*newer)))
    found: set[int] = set()
    for part in batched(sorted(annotations), AT_ONCE):
        rows = session.execute(
            select(LedgerEntry.superpixel_id, LedgerEntry.changes).where(
                LedgerEntry.project_id == project_id, LedgerEntry.annotation_id.in_(part)
            )
        )
        for row in rows:
            found.update(change["superpixel"] for change in row.changes or ())
            found.add(row.superpixel_id)
    return found - {None}


def resolved_at(
    session: Session, project_id: int, position: int, overlap: int | None = None
) -> Iterator[tuple[int, int]]:
    """The superpixels that answers had resolved after the ledger entry of an id, with their images.

    Both are row ids, in no order. ``overlap`` is the number of annotators that were asked then
    (default: the present one); where it is another, the whole ledger is read.
    """
    present = session.get_one(Project, project_id).overlap
    overlap = overlap or present
    if overlap != present:
        resolved = ledger.judge(ledger.standing(session, project_id, position), overlap).resolved
        yield from ((superpixel, entry.image_id) for superpixel, entry in resolved.items())
        return
    touched = touched_since(session, project_id, position)
    for part in batched(sorted(touched), AT_ONCE):
        entries = ledger.standing_about(session, part, position)
        wanted = set(part)
        for superpixel, entry in ledger.judge(entries, overlap).resolved.items():
            if superpixel in wanted:
                yield superpixel, entry.image_id
    mine = (Standing.project_id == project_id, Standing.kind.in_(ANSWERS))
    for row in session.execute(select(Standing.superpixel_id, Standing.image_id).where(*mine)):
        if row.superpixel_id not in touched:
            yield row.superpixel_id, row.image_id

"""What came of what plans expected: pixels that were corrected beside those expected to be wrong.

Reads the ledger and what was asked; writes nothing. Called by ``rounds`` and ``overview``.
"""

from __future__ import annotations

from sqlalchemy import case, func, select, union_all
from sqlalchemy.orm import Session

from alc_backend.store import ledger
from alc_backend.store.kinds import ANSWERS, EntryKind
from alc_backend.store.models import Image, LedgerEntry, Query, Superpixel
from alc_backend.store.pages import Page, Tile

FEWEST = 20
"""Of fewer answers nothing is told."""


def came_of(session: Session, project_id: int, upto: int) -> tuple[float, int] | None:
    """The pixels that were expected to be wrong, and those corrected, both in answered superpixels.

    A superpixel that is corrected counts with all its pixels. Counted are answers in force up to
    the ledger entry ``upto`` to questions that a plan chose; None where they are fewer than FEWEST.
    """
    answers = (
        ledger.in_force(upto)
        .join(Image, Image.id == LedgerEntry.image_id)
        .where(
            LedgerEntry.project_id == project_id,
            LedgerEntry.kind.in_(ANSWERS),
            Image.removed.is_(None),
        )
        .subquery()
    )
    single = (
        select(Query.expected, answers.c.kind, Superpixel.size)
        .select_from(answers)
        .join(
            Query,
            (Query.task_id == answers.c.task_id) & (Query.superpixel_id == answers.c.superpixel_id),
        )
        .join(Superpixel, Superpixel.id == answers.c.superpixel_id)
        .where(answers.c.position == 0, ~Query.adjudication, Query.expected.is_not(None))
    )
    tiles = (
        select(Tile.expected, answers.c.kind, Superpixel.size)
        .select_from(answers)
        .join(Page, Page.task_id == answers.c.task_id)
        .join(
            Tile,
            (Tile.page_id == Page.id)
            & (Tile.position == answers.c.position)
            & (Tile.superpixel_id == answers.c.superpixel_id),
        )
        .join(Superpixel, Superpixel.id == answers.c.superpixel_id)
        .where(answers.c.position > 0, Tile.expected.is_not(None))
    )
    rows = union_all(single, tiles).subquery()
    expected, kind, size = rows.c
    corrected = case((kind == EntryKind.CORRECT, size), else_=0)
    told = session.execute(
        select(func.count(), func.sum(expected), func.sum(corrected)).select_from(rows)
    ).one()
    if told[0] < FEWEST:
        return None
    return float(told[1]), int(told[2])

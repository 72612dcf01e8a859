"""What the machine would write by itself, and how often people say that it is right.

Single questions drawn at random measure it. Reads the ledger and queries; writes nothing. Called by
``planning`` and ``relabelling``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from alc_backend.common.batches import batched
from alc_backend.core.draws import chance
from alc_backend.core.intervals import clopper_pearson_low
from alc_backend.loop.questions.learning import Learnt
from alc_backend.store.kinds import EntryKind
from alc_backend.store.ledger import Judgement
from alc_backend.store.models import Image, LedgerEntry, Query, Round, Superpixel

AUDIT_SHARE = 0.1
"""The share of the superpixels that a plan asks about that are drawn at random."""

LEAST_PROBABILITY = 0.7
"""A class is proposed to be written where it is at least so likely."""

AT_ONCE = 500
"""Superpixels that a query lists."""

NONE = -1
"""In place of a class id: nothing is proposed."""


def proposed(learnt: Learnt) -> NDArray[np.intp]:
    """The class that the machine would write over each superpixel, int (N,); NONE where none.

    It is the likeliest one, where it is likely enough, not the present label and not ruled out.
    """
    if not len(learnt.beliefs):
        return np.zeros(0, dtype=np.intp)
    likeliest = learnt.beliefs.argmax(axis=1)
    rows = np.arange(len(likeliest))
    sure = learnt.beliefs[rows, likeliest] >= LEAST_PROBABILITY
    sure &= (likeliest != learnt.traits.labels) & ~learnt.known.ruled_out[rows, likeliest]
    return np.where(sure, likeliest, NONE)


def drawn(
    session: Session,
    round_: Round,
    judged: Judgement,
    learnt: Learnt,
    closed: NDArray[np.intp],
    many: int,
) -> dict[int, int]:
    """Up to ``many`` superpixels to ask about at random, by index, and what is proposed of each.

    They are drawn from those with a proposal and those that rest on the machine's own word, settled
    and ``closed`` ones (indices) left out. Which are drawn first follows from the image's key, the
    superpixel's number and the round.
    """
    about = proposed(learnt)
    for row_id in judged.rests_on_machine & learnt.place.keys():
        there, class_id = learnt.place[row_id], judged.machine[row_id].class_id
        if about[there] == NONE and class_id is not None:
            about[there] = class_id
    about[closed] = NONE
    about[[learnt.place[row_id] for row_id in judged.settled & learnt.place.keys()]] = NONE
    candidates = {int(learnt.traits.superpixels[i]): int(i) for i in np.flatnonzero(about != NONE)}
    named = select(Superpixel.id, Image.key, Superpixel.number).join(Image)
    ordered = sorted(
        (chance(f"audit/{key}/{number}", round_.number), key, number, candidates[row_id])
        for part in batched(sorted(candidates), AT_ONCE)
        for row_id, key, number in session.execute(named.where(Superpixel.id.in_(part)))
    )
    return {index: int(about[index]) for *_, index in ordered[:many]}


@dataclass
class Audit:
    """How often a class was ``right`` of the ``asked`` random questions that people answered."""

    asked: int = 0
    right: int = 0

    @property
    def bound(self) -> float:
        """The precision that is reached with 95 % confidence."""
        return clopper_pearson_low(self.right, self.asked)


def audits(
    session: Session, project_id: int, judged: Judgement, standing: Iterable[LedgerEntry]
) -> Mapping[tuple[int, int], Audit]:
    """The audits of a project, by the number of the round and the class id.

    A question drawn about what the machine had written before counts for the round that wrote it;
    any other for the round that drew it. One that is not resolved counts where the class was ruled
    out.
    """
    refused = {
        (entry.superpixel_id, entry.proposed)
        for entry in standing
        if entry.kind == EntryKind.RULED_OUT
    }
    wrote = written(session, project_id)
    questions = session.scalars(
        select(Query)
        .join(Round, Round.id == Query.round_id)
        .where(Round.project_id == project_id, Query.audited.is_not(None), ~Query.adjudication)
        .order_by(Query.id)
    )
    found: dict[tuple[int, int], Audit] = {}
    for query in questions:
        assert query.audited is not None
        answer = judged.resolved.get(query.superpixel_id)
        if answer is None and (query.superpixel_id, query.audited) not in refused:
            continue
        drawn_in = query.question_round
        counted_in = wrote.get((query.superpixel_id, query.audited), drawn_in)
        audit = found.setdefault((min(counted_in, drawn_in), query.audited), Audit())
        audit.asked += 1
        audit.right += answer is not None and answer.class_id == query.audited
    return found


def written(session: Session, project_id: int) -> dict[tuple[int, int], int]:
    """The round (number) in which the machine last wrote a class over a superpixel (row id).

    Batches that were withdrawn are among them.
    """
    rows = session.execute(
        select(LedgerEntry.superpixel_id, LedgerEntry.class_id, func.max(LedgerEntry.round_number))
        .where(LedgerEntry.project_id == project_id, LedgerEntry.kind == EntryKind.MACHINE)
        .group_by(LedgerEntry.superpixel_id, LedgerEntry.class_id)
    )
    return {(row[0] or 0, row[1] or 0): row[2] for row in rows}

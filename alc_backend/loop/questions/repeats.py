"""Tiles that are repeated, to learn how often annotators overlook one that is wrong.

Somebody has said before that such a superpixel is of another class than its page proposes. Reads
the database; writes nothing. Called by ``planning``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from alc_backend.core.draws import chance, draw
from alc_backend.core.questions import Question
from alc_backend.loop.questions.learning import Learnt
from alc_backend.loop.questions.showing import Showing
from alc_backend.store.database import Store
from alc_backend.store.ledger import Judgement
from alc_backend.store.models import Round
from alc_backend.store.pages import Page, Tile


@dataclass(frozen=True)
class Repeat:
    """A tile that is put on a page: its superpixel's ``index``, and its ``place`` there, from 0."""

    index: int
    place: int


def with_repeats(
    store: Store,
    round_: Round,
    learnt: Learnt,
    judged: Judgement,
    closed: NDArray[np.intp],
    chosen: Sequence[Question],
    showing: Showing,
) -> tuple[list[Question], Mapping[int, Repeat]]:
    """Put a repeated tile on the share ``repeats`` of the pages among the ``chosen`` questions.

    Returns the questions, and the repeated tiles by the places of their questions in that list. A
    page that is full gives up its last tile, about which a later plan asks. Repeated is what looks
    most like the page's class to the network, every superpixel once in a project, none of the
    ``closed`` ones (indices) and none that cannot be shown. Which pages have one follows from the
    round, its plans and the seed.
    """
    questions, repeats, settings = list(chosen), dict[int, Repeat](), store.settings
    with store.reading() as session:
        named = _named(session, round_, learnt, judged, closed)
        plan = session.get_one(Round, round_.id).plans + 1
    for turn, question in enumerate(chosen):
        about = f"repeat/{round_.number}/{plan}/{turn}"
        if question.proposed is None or chance(about, settings.seed) >= settings.repeats:
            continue
        others = [index for index, class_id in named.items() if class_id != question.proposed]
        likeness = learnt.traits.predicted[others, question.proposed]
        alike = (others[place] for place in np.argsort(-likeness, kind="stable"))
        index = next((index for index in alike if len(showing.can_show([index]))), None)
        if index is None:
            continue
        del named[index]
        members = question.members[: max(1, settings.tiles - 1)]
        questions[turn] = question._replace(members=members)
        repeats[turn] = Repeat(index, draw(f"{about}/place", settings.seed) % (len(members) + 1))
    return questions, repeats


def _named(
    session: Session,
    round_: Round,
    learnt: Learnt,
    judged: Judgement,
    closed: NDArray[np.intp],
) -> dict[int, int]:
    """The classes that people named, by the indices of the superpixels that may be repeated."""
    repeated = set(
        session.scalars(
            select(Tile.superpixel_id)
            .join(Page, Page.id == Tile.page_id)
            .where(Page.project_id == round_.project_id, Tile.repeated)
        )
    )
    left_out = set(closed.tolist())
    return {
        learnt.place[row_id]: answer.class_id
        for row_id, answer in sorted(judged.resolved.items())
        if row_id in learnt.place
        and row_id not in repeated | judged.edited
        and learnt.place[row_id] not in left_out
        and answer.class_id is not None
    }

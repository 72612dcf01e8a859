"""The plan: which questions come next, as pages of look-alikes or one by one.

A plan is made when a round is published, and again whenever enough was answered to be worth
learning from. It holds what will be answered until then, and some more; behind it stands the
round's queue. Writes the pages and queries of the plan into the database; knows nothing of Label
Studio. Called by ``rounds``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from alc_backend.common.types import Progress
from alc_backend.core.conformal import candidate_sets
from alc_backend.core.proposals import is_worth_learning
from alc_backend.core.questions import Pace, Question, Questions
from alc_backend.labelstudio.tasks import PLANNED_TO
from alc_backend.loop import page_tasks, query_tasks
from alc_backend.loop.leases import Lease
from alc_backend.loop.query_tasks import Outlined
from alc_backend.loop.questions import round_traits
from alc_backend.loop.questions.auditing import AUDIT_SHARE, drawn
from alc_backend.loop.questions.learning import Learnt, learn
from alc_backend.loop.questions.pace import measured_pace, newest
from alc_backend.loop.questions.repeats import Repeat, with_repeats
from alc_backend.loop.questions.showing import Showing
from alc_backend.store import ledger, tallies
from alc_backend.store.database import Store
from alc_backend.store.derived import Counted
from alc_backend.store.ledger import Judgement
from alc_backend.store.models import (
    Image,
    LedgerEntry,
    Project,
    Query,
    Round,
    Superpixel,
)
from alc_backend.store.pages import Page, Tile
from alc_backend.store.upkeep import TAUGHT
from alc_backend.store.warnings import warn

MOST = 0.95
"""The share of all expected gain by which the remaining work is told."""

AHEAD = 60
"""Superpixels that a plan asks about beyond those after which the next one is made: annotators work
on while it is."""


@dataclass(frozen=True)
class Plan:
    """A plan that is written: its ``number`` within the round, from 1.

    ``position`` is the id of the last ledger entry that it took into account; ``queries`` are the
    row ids of its single questions; ``learnt`` is what it was made of.
    """

    number: int
    position: int
    queries: list[int]
    learnt: Learnt


def is_due(session: Session, round_: Round) -> bool:
    """Whether an open round's next plan is to be made: it has none, or much was answered since."""
    if round_.config.questions == "single":
        return False
    if round_.planned_to is None:
        return True
    counted = select(func.count()).where(
        LedgerEntry.project_id == round_.project_id,
        LedgerEntry.id > round_.planned_to,
        LedgerEntry.kind.in_(TAUGHT),
        ledger.BY_PEOPLE,  # what the machine withdraws teaches nothing
    )
    new = session.scalar(counted) or 0
    known = tallies.count(session, round_.project_id, Counted.TAUGHT)
    return is_worth_learning(new, 0) and is_worth_learning(new, known)


def make_plan(store: Store, round_: Round, lease: Lease, progress: Progress) -> Plan:
    """Decide what is asked next, and write it down.

    What cannot be shown is left out, which the round's warning tells. Deterministic: the same
    ledger and traits give the same plan. Raises CancelledError when another worker has taken the
    part over.
    """
    traits, is_part = round_traits.plannable(store, round_, progress)
    progress(0, 3, "learning from the answers")
    with store.reading() as session:
        project = session.get_one(Project, round_.project_id)
        position = ledger.position(session, project.id)
        if is_part:
            standing = ledger.standing_about(session, traits.superpixels.tolist())
        else:
            standing = ledger.standing(session, project.id)
        pace = measured_pace(newest(session, project.id), Pace(**store.settings.seconds))
    judged = ledger.judge(standing, project.overlap)
    learnt = learn(store, round_, traits, judged, standing)
    many = _superpixels_of_plan(len(learnt.known.members) + int(learnt.known.ruled_out.sum()))
    with store.reading() as session:
        closed = not_to_be_asked(session, project, round_, judged, learnt)
        audited: dict[int, int] = {}
        if store.settings.relabel == "audited":
            share = round(many * AUDIT_SHARE)
            audited = drawn(session, round_, judged, learnt, closed, share)
    questions = Questions(
        learnt.traits.labels,
        learnt.traits.sizes,
        learnt.traits.doubt,
        learnt.traits.class_pixels,
        learnt.beliefs,
        pace=pace,
        tiles=store.settings.tiles,
        kind=round_.config.questions,
    )
    for row_id in judged.settled & learnt.place.keys():
        questions.answer(learnt.place[row_id])
    questions.set_aside(Question(closed, None))
    for index, class_id in np.argwhere(learnt.known.ruled_out):
        questions.rule_out(int(index), int(class_id))
    worthwhile = questions.holding(MOST)
    audits = [Question(np.array([index], dtype=np.intp), None) for index in audited]
    for audit in audits:
        questions.set_aside(audit)
    showing = Showing(store, project.id, learnt)
    chosen = _mixed(_choose(questions, showing, many - len(audits)), audits)
    chosen, repeats = with_repeats(store, round_, learnt, judged, closed, chosen, showing)
    items = _described(store, learnt, chosen, [repeat.index for repeat in repeats.values()])
    singles = [items[int(q.members[0])] for q in chosen if q.proposed is None]
    query_tasks.draw_outlines(store, round_.project_id, singles, lease.session, progress)
    number, queries = _persist(lease, round_, learnt, chosen, items, audited, repeats)
    with lease.session() as session:
        session.get_one(Round, round_.id).worthwhile = worthwhile
        for problem in showing.problems:
            warn(session, round_.id, problem)
    return Plan(number, position, queries, learnt)


def not_to_be_asked(
    session: Session, project: Project, round_: Round, judged: Judgement, learnt: Learnt
) -> NDArray[np.intp]:
    """The indices of superpixels that a plan leaves alone.

    They are too small, disputed (adjudication asks), on a page that waits for more annotators, or
    of images that are out of the dataset or not in Label Studio.
    """
    out = set(judged.disputed)
    gone = (
        select(Superpixel.id)
        .join(Image, Image.id == Superpixel.image_id)
        .where(Image.project_id == project.id, Image.removed.is_not(None) | Image.url.is_(None))
    )
    out.update(session.scalars(gone))
    if project.overlap > 1 and project.query_project is not None:
        begun = (
            select(Tile.superpixel_id)
            .join(Page, Page.id == Tile.page_id)
            .where(Page.project_id == project.id, Page.closed_at.is_(None))
            .where(page_tasks.is_answered(project.query_project))
        )
        out.update(set(session.scalars(begun)) & judged.waiting)
    indices = {learnt.place[row_id] for row_id in out & learnt.place.keys()}
    indices.update(np.flatnonzero(learnt.traits.sizes < round_.config.min_area).tolist())
    return np.array(sorted(indices), dtype=np.intp)


def _superpixels_of_plan(known: int) -> int:
    """How many superpixels a plan asks about: what makes another one worth while, and AHEAD."""
    news = 0
    while not is_worth_learning(news, known):
        news += 1
    return news + AHEAD


def _choose(questions: Questions, showing: Showing, left: int) -> list[Question]:
    """The next questions, until they ask about as many superpixels as are ``left``."""
    chosen: list[Question] = []
    while left > 0 and (question := questions.next()) is not None:
        questions.set_aside(question)
        members = showing.can_show(question.members)
        if len(members):
            chosen.append(question._replace(members=members))
        left -= len(members)
    return chosen


def _mixed(chosen: list[Question], audits: list[Question]) -> list[Question]:
    """Both kinds of questions, each in its order, evenly spread among each other."""
    turns = [
        ((turn + 0.5) / len(kind), question)
        for kind in (chosen, audits)
        for turn, question in enumerate(kind)
    ]
    return [question for _, question in sorted(turns, key=lambda turn: turn[0])]


def _described(
    store: Store, learnt: Learnt, chosen: Sequence[Question], more: Sequence[int]
) -> dict[int, Outlined]:
    """The superpixels of the questions, and ``more`` (indices), by their index."""
    members = [int(index) for question in chosen for index in question.members]
    ids = [int(learnt.traits.superpixels[index]) for index in (*members, *more)]
    with store.reading() as session:
        rows = session.execute(
            select(
                Superpixel.id, Superpixel.number, Image.id, Image.key, Superpixel.shape.is_not(None)
            )
            .join(Image, Image.id == Superpixel.image_id)
            .where(Superpixel.id.in_(ids))
        )
        return {learnt.place[row[0]]: Outlined(*row) for row in rows}


def _persist(
    lease: Lease,
    round_: Round,
    learnt: Learnt,
    chosen: Sequence[Question],
    items: dict[int, Outlined],
    audited: Mapping[int, int],
    repeats: Mapping[int, Repeat],
) -> tuple[int, list[int]]:
    """Write the questions; returns the plan's number and the row ids of its single questions.

    ``audited`` are those drawn at random, by index, with the class that is proposed; ``repeats``
    the repeated tiles, by the places of their pages among the questions.
    """
    singles = [int(question.members[0]) for question in chosen if question.proposed is None]
    sets = candidate_sets(learnt.beliefs[singles], learnt.held_out)
    likely = dict(zip(singles, sets, strict=True))
    queries: list[Query] = []
    with lease.session() as session:
        row = session.get_one(Round, round_.id)
        row.plans += 1
        first, end = PLANNED_TO / (row.plans + 1), PLANNED_TO / row.plans
        last = session.scalar(select(func.max(Query.rank)).where(Query.round_id == row.id))
        for turn, question in enumerate(chosen):
            place = first + (end - first) * turn / len(chosen)
            if question.proposed is not None:
                _write_page(session, row, learnt, question, items, place, repeats.get(turn))
                continue
            (index,) = (int(member) for member in question.members)
            rank = (-1 if last is None else last) + 1 + turn
            about = audited.get(index)
            query = _write_query(session, row, learnt, index, items[index], rank, about)
            query.place, query.likely = place, likely[index] or query.likely
            query.expected = learnt.expected_pixels(index)
            queries.append(query)
        session.flush()
        return row.plans, [query.id for query in queries]


def _write_query(
    session: Session,
    round_: Round,
    learnt: Learnt,
    index: int,
    item: Outlined,
    rank: int,
    audited: int | None,
) -> Query:
    """The query about a superpixel, in the round's queue; one that is there keeps its turn.

    One that is ``audited`` asks what this round found, whatever it asked before.
    """
    traits = learnt.traits
    query = session.scalars(
        select(Query).where(Query.superpixel_id == item.superpixel_id, ~Query.adjudication)
    ).first() or Query(superpixel_id=item.superpixel_id, adjudication=False)
    if query.id is None:
        session.add(query)
    earlier = query.round_id != round_.id or query.chosen_in is not None
    if query.round_id != round_.id or (audited is not None and earlier):
        query.round_id, query.rank, query.chosen_in = round_.id, rank, None
        query.audited = None
        query.score = float(traits.doubt[index]) * int(traits.sizes[index])
        query.row, query.col = int(traits.rows[index]), int(traits.cols[index])
        query.pseudo_label = int(traits.labels[index])
    if audited is not None:
        query.audited = audited
    return query


def _write_page(
    session: Session,
    round_: Round,
    learnt: Learnt,
    question: Question,
    items: dict[int, Outlined],
    place: float,
    repeat: Repeat | None,
) -> None:
    """The page that asks this, as a part of the round's present plan."""
    members = [int(index) for index in question.members]
    if repeat is not None:
        members.insert(repeat.place, repeat.index)
    about = [
        round_.number,
        question.proposed,
        [(items[i].image_key, items[i].number) for i in members],
        None if repeat is None else repeat.place,
    ]
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]
    known = select(Page).where(Page.project_id == round_.project_id, Page.key == key)
    page = session.scalars(known).first()
    if page is None:
        assert question.proposed is not None
        page = Page(project_id=round_.project_id, round_id=round_.id, key=key)
        page.proposed = question.proposed
        traits = learnt.traits
        page.tiles = [
            Tile(
                position=position,
                superpixel_id=items[index].superpixel_id,
                row=int(traits.rows[index]),
                col=int(traits.cols[index]),
                pseudo_label=int(traits.labels[index]),
                expected=learnt.expected_pixels(index),
                repeated=repeat is not None and index == repeat.index,
            )
            for position, index in enumerate(members, start=1)
        ]
        session.add(page)
    page.plan, page.place = round_.plans, place

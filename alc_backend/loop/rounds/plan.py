"""What there is to do: the parts of a round's steps, and whether a chore of an open round is due.

Reads the database and nothing else; changes nothing. Called by ``work_items``, ``lifecycle``,
``executor`` and ``cleanup``; calls none of them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import timedelta
from itertools import pairwise

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from alc_backend.common.types import Json
from alc_backend.core.draws import fold_of
from alc_backend.loop.questions import planning
from alc_backend.store.models import (
    TRAIN,
    VAL,
    Image,
    LedgerEntry,
    Part,
    Project,
    Query,
    Round,
    utc_now,
)
from alc_backend.store.pages import Page
from alc_backend.store.round_states import RoundState, Step

SHARD_IMAGES = 50
"""Images of one part of the scoring."""

HELD = timedelta(hours=24)
"""How long Label Studio reserves a task for the annotator who opened it.

What was taken out of the queue longer ago is on nobody's screen.
"""


@dataclass(frozen=True)
class Work:
    """What one part of a step is to do.

    ``images`` (ids) are to be scored by the network that has not seen ``fold``, or by the one
    trained on everything when that is None. A part of the scoring without images measures the
    network; the other steps have one part, which does the whole step. ``total`` is how much there
    is to do, where it is known beforehand.
    """

    images: list[int] = field(default_factory=list)
    fold: int | None = None
    total: int = 0

    def as_json(self) -> Json:
        """The values as JSON types, for the database."""
        return asdict(self)

    @classmethod
    def of_json(cls, values: Json) -> Work:
        """Read what :meth:`as_json` gave."""
        return cls(**values)


def works_of(session: Session, round_: Round, state: RoundState) -> list[Work]:
    """The work of each part of a state's step: the scoring is spread over several parts."""
    return scoring_works(session, round_) if state == RoundState.SCORING else [Work()]


def scoring_works(session: Session, round_: Round) -> list[Work]:
    """The parts of a round's scoring: first measuring the network, then shards of its images.

    The images of a shard are scored by the same network, the one that has not seen them.
    """
    known = select(Image.id, Image.key).where(Image.project_id == round_.project_id)
    held_out = session.execute(known.where(Image.split == VAL)).all()
    by_fold: dict[int | None, list[int]] = {}
    folds, seed = round_.config.folds, round_.config.training.seed
    corrected = known.where(Image.split == TRAIN, Image.removed.is_(None))
    for image in session.execute(corrected.order_by(Image.key)):
        fold = fold_of(image.key, seed, folds) if folds > 1 else None
        by_fold.setdefault(fold, []).append(image.id)
    works = [Work(total=len(held_out))]
    for fold, images in by_fold.items():
        for first in range(0, len(images), SHARD_IMAGES):
            shard = images[first : first + SHARD_IMAGES]
            works.append(Work(shard, fold, len(shard)))
    return works


def chore_is_due_again(session: Session, part: Part) -> bool:
    """Whether a chore that was just done has more to do, which came up meanwhile."""
    round_ = session.get_one(Round, part.round_id)
    if part.step == Step.PLANNING:
        return planning.is_due(session, round_)
    return round_.unasked if part.step == Step.ASKING else cleanup_is_due(session, round_)


def cleanup_is_due(session: Session, round_: Round) -> bool:
    """Whether earlier rounds of an open round's project left something that can be removed."""
    return bool(
        replaced_rounds(session, round_)
        or closed_queries(session, round_)
        or closed_pages(session, round_)
    )


def replaced_rounds(session: Session, round_: Round) -> list[Round]:
    """The project's rounds whose predictions can be removed: replaced longer ago than HELD."""
    found = session.scalars(
        select(Round)
        .where(Round.project_id == round_.project_id, Round.opened_at.is_not(None))
        .order_by(Round.number)
    ).all()
    return [
        old
        for old, following in pairwise(found)
        if not old.pruned and following.opened_at and following.opened_at < utc_now() - HELD
    ]


def closed_queries(session: Session, round_: Round) -> list[Query]:
    """The queries of earlier rounds whose tasks were closed longer ago than HELD.

    Those that were ever answered are left out: their tasks hold the annotations. (That of an answer
    on a page is held by the page's.)
    """
    answered = exists().where(
        LedgerEntry.superpixel_id == Query.superpixel_id,
        LedgerEntry.adjudication == Query.adjudication,
        LedgerEntry.position == 0,
    )
    queries = (
        select(Query)
        .join(Round, Round.id == Query.round_id)
        .where(
            Round.project_id == round_.project_id,
            Query.round_id != round_.id,
            Query.task_id.is_not(None),
            Query.closed_at < utc_now() - HELD,
            ~answered,
        )
        .order_by(Query.id)
    )
    return list(session.scalars(queries))


def closed_pages(session: Session, round_: Round) -> list[Page]:
    """The pages whose tasks were closed longer ago than HELD, but for those of the last plan.

    Those that were ever answered, or skipped, are left out: their tasks hold the annotations.
    """
    project, last = session.get_one(Project, round_.project_id), session.get_one(Round, round_.id)
    if project.query_project is None:
        return []
    said = exists().where(
        LedgerEntry.label_studio_project == project.query_project,
        LedgerEntry.task_id == Page.task_id,
    )
    pages = (
        select(Page)
        .where(
            Page.project_id == project.id,
            (Page.round_id != last.id) | (Page.plan < last.plans),
            Page.task_id.is_not(None),
            Page.closed_at < utc_now() - HELD,
            ~said,
        )
        .order_by(Page.id)
    )
    return list(session.scalars(pages))

"""plan."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Any

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from alc_backend.core.draws import fold_of
from alc_backend.store.models import (
    TRAIN,
    VAL,
    Image,
    LedgerEntry,
    Part,
    Query,
    Round,
    utc_now,
)
from alc_backend.store.round_states import RoundState, Step

SHARD_IMAGES = 50
"""Images of one part of the scoring."""


def shards(session: Session, round_: Round) -> list[dict[str, Any]]:
    """The parts of a round's scoring: measuring the network, and shards of images to score.

    A shard's images are scored by the same network, the one that has not seen them.
    """
    known = select(Image.id, Image.key).where(Image.project_id == round_.project_id)
    held_out = session.execute(known.where(Image.split == VAL)).all()
    by_fold: dict[int | None, list[int]] = {}
    for image in session.execute(known.where(Image.split == TRAIN).order_by(Image.key)):
        fold = _fold(round_, image.key) if round_.config.folds > 1 else None
        by_fold.setdefault(fold, []).append(image.id)
    works: list[dict[str, Any]] = [{"measure": True, "total": len(held_out)}]
    for fold, images in by_fold.items():
        for first in range(0, len(images), SHARD_IMAGES):
            shard = images[first : first + SHARD_IMAGES]
            works.append({"images": shard, "fold": fold, "total": len(shard)})
    return works


def _fold(round_: Round, key: str) -> int:
    return fold_of(key, round_.config.training.seed, round_.config.folds)


def is_due_again(session: Session, part: Part) -> bool:
    """Whether a chore that was just done is to be done again."""
    round_ = session.get_one(Round, part.round_id)
    return round_.unasked if part.step == Step.ASKING else cleanup_is_due(session, round_)


def parts_of(session: Session, round_: Round, state: RoundState) -> list[dict[str, Any]]:
    """What each part of a state's work is to do; the scoring is spread over several."""
    return shards(session, round_) if state == RoundState.SCORING else [{}]


HELD = timedelta(hours=24)
"""How long Label Studio keeps a fetched task for its annotator; what is older is on no screen."""


def cleanup_is_due(session: Session, round_: Round) -> bool:
    """Whether something of an open round's project is to be cleared away."""
    return bool(replaced_rounds(session, round_) or closed_queries(session, round_))


def replaced_rounds(session: Session, round_: Round) -> list[Round]:
    """The rounds whose predictions were replaced longer ago than a screen may show them."""
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
    """The queries whose tasks were closed so long ago that they are on no screen.

    None that was ever answered: its task holds the annotation.
    """
    answered = exists().where(
        LedgerEntry.superpixel_id == Query.superpixel_id,
        LedgerEntry.adjudication == Query.adjudication,
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

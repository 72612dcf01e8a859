"""Choosing the batch of a round: its queries and their order.

Filter what is settled of the candidates, rank the rest, draw the outlines of what is asked about
the first time, and persist the queue as rows of queries. Touches the database and reads superpixel
maps; knows nothing of Label Studio's tasks. Called by ``publishing``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from alc_backend.common.batches import batched
from alc_backend.common.types import Json
from alc_backend.core import selection
from alc_backend.errors import RoundError
from alc_backend.loop import query_tasks
from alc_backend.loop.rounds import candidates
from alc_backend.loop.rounds.candidates import Candidates
from alc_backend.loop.rounds.progress import Reporter
from alc_backend.store import standing
from alc_backend.store.database import Store
from alc_backend.store.models import Image, LedgerEntry, Query, Round, Score, Superpixel
from alc_backend.store.round_config import RoundConfig

AT_ONCE = 500
"""Superpixels that a query to the database lists."""


@dataclass(frozen=True)
class Candidate:
    """A superpixel that a round has scored.

    ``score`` is comparable over the whole dataset; ``superpixel_id`` and ``image_id`` are row ids,
    ``number`` is the id in the superpixel map; ``row`` and ``col`` are the representative pixel;
    ``has_outline``: it was asked about before. ``image_url`` is None while the image is not in
    Label Studio.
    """

    score: float
    superpixel_id: int
    number: int
    row: int
    col: int
    pseudo_label: int
    likely: list[int] | None
    has_outline: bool
    image_id: int
    image_key: str
    image_url: str | None


@dataclass(frozen=True)
class Choice:
    """A candidate in a round's queue.

    ``proposed`` are the classes that annotators disagree about, where it is to be adjudicated;
    None for a question that is put for the first time, or again.
    """

    candidate: Candidate
    proposed: tuple[int, ...] | None = None

    @property
    def adjudication(self) -> bool:
        """Whether annotators disagree about it."""
        return self.proposed is not None


def choose_batch(store: Store, round_: Round, report: Reporter) -> str | None:
    """Write the round's queue into the queries: disputes, the best B, older unanswered ones.

    Returns what an admin should know about superpixels that were left out, or None. Raises
    RoundError when an image of the queue is not where annotators see it.
    """
    found = candidates.load(store, round_, report)
    with store.reading() as session:
        disputes = standing.disputed(session, round_.project_id)
        disputed = found.are(disputes)
        is_open = ~(disputed | found.are(standing.settled(session, round_.project_id)))
        kept = found.are(_queries_to_keep(session, round_.project_id, store.settings.fallen_out))
        first = disputed.nonzero()[0]
        first = first[np.argsort(-found.scores[first], kind="stable")]
        ordered = _rank(found, is_open, round_.config, store.settings.gap, kept)
        items = _described(session, round_, found, np.concatenate((first, ordered)))
    queue = [
        Choice(item, disputes[item.superpixel_id] if place < len(first) else None)
        for place, item in enumerate(items)
    ]
    for item in items:
        if item.image_url is None:
            raise RoundError(
                f"image {item.image_key} is not where annotators see it; run `alc init` again, as "
                "at first, to bring it there"
            )
    asked = [
        query_tasks.Outlined(
            item.superpixel_id, item.number, item.image_id, item.image_key, item.has_outline
        )
        for item in items
    ]
    query_tasks.draw_outlines(store, round_.project_id, asked, report.session, report)
    _persist(report, round_, queue)
    return _what_is_left_out(found, is_open, ordered, round_.config.min_area, bool(queue))


def _described(
    session: Session, round_: Round, found: Candidates, chosen: NDArray[np.intp]
) -> list[Candidate]:
    """What a round knows of some candidates (indices), in their order."""
    rows: dict[int, Mapping[str, Any]] = {}
    for part in batched(found.superpixels[chosen].tolist(), AT_ONCE):
        scored = session.execute(
            select(
                Score.superpixel_id, Superpixel.number, Score.row, Score.col, Score.pseudo_label,
                Score.likely, Superpixel.shape.is_not(None).label("has_outline"),
                Image.id.label("image_id"), Image.key.label("image_key"),
                Image.url.label("image_url"),
            )
            .join(Superpixel, Superpixel.id == Score.superpixel_id)
            .join(Image, Image.id == Superpixel.image_id)
            .where(Score.round_id == round_.id, Score.superpixel_id.in_(part))
        )  # fmt: skip
        rows.update((row["superpixel_id"], {**row}) for row in scored.mappings())
    return [
        Candidate(score=float(found.scores[index]), **rows[int(found.superpixels[index])])
        for index in chosen
    ]


def _queries_to_keep(session: Session, project_id: int, fallen_out: str) -> set[int]:
    """The superpixels (row ids) whose queries stay in the queue though not among the best.

    All that were asked about, or with ``fallen_out`` "remove" those that were ever answered or
    skipped; what was said on a page is no answer to them.
    """
    asked = set(
        session.scalars(
            select(Query.superpixel_id)
            .join(Round, Round.id == Query.round_id)
            .where(Round.project_id == project_id, ~Query.adjudication)
        )
    )
    if fallen_out == "keep":
        return asked
    answered = select(LedgerEntry.superpixel_id).where(
        LedgerEntry.project_id == project_id,
        LedgerEntry.superpixel_id.is_not(None),
        LedgerEntry.position == 0,
    )
    return asked.intersection(session.scalars(answered))


def _rank(
    found: Candidates,
    is_open: NDArray[np.bool_],
    config: RoundConfig,
    gap: int,
    kept: NDArray[np.bool_],
) -> NDArray[np.intp]:
    """The best candidates (indices), spread over images, then those that are ``kept``.

    They are among those that are open; ``is_open`` and ``kept`` are bool (M,).
    """
    large = (is_open & (found.sizes >= config.min_area)).nonzero()[0]
    best = large[
        selection.best(found.scores[large], found.images[large], config.size, config.per_image)
    ]
    index_of = {
        selection.Scored(
            float(found.scores[index]), str(found.images[index]), int(found.numbers[index]),
            int(found.sizes[index]),
        ): index
        for index in best
    }  # fmt: skip
    ordered = [index_of[item] for item in selection.spread(list(index_of), gap)]
    left = is_open & kept
    left[best] = False
    older = left.nonzero()[0]
    older = older[np.argsort(-found.scores[older], kind="stable")]
    return np.concatenate((np.array(ordered, dtype=np.intp), older))


def _persist(report: Reporter, round_: Round, queue: Sequence[Choice]) -> None:
    """Write the queue, best first: the queries that are known change, the others are added."""
    with report.session() as session:
        known = _known(session, [choice.candidate.superpixel_id for choice in queue])
        old: list[Json] = []
        new: list[Json] = []
        for rank, choice in enumerate(queue):
            item = choice.candidate
            values = {
                "superpixel_id": item.superpixel_id,
                "adjudication": choice.adjudication,
                "proposed": None if choice.proposed is None else list(choice.proposed),
                "round_id": round_.id,
                "chosen_in": None,
                "rank": rank,
                "place": None,
                "expected": None,
                "audited": None,
                "score": item.score,
                "row": item.row,
                "col": item.col,
                "pseudo_label": item.pseudo_label,
                "likely": item.likely,
            }
            query_id = known.get((item.superpixel_id, choice.adjudication))
            if query_id is None:
                new.append(values)
            else:
                old.append({**values, "id": query_id})
        if old:
            session.execute(update(Query), old)
        if new:
            session.execute(insert(Query), new)


def _known(session: Session, superpixels: Collection[int]) -> Mapping[tuple[int, bool], int]:
    """The queries (row ids) about some superpixels (row ids), by whether they are adjudications."""
    found = {}
    for part in batched(superpixels, AT_ONCE):
        rows = session.execute(
            select(Query.superpixel_id, Query.adjudication, Query.id).where(
                Query.superpixel_id.in_(part)
            )
        )
        found.update({(row.superpixel_id, row.adjudication): row.id for row in rows})
    return found


def _what_is_left_out(
    found: Candidates,
    is_open: NDArray[np.bool_],
    ordered: NDArray[np.intp],
    min_area: int,
    asked: bool,
) -> str | None:
    """A sentence about superpixels that are too small, or when there is nothing to ask."""
    small = is_open & (found.sizes < min_area)
    small[ordered] = False
    if too_small := int(small.sum()):
        return f"{too_small} superpixels of fewer than {min_area} pixels are not asked about"
    return None if asked else "every superpixel has been answered"

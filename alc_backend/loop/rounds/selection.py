"""Choosing the batch of a round: its queries and their order.

Load the scores, filter what is settled, rank the rest, draw the outlines of what is asked about the
first time, and persist the queue as rows of queries. Touches the database and reads superpixel and
label maps; knows nothing of Label Studio's tasks. Called by ``publishing``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Row, insert, select, update
from sqlalchemy.orm import Session

from alc_backend.common.types import Json
from alc_backend.core import acquisition, selection
from alc_backend.core.arrays import VOID
from alc_backend.errors import RoundError
from alc_backend.loop import query_tasks
from alc_backend.loop.rounds.progress import Reporter
from alc_backend.loop.task_sync import select_queries
from alc_backend.store import ledger
from alc_backend.store.database import Store
from alc_backend.store.label_maps import LabelMaps
from alc_backend.store.models import TRAIN, Image, LedgerEntry, Query, Round, Score, Superpixel
from alc_backend.store.round_config import RoundConfig


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
    size: int
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
    RoundError when an image of the queue is not in Label Studio.
    """
    candidates = _load_candidates(store, round_, report)
    with store.reading() as session:
        judged = ledger.judgement(session, round_.project_id)
        kept = _queries_to_keep(session, round_.project_id, store.settings.fallen_out)
    disputed = [item for item in candidates if item.superpixel_id in judged.disputed]
    out = judged.settled | judged.disputed.keys()
    unsettled = [item for item in candidates if item.superpixel_id not in out]
    ordered = _rank(unsettled, round_.config, store.settings.gap, kept)
    disputed.sort(key=lambda item: (-item.score, item.image_key, item.number))
    queue = [Choice(item, judged.disputed[item.superpixel_id]) for item in disputed]
    queue += [Choice(item) for item in ordered]
    for choice in queue:
        if choice.candidate.image_url is None:
            raise RoundError(
                f"image {choice.candidate.image_key} is not in Label Studio; run `alc init` again "
                "to upload it"
            )
    asked = [
        query_tasks.Outlined(
            item.superpixel_id, item.number, item.image_id, item.image_key, item.has_outline
        )
        for item in (choice.candidate for choice in queue)
    ]
    query_tasks.draw_outlines(store, round_.project_id, asked, report.session, report)
    _persist(report, round_, queue)
    return _what_is_left_out(unsettled, ordered, round_.config.min_area, bool(queue))


def _load_candidates(store: Store, round_: Round, report: Reporter) -> list[Candidate]:
    """What the round has scored, by image key, then superpixel number."""
    with store.reading() as session:
        rows = session.execute(
            select(
                Score.superpixel_id, Superpixel.number, Superpixel.size, Score.row, Score.col,
                Score.pseudo_label, Score.likely, Superpixel.shape.is_not(None),
                Image.id, Image.key, Image.url, Score.score, Score.dominant,
            )
            .join(Superpixel, Superpixel.id == Score.superpixel_id)
            .join(Image, Image.id == Superpixel.image_id)
            .where(Score.round_id == round_.id, Image.removed.is_(None))
        ).all()  # fmt: skip
    rows = sorted(rows, key=lambda row: (row.key, row.number))  # not by the database's locale
    scores = _comparable_scores(store, round_, rows, report)
    return [Candidate(score, *row[:-2]) for score, row in zip(scores, rows, strict=True)]


def _comparable_scores(
    store: Store, round_: Round, rows: Sequence[Row[Any]], report: Reporter
) -> list[float]:
    """The scores of the round, made comparable over the dataset where the acquisition asks it."""
    name = round_.config.acquisition
    if acquisition.ACQUISITIONS[name].compare is None:
        return [row.score for row in rows]
    measured = acquisition.Measured(
        np.array([row.score for row in rows]),
        np.array([row.pseudo_label for row in rows], dtype=np.uint8),
        np.array([row.dominant for row in rows], dtype=np.uint8),
        np.array([row.size for row in rows], dtype=np.int64),
        _class_pixels(store, round_, report),
    )
    scores: list[float] = acquisition.compare(measured, name).tolist()
    return scores


def _class_pixels(store: Store, round_: Round, report: Reporter) -> NDArray[np.int64]:
    """How many pixels the label maps, as they are now, give each class."""
    with store.reading() as session:
        maps = LabelMaps(session, store.files(round_.project_id), round_.project_id)
    counts = np.zeros(VOID + 1, dtype=np.int64)
    for image in store.images(round_.project_id, TRAIN):
        report(0, 3, f"choosing the batch: counting pixels of {image.key}")
        counts += np.bincount(maps.read(image.id).ravel(), minlength=VOID + 1)
    return counts[: len(round_.project.classes)]


def _queries_to_keep(session: Session, project_id: int, fallen_out: str) -> set[int]:
    """The superpixels (row ids) whose queries stay in the queue though not among the best.

    All that were asked about, or with ``fallen_out`` "remove" those that were ever answered or
    skipped; what was said on a page is no answer to them.
    """
    asked = set(
        session.scalars(select_queries(project_id, Query.superpixel_id).where(~Query.adjudication))
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
    candidates: Sequence[Candidate], config: RoundConfig, gap: int, kept: set[int]
) -> list[Candidate]:
    """The best candidates, spread over images, then those whose superpixel (row id) is ``kept``."""
    by_key = {(item.image_key, item.number): item for item in candidates}
    scored = [
        selection.Scored(item.score, item.image_key, item.number, item.size) for item in candidates
    ]
    best = selection.top(scored, config.size, per_image=config.per_image, min_area=config.min_area)
    best = selection.spread(best, gap)
    chosen = set(best)
    older = [
        item
        for item in selection.ranked(scored)
        if item not in chosen and by_key[item.key, item.superpixel].superpixel_id in kept
    ]
    return [by_key[item.key, item.superpixel] for item in (*best, *older)]


def _persist(report: Reporter, round_: Round, queue: Sequence[Choice]) -> None:
    """Write the queue, best first: the queries that are known change, the others are added."""
    with report.session() as session:
        columns = (Query.superpixel_id, Query.adjudication, Query.id)
        rows = session.execute(select_queries(round_.project_id, *columns))
        known = {(row.superpixel_id, row.adjudication): row.id for row in rows}
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


def _what_is_left_out(
    candidates: Sequence[Candidate], ordered: Sequence[Candidate], min_area: int, asked: bool
) -> str | None:
    """A sentence about superpixels that are too small, or when there is nothing to ask."""
    chosen = {item.superpixel_id for item in ordered}
    too_small = sum(
        item.size < min_area and item.superpixel_id not in chosen for item in candidates
    )
    if too_small:
        return f"{too_small} superpixels of fewer than {min_area} pixels are not asked about"
    return None if asked else "every superpixel has been answered"

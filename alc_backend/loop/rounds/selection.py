"""The batch of a round: choosing its queries and their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from alc_backend.core import acquisition, selection
from alc_backend.core.arrays import VOID
from alc_backend.errors import RoundError
from alc_backend.labelstudio import query
from alc_backend.loop.query_tasks import columns
from alc_backend.store import ledger
from alc_backend.store.database import Store
from alc_backend.store.label_maps import LabelMaps
from alc_backend.store.models import TRAIN, Image, LedgerEntry, Query, Round, Score, Superpixel


def choose(store: Store, round_: Round) -> str | None:
    """Write the round's queue into the queries: disputes, the best B, older unanswered ones.

    Returns what an admin should know about superpixels that were left out, or None.
    """
    with store.reading() as session:
        judged = ledger.judgement(session, round_.project_id)
        rows = session.execute(
            select(
                Score.score, Score.row, Score.col, Score.pseudo_label, Score.dominant,
                Score.likely, Score.superpixel_id, Superpixel.number, Superpixel.size,
                Superpixel.shape.is_(None).label("shapeless"),
                Image.id.label("image_id"), Image.key, Image.url,
            )
            .join(Superpixel, Superpixel.id == Score.superpixel_id)
            .join(Image, Image.id == Superpixel.image_id)
            .where(Score.round_id == round_.id)
            .order_by(Image.key, Superpixel.number)
        ).all()  # fmt: skip
        known = {
            (row.superpixel_id, row.adjudication): row.id
            for row in columns(
                session, round_.project_id, Query.superpixel_id, Query.adjudication, Query.id
            )
        }
        asked = {superpixel_id for superpixel_id, adjudication in known if not adjudication}
        kept = asked & _answered(session, round_.project_id)
    if store.settings.fallen_out == "keep":
        kept = asked
    scores = _compared(store, round_, rows)
    found = [(row, score) for row, score in zip(rows, scores, strict=True)]
    disputed = [pair for pair in found if pair[0].superpixel_id in judged.disputed]
    out = judged.settled | judged.disputed.keys()
    open_ = {
        (row.key, row.number): (row, score) for row, score in found if row.superpixel_id not in out
    }
    candidates = [
        selection.Scored(score, *place, row.size) for place, (row, score) in open_.items()
    ]
    config = round_.config
    order = selection.top(
        candidates, config.size, per_image=config.per_image, min_area=config.min_area
    )
    order = selection.spread(order, store.settings.gap)
    best = set(order)
    order += [
        item
        for item in selection.ranked(candidates)
        if item not in best and open_[item.key, item.superpixel][0].superpixel_id in kept
    ]
    best.update(order)
    disputed.sort(key=lambda pair: (-pair[1], pair[0].key, pair[0].number))
    batch = [(*pair, True) for pair in disputed]
    batch += [(*open_[item.key, item.superpixel], False) for item in order]
    for row, _, _ in batch:
        if row.url is None:
            raise RoundError(
                f"image {row.key} is not in Label Studio; run `alc init` again to upload it"
            )
    _draw_shapes(store, round_.project_id, [row for row, _, _ in batch if row.shapeless])
    chosen = [
        {
            "superpixel_id": row.superpixel_id,
            "adjudication": adjudication,
            "proposed": list(judged.disputed[row.superpixel_id]) if adjudication else None,
            "round_id": round_.id,
            "rank": rank,
            "score": score,
            "row": row.row,
            "col": row.col,
            "pseudo_label": row.pseudo_label,
            "likely": row.likely,
        }
        for rank, (row, score, adjudication) in enumerate(batch)
    ]
    with store.session() as session:
        old = [
            {**values, "id": number}
            for values in chosen
            if (number := known.get((values["superpixel_id"], values["adjudication"])))
        ]
        new = [
            values
            for values in chosen
            if (values["superpixel_id"], values["adjudication"]) not in known
        ]
        if old:
            session.execute(update(Query), old)
        if new:
            session.execute(insert(Query), new)
    too_small = sum(item.size < config.min_area and item not in best for item in candidates)
    if too_small:
        return f"{too_small} superpixels of fewer than {config.min_area} pixels are not asked about"
    return None if batch else "every superpixel has been answered"


def _answered(session: Session, project_id: int) -> set[int]:
    """The superpixels that were ever answered or skipped: their tasks stay."""
    found = select(LedgerEntry.superpixel_id).where(
        LedgerEntry.project_id == project_id, LedgerEntry.superpixel_id.is_not(None)
    )
    return {superpixel_id for superpixel_id in session.scalars(found) if superpixel_id}


def _draw_shapes(store: Store, project_id: int, rows: Sequence[Any]) -> None:
    """Note how queries show the superpixels of ``rows``, which are asked about the first time."""
    by_image: dict[int, list[Any]] = {}
    for row in rows:
        by_image.setdefault(row.image_id, []).append(row)
    files = store.files(project_id)
    for image_id, members in by_image.items():
        superpixels = files.read_superpixels(image_id)
        shapes = [
            {"id": row.superpixel_id, "shape": query.shape_of(superpixels == row.number)}
            for row in members
        ]
        with store.session() as session:
            session.execute(update(Superpixel), shapes)


def _compared(store: Store, round_: Round, rows: Sequence[Any]) -> list[float]:
    """The scores of the round, made comparable over the dataset where the acquisition asks it."""
    name = round_.config.acquisition
    scores = np.array([row.score for row in rows])
    if acquisition.ACQUISITIONS[name].compare is not None:
        pseudo, dominant = (
            np.array([getattr(row, column) for row in rows], dtype=np.uint8)
            for column in ("pseudo_label", "dominant")
        )
        sizes = np.array([row.size for row in rows], dtype=np.int64)
        found = acquisition.Measured(scores, pseudo, dominant, sizes, _class_pixels(store, round_))
        scores = acquisition.compare(found, name)
    compared: list[float] = scores.tolist()
    return compared


def _class_pixels(store: Store, round_: Round) -> NDArray[np.int64]:
    """How many pixels the label maps, as they are now, give each class."""
    with store.reading() as session:
        maps = LabelMaps(session, store.files(round_.project_id), round_.project_id)
    counts = np.zeros(VOID + 1, dtype=np.int64)
    for image in store.images(round_.project_id, TRAIN):
        counts += np.bincount(maps.read(image.id).ravel(), minlength=VOID + 1)
    return counts[: len(round_.project.classes)]

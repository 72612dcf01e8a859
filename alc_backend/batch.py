"""The batch of a round: choosing its queries and bringing them into Label Studio in order."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from alc_backend import rounds
from alc_backend.core import acquisition, selection
from alc_backend.core.arrays import VOID
from alc_backend.errors import RoundError
from alc_backend.labelstudio import publish, query
from alc_backend.labelstudio.client import Client
from alc_backend.rounds import Reporter
from alc_backend.store import ledger
from alc_backend.store.database import Store
from alc_backend.store.models import TRAIN, Image, Query, Round, Score, Superpixel


def publish_queue(store: Store, round_: Round, report: Reporter) -> None:
    """Put the best B open queries, and older unanswered ones, into Label Studio in order."""
    project = round_.project
    if project.query_project is None:
        raise RoundError(
            f"project {project.name!r} has no query project; run `alc init` to make it, then "
            "start the round again"
        )
    report(0, 3, "choosing the batch")
    chosen = choose(store, round_)
    if chosen and chosen not in (round_.warning or ""):
        with store.session() as session:
            row = session.get_one(Round, round_.id)
            row.warning = "; ".join(filter(None, [row.warning, chosen]))
    with Client.from_settings(store.settings) as client:
        known = publish.existing_tasks(client, project.query_project)
        _sync_tasks(store, round_.project_id, known)
        items = _items(store, round_)
        report(1, 3, f"bringing {len(items)} queries into Label Studio")
        publish.create_tasks(
            client,
            project.query_project,
            [item for item in items if item.task_id is None],
            lambda made: _note_tasks(store, round_.project_id, made),
        )
        for item in items:
            if item.task_id is not None and item.changed:
                publish.update_task(client, item)
                _note_update(store, item)
        report(2, 3, f"ordering {len(items)} queries")
        publish.publish_queue(
            client,
            project.query_project,
            rounds.model_version(round_.number),
            _items(store, round_),
        )


def choose(store: Store, round_: Round) -> str | None:
    """Write the round's queue into the queries: the best B, then older unanswered ones.

    Returns what an admin should know about superpixels that were left out, or None.
    """
    with store.reading() as session:
        settled = set(ledger.resolved(ledger.standing(session, round_.project_id)))
        rows = session.execute(
            select(
                Score.score, Score.row, Score.col, Score.pseudo_label, Score.dominant,
                Score.superpixel_id, Superpixel.number, Superpixel.size,
                Image.id.label("image_id"), Image.key, Image.url,
            )
            .join(Superpixel, Superpixel.id == Score.superpixel_id)
            .join(Image, Image.id == Superpixel.image_id)
            .where(Score.round_id == round_.id)
        ).all()  # fmt: skip
        asked = {entry.superpixel_id for entry in _queries(session, round_.project_id)}
    scores = _compared(store, round_, rows)
    open_ = {
        (row.key, row.number): (row, score)
        for row, score in zip(rows, scores, strict=True)
        if row.superpixel_id not in settled
    }
    candidates = [
        selection.Scored(score, *place, row.size) for place, (row, score) in open_.items()
    ]
    size, per_image, min_area = (round_.config[name] for name in rounds.BATCH)
    order = selection.top(candidates, size, per_image=per_image, min_area=min_area)
    best = set(order)
    order += [
        item
        for item in selection.ranked(candidates)
        if item not in best and open_[item.key, item.superpixel][0].superpixel_id in asked
    ]
    best.update(order)
    batch = [open_[item.key, item.superpixel] for item in order]
    read_superpixels = lru_cache(maxsize=16)(store.files(round_.project_id).read_superpixels)
    contents: list[query.QueryContent] = []
    for row, _ in batch:
        if row.url is None:
            raise RoundError(
                f"picture {row.key} is not in Label Studio; run `alc init` again to upload it"
            )
        contents.append(
            query.QueryContent(
                url=row.url,
                image_key=row.key,
                superpixel=row.number,
                row=row.row,
                col=row.col,
                pseudo_label=row.pseudo_label,
                classes=round_.project.classes,
                round_number=round_.number,
                mask=read_superpixels(row.image_id) == row.number,
            )
        )
    shown = [(query.prediction(content), query.task_data(content)) for content in contents]
    with store.session() as session:
        entries = {entry.superpixel_id: entry for entry in _queries(session, round_.project_id)}
        for rank, ((row, score), (prediction, data)) in enumerate(zip(batch, shown, strict=True)):
            entry = entries.get(row.superpixel_id)
            if entry is None:
                entry = Query(superpixel_id=row.superpixel_id)
                session.add(entry)
            entry.round_id, entry.rank, entry.score = round_.id, rank, score
            entry.row, entry.col, entry.pseudo_label = row.row, row.col, row.pseudo_label
            entry.prediction, entry.task = prediction, data
    too_small = sum(item.size < min_area and item not in best for item in candidates)
    if too_small:
        return f"{too_small} superpixels of fewer than {min_area} pixels are not asked about"
    return None if candidates else "every superpixel has been answered"


def _compared(store: Store, round_: Round, rows: Sequence[Any]) -> list[float]:
    """The scores of the round, made comparable over the dataset where the acquisition asks it."""
    name = round_.config["acquisition"]
    scores = np.array([row.score for row in rows])
    if acquisition.ACQUISITIONS[name].compare is not None:
        pseudo, dominant = (
            np.array([getattr(row, column) for row in rows], dtype=np.uint8)
            for column in ("pseudo_label", "dominant")
        )
        census = acquisition.Census.of(scores, dominant, _class_pixels(store, round_))
        scores = acquisition.compare(scores, pseudo, dominant, census, name)
    compared: list[float] = scores.tolist()
    return compared


def _class_pixels(store: Store, round_: Round) -> NDArray[np.int64]:
    """How many pixels the label maps, as they are now, give each class."""
    with store.reading() as session:
        maps = ledger.LabelMaps(session, store.files(round_.project_id), round_.project_id)
    counts = np.zeros(VOID + 1, dtype=np.int64)
    for image in store.images(round_.project_id, TRAIN):
        counts += np.bincount(maps.read(image.id).ravel(), minlength=VOID + 1)
    return counts[: len(round_.project.classes)]


def _queries(session: Session, project_id: int) -> Sequence[Query]:
    return session.scalars(
        select(Query)
        .join(Superpixel, Superpixel.id == Query.superpixel_id)
        .join(Image, Image.id == Superpixel.image_id)
        .where(Image.project_id == project_id)
    ).all()


def _items(store: Store, round_: Round) -> list[publish.QueueItem]:
    """The round's queue, best first."""
    with store.reading() as session:
        entries = session.scalars(
            select(Query).where(Query.round_id == round_.id).order_by(Query.rank)
        )
        return [
            publish.QueueItem(
                key=query.asked_about(entry.task),
                task_id=entry.task_id,
                changed=entry.task != entry.published,
                data=entry.task,
                result=entry.prediction,
            )
            for entry in entries
        ]


def _sync_tasks(store: Store, project_id: int, known: dict[int, query.Key]) -> None:
    """Take over tasks of an interrupted attempt, and forget those deleted in Label Studio."""
    by_key = {key: task_id for task_id, key in known.items()}
    with store.session() as session:
        for entry in _queries(session, project_id):
            if entry.task_id not in known:
                entry.task_id, entry.published = by_key.get(query.asked_about(entry.task)), None


def _note_tasks(store: Store, project_id: int, made: dict[query.Key, int]) -> None:
    """Remember which task asks which query."""
    with store.session() as session:
        for entry in _queries(session, project_id):
            key = query.asked_about(entry.task)
            if key in made:
                entry.task_id, entry.published = made[key], entry.task


def _note_update(store: Store, item: publish.QueueItem) -> None:
    with store.session() as session:
        session.execute(
            update(Query).where(Query.task_id == item.task_id).values(published=item.data)
        )

"""The batch of a round: choosing its queries and bringing them into Label Studio in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, exists, select, update
from sqlalchemy.orm import Session, aliased

from alc_backend import rounds
from alc_backend.claims import Reporter
from alc_backend.core import acquisition, selection
from alc_backend.core.arrays import VOID
from alc_backend.errors import LabelStudioError, RoundError
from alc_backend.labelstudio import publish, query
from alc_backend.labelstudio.client import Client
from alc_backend.store import ledger
from alc_backend.store.database import Store
from alc_backend.store.label_maps import LabelMaps
from alc_backend.store.models import (
    TRAIN,
    Answer,
    Image,
    Project,
    Query,
    Round,
    Score,
    Superpixel,
    utc_now,
)


def publish_round(store: Store, round_: Round, report: Reporter) -> None:
    """Put the round's queue into Label Studio, in order.

    Queries that two annotators disagree about come first, then the best B, then older unanswered
    ones (or these leave the queue, where that is set). A query keeps its task. Tasks that are not
    asked any more are closed: nobody gets them, but who has one on the screen can submit it. Once
    Label Studio has switched to the round's queue, it stays as it is.
    """
    project = round_.project
    if project.query_project is None:
        raise RoundError(
            f"project {project.name!r} has no query project; run `alc init` to make it, then "
            "start the round again"
        )
    version = rounds.model_version(round_.number)
    with Client.from_settings(store.settings) as client:
        if publish.is_switched(client, project.query_project, version):
            return
        report(0, 3, "choosing the batch")
        chosen = choose(store, round_)
        if chosen and chosen not in (round_.warning or ""):
            with store.session() as session:
                row = session.get_one(Round, round_.id)
                row.warning = "; ".join(filter(None, [row.warning, chosen]))
        queue = _present_tasks(store, client, round_, report)
        _close_obsolete(store, client, round_, report)
        report(2, 3, f"ordering {len(queue)} queries")
        if not publish.publish_queue(client, project.query_project, version, queue):
            queue = _present_tasks(store, client, round_, report, look=True)
            report(2, 3, f"ordering {len(queue)} queries")
            if not publish.publish_queue(client, project.query_project, version, queue):
                raise LabelStudioError(
                    "Label Studio does not keep the predictions of all tasks; look into its log "
                    "and start the round again"
                )


def _present_tasks(
    store: Store, client: Client, round_: Round, report: Reporter, *, look: bool = False
) -> list[publish.QueueItem]:
    """See to it that every query of the round has its task; returns them, best first.

    What Label Studio holds is read in full only when its number of tasks is not what it should be
    (or with ``look``): that takes longer than everything else.
    """
    number = round_.project.query_project
    assert number is not None
    with store.reading() as session:
        entries = _queries(session, round_.project_id)
        expected = sum(entry.task_id is not None for entry in entries)
    if look or publish.count_tasks(client, number) != expected:
        _sync_tasks(store, round_.project_id, publish.existing_tasks(client, number))
    queue = items(store, round_)
    report(1, 3, f"bringing {len(queue)} queries into Label Studio")
    publish.create_tasks(
        client,
        number,
        [item for item in queue if item.task_id is None],
        lambda made: note_tasks(store, round_.project_id, made, queue),
    )
    for item in queue:
        if item.task_id is not None and (item.changed or item.closed):
            report(1, 3, f"updating the question of task {item.task_id}")
            publish.update_task(client, item)
            _note_update(store, item)
    return items(store, round_) if any(item.task_id is None for item in queue) else queue


def _close_obsolete(store: Store, client: Client, round_: Round, report: Reporter) -> None:
    """Close the tasks outside the round's queue that Label Studio would still hand out."""
    revised = aliased(Answer)
    answered = (
        exists()
        .where(
            Answer.superpixel_id == Query.superpixel_id,
            Answer.adjudication == Query.adjudication,
            Answer.kind.in_((ledger.ACCEPT, ledger.CORRECT)),
        )
        .where(
            ~exists().where(
                revised.project_id == Answer.project_id,
                revised.annotation_id == Answer.annotation_id,
                revised.revision > Answer.revision,
            )
        )
    )
    with store.reading() as session:
        obsolete = session.scalars(
            select(Query)
            .join(Round, Round.id == Query.round_id)
            .where(
                Round.project_id == round_.project_id,
                Query.round_id != round_.id,
                Query.task_id.is_not(None),
                Query.closed_at.is_(None),
                ~answered,
            )
            .order_by(Query.id)
        ).all()
    for place, entry in enumerate(obsolete):
        report(1, 3, f"closing task {place + 1} of {len(obsolete)} that are not asked any more")
        assert entry.task_id is not None
        publish.close_task(client, entry.task_id)
        with store.session() as session:
            session.get_one(Query, entry.id).closed_at = utc_now()


def choose(store: Store, round_: Round) -> str | None:
    """Write the round's queue into the queries: disputes, the best B, older unanswered ones.

    Returns what an admin should know about superpixels that were left out, or None.
    """
    with store.reading() as session:
        judged = ledger.judgement(session, round_.project_id)
        rows = session.execute(
            select(
                Score.score, Score.row, Score.col, Score.pseudo_label, Score.dominant,
                Score.superpixel_id, Superpixel.number, Superpixel.size,
                Superpixel.shape.is_(None).label("shapeless"),
                Image.id.label("image_id"), Image.key, Image.url,
            )
            .join(Superpixel, Superpixel.id == Score.superpixel_id)
            .join(Image, Image.id == Superpixel.image_id)
            .where(Score.round_id == round_.id)
        ).all()  # fmt: skip
        asked = {
            entry.superpixel_id
            for entry in _queries(session, round_.project_id)
            if not entry.adjudication
        }
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
    size, per_image, min_area = (round_.config[name] for name in rounds.BATCH)
    order = selection.top(candidates, size, per_image=per_image, min_area=min_area)
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
                f"picture {row.key} is not in Label Studio; run `alc init` again to upload it"
            )
    _draw_shapes(store, round_.project_id, [row for row, _, _ in batch if row.shapeless])
    with store.session() as session:
        entries = {
            (entry.superpixel_id, entry.adjudication): entry
            for entry in _queries(session, round_.project_id)
        }
        for rank, (row, score, adjudication) in enumerate(batch):
            entry = entries.get((row.superpixel_id, adjudication))
            if entry is None:
                entry = Query(superpixel_id=row.superpixel_id, adjudication=adjudication)
                session.add(entry)
            entry.round_id, entry.rank, entry.score = round_.id, rank, score
            entry.row, entry.col, entry.pseudo_label = row.row, row.col, row.pseudo_label
            if adjudication:
                entry.proposed = list(judged.disputed[row.superpixel_id])
    too_small = sum(item.size < min_area and item not in best for item in candidates)
    if too_small:
        return f"{too_small} superpixels of fewer than {min_area} pixels are not asked about"
    return None if batch else "every superpixel has been answered"


def _answered(session: Session, project_id: int) -> set[int]:
    """The superpixels that were ever answered or skipped: their tasks stay."""
    found = select(Answer.superpixel_id).where(
        Answer.project_id == project_id, Answer.superpixel_id.is_not(None)
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
        maps = LabelMaps(session, store.files(round_.project_id), round_.project_id)
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


def contents(
    session: Session, project: Project, where: ColumnElement[bool]
) -> list[tuple[Query, query.QueryContent]]:
    """The queries of a project that ``where`` chooses, best first, with what each shows."""
    rows = session.execute(
        select(Query, Superpixel.number, Superpixel.shape, Round.number, Image)
        .join(Round, Round.id == Query.round_id)
        .join(Superpixel, Superpixel.id == Query.superpixel_id)
        .join(Image, Image.id == Superpixel.image_id)
        .where(Image.project_id == project.id, where)
        .order_by(Query.rank)
    )
    return [
        (
            entry,
            query.QueryContent(
                url=image.url or "",
                image_key=image.key,
                height=image.height,
                width=image.width,
                superpixel=number,
                row=entry.row,
                col=entry.col,
                pseudo_label=entry.pseudo_label,
                classes=project.classes,
                round_number=round_number,
                shape=shape,
                proposed=tuple(entry.proposed or ()) if entry.adjudication else (),
            ),
        )
        for entry, number, shape, round_number, image in rows
        if shape is not None
    ]


def items(store: Store, round_: Round) -> list[publish.QueueItem]:
    """The round's queue, best first."""
    with store.reading() as session:
        queue = contents(session, round_.project, Query.round_id == round_.id)
    found = []
    for entry, content in queue:
        data = query.task_data(content)
        found.append(
            publish.QueueItem(
                key=query.asked_about(data),
                task_id=entry.task_id,
                changed=query.digest(data) != entry.published,
                closed=entry.closed_at is not None,
                data=data,
                result=query.prediction(content),
            )
        )
    return found


def _sync_tasks(store: Store, project_id: int, known: dict[int, query.Key]) -> None:
    """Take over tasks of an interrupted attempt, and forget those deleted in Label Studio."""
    by_key = {key: task_id for task_id, key in known.items()}
    with store.session() as session:
        keys = _keys(session, project_id)
        for entry in _queries(session, project_id):
            if entry.task_id not in known:
                entry.task_id = by_key.get(keys[entry.id])
                entry.published, entry.closed_at = None, None


def note_tasks(
    store: Store,
    project_id: int,
    made: dict[query.Key, int],
    queue: Sequence[publish.QueueItem],
) -> None:
    """Remember which task asks which query."""
    digests = {item.key: query.digest(item.data) for item in queue if item.key in made}
    with store.session() as session:
        keys = _keys(session, project_id)
        for entry in _queries(session, project_id):
            key = keys[entry.id]
            if key in made:
                entry.task_id, entry.published = made[key], digests[key]


def _keys(session: Session, project_id: int) -> dict[int, query.Key]:
    """Query row id → what it asks about."""
    rows = session.execute(
        select(Query.id, Query.adjudication, Superpixel.number, Image.key)
        .join(Superpixel, Superpixel.id == Query.superpixel_id)
        .join(Image, Image.id == Superpixel.image_id)
        .where(Image.project_id == project_id)
    )
    return {row.id: query.Key(row.key, row.number, row.adjudication) for row in rows}


def _note_update(store: Store, item: publish.QueueItem) -> None:
    with store.session() as session:
        session.execute(
            update(Query)
            .where(Query.task_id == item.task_id)
            .values(published=query.digest(item.data), closed_at=None)
        )

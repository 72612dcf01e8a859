"""What a worker does in each state of a round: train, score, publish.

Every step may be repeated from its beginning: what is done already is found and kept.
"""

from __future__ import annotations

import logging
import math
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from alc_backend import answers, rounds
from alc_backend.core import acquisition, expansion, metrics, pool, selection
from alc_backend.core.arrays import VOID
from alc_backend.core.statistics import ImageStatistics
from alc_backend.datasets.images import read_image
from alc_backend.errors import LabelStudioError, RoundError, TrainingError
from alc_backend.labelstudio import publish, query
from alc_backend.labelstudio.client import Client
from alc_backend.rounds import Reporter
from alc_backend.store import ledger
from alc_backend.store.database import Store
from alc_backend.store.models import TRAIN, VAL, Image, Project, Query, Round, Score, Superpixel

log = logging.getLogger(__name__)


def prepare(store: Store, round_: Round, report: Reporter) -> None:
    """Fix what the round knows: collect lost answers, note the ledger's position, measure D_t."""
    project_id = round_.project_id
    warning = None
    if round_.project.query_project is not None and store.settings.label_studio_api_key:
        report(0, 1, "collecting answers from Label Studio")
        try:
            with Client.from_settings(store.settings) as client:
                answers.reconcile(store, client, project_id)
        except LabelStudioError as error:
            warning = f"started without looking for lost answers: {error}"
            log.warning("round %s %s", round_.number, warning)
    with store.reading() as session:
        upto = ledger.position(session, project_id)
        maps = ledger.LabelMaps(session, store.files(project_id), project_id, upto)
    if not store.images(project_id, TRAIN):
        raise RoundError(f"project {project_id} has no pictures; import a dataset with `alc init`")
    miou = data_miou(store, project_id, maps, report)
    with store.session() as session:
        row = session.get_one(Round, round_.id)
        row.ledger_position, row.answers, row.data_miou = upto, maps.answers, miou
        row.model_miou, row.warning = None, warning
        session.execute(delete(Score).where(Score.round_id == round_.id))  # of another network


def train(store: Store, round_: Round, report: Reporter) -> None:
    """Train the round's network on D_t, from ImageNet weights (eqs. 1 and 11)."""
    from alc_backend.segmentation.train import train as train_network

    files = store.files(round_.project_id)
    with store.reading() as session:
        maps = ledger.LabelMaps(session, files, round_.project_id, round_.ledger_position)
    images = {image.key: image for image in store.images(round_.project_id, TRAIN)}

    def load(key: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        image = images[key]
        return read_image(files.image(image.id, image.suffix)), maps.read(image.id)

    train_network(
        rounds.training_of(round_),
        sorted(images),
        load,
        classes=round_.project.classes,
        path=files.network(round_.number),
        data_version=f"ledger entry {round_.ledger_position}",
        progress=report,
        checkpoint_every=store.settings.checkpoint_every,
        cache_bytes=store.settings.image_cache_mb * 2**20,
    )


def score(store: Store, round_: Round, report: Reporter) -> None:
    """Score every open superpixel, one image's probabilities in memory at a time.

    A network that cannot be used is removed, so that starting the round again trains anew.
    """
    try:
        _score_all(store, round_, report)
    except TrainingError as error:
        store.files(round_.project_id).network(round_.number).unlink(missing_ok=True)
        raise TrainingError(
            f"the network of round {round_.number} cannot be used: {error}; start the round again "
            "to train a new one"
        ) from error


def _score_all(store: Store, round_: Round, report: Reporter) -> None:
    from alc_backend.segmentation.infer import Predictor

    files = store.files(round_.project_id)
    predictor = Predictor(files.network(round_.number), round_.project.classes)
    held_out = store.images(round_.project_id, VAL)
    images = store.images(round_.project_id, TRAIN)
    total = len(held_out) + len(images)
    if held_out and round_.model_miou is None:
        confusion = _zeros(round_)
        for done, image in enumerate(held_out):
            report(done, total, f"measuring the network on {image.key}")
            predicted = predictor.probabilities(read_image(files.image(image.id, image.suffix)))
            truth = files.read_label_map("ground_truth", image.id)
            confusion += metrics.confusion_matrix(
                truth, predicted.argmax(axis=0).astype(np.uint8), len(confusion)
            )
        with store.session() as session:
            session.get_one(Round, round_.id).model_miou = _number(metrics.mean_iou(confusion))

    with store.reading() as session:
        maps = ledger.LabelMaps(session, files, round_.project_id)
        settled = set(ledger.resolved(ledger.standing(session, round_.project_id)))
        scored = set(
            session.scalars(
                select(Superpixel.image_id)
                .join(Score, Score.superpixel_id == Superpixel.id)
                .where(Score.round_id == round_.id)
                .distinct()
            )
        )
    for done, image in enumerate(images):
        report(len(held_out) + done, total, f"scoring {image.key}")
        if image.id not in scored:
            predicted = predictor.probabilities(read_image(files.image(image.id, image.suffix)))
            _score_image(store, round_, image, predicted, maps.read(image.id), settled)


def publish_queue(store: Store, round_: Round, report: Reporter) -> None:
    """Put the best B open queries, and older unanswered ones, into Label Studio in order."""
    project = round_.project
    if project.query_project is None:
        raise RoundError(
            f"project {project.name!r} has no query project; run `alc init` to make it, then "
            "start the round again"
        )
    report(0, 3, "choosing the batch")
    chosen = _choose(store, round_)
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


STEPS: dict[str, Callable[[Store, Round, Reporter], None]] = {
    rounds.CREATED: prepare,
    rounds.TRAINING: train,
    rounds.SCORING: score,
    rounds.PUBLISHING: publish_queue,
}
"""The work of each running state."""


def prune(store: Store, project_id: int) -> None:
    """Remove what older rounds left behind: predictions in Label Studio and scores."""
    latest = rounds.latest_round(store, project_id)
    if latest is None or latest.state != rounds.OPEN or latest.project.query_project is None:
        return
    with Client.from_settings(store.settings) as client:
        publish.prune_versions(
            client, latest.project.query_project, rounds.model_version(latest.number)
        )
    with store.session() as session:
        older = select(Round.id).where(Round.project_id == project_id, Round.number < latest.number)
        session.execute(  # what was asked once may still be open in somebody's browser
            delete(Score).where(
                Score.round_id.in_(older), Score.superpixel_id.not_in(select(Query.superpixel_id))
            )
        )


def data_miou(
    store: Store,
    project_id: int,
    maps: ledger.LabelMaps,
    report: Callable[[int, int, str], None] = lambda done, total, message: None,
) -> float | None:
    """mIoU of the label maps against ground truth over all training images; None without any."""
    files = store.files(project_id)
    images = store.images(project_id, TRAIN)
    confusion: NDArray[np.int64] | None = None
    with store.reading() as session:
        classes = len(session.get_one(Project, project_id).classes)
    for done, image in enumerate(images):
        if files.has_label_map("ground_truth", image.id):
            report(done, len(images), "measuring the label maps")
            truth = files.read_label_map("ground_truth", image.id)
            part = metrics.confusion_matrix(truth, maps.read(image.id), classes)
            confusion = part if confusion is None else confusion + part
    return None if confusion is None else _number(metrics.mean_iou(confusion))


def _score_image(
    store: Store,
    round_: Round,
    image: Image,
    predicted: NDArray[np.float32],
    labels: NDArray[np.uint8],
    settled: set[int],
) -> None:
    files = store.files(round_.project_id)
    epsilon = float(round_.config["epsilon"])
    statistics = ImageStatistics(predicted, labels, files.read_superpixels(image.id))
    chosen = pool.representative_pixels(statistics)
    scores = acquisition.measure(
        statistics,
        chosen,
        round_.config["acquisition"],
        epsilon=epsilon,
        seed=(rounds.training_of(round_).seed, zlib.crc32(image.key.encode())),
    )
    if epsilon > 0:
        reached = expansion.expand_all(statistics, chosen, epsilon)
        files.write_reach(round_.number, image.id, reached)
    with store.session() as session:
        rows = {
            superpixel.number: superpixel.id
            for superpixel in session.scalars(
                select(Superpixel).where(Superpixel.image_id == image.id)
            )
        }
        session.add_all(
            Score(
                round_id=round_.id,
                superpixel_id=rows[int(number)],
                score=float(scores[index]),
                row=int(chosen.rows[index]),
                col=int(chosen.cols[index]),
                pseudo_label=int(chosen.pseudo[index]),
                dominant=int(chosen.dominant[index]),
            )
            for index, number in enumerate(chosen.ids)
            if rows[int(number)] not in settled
        )


def _choose(store: Store, round_: Round) -> str | None:
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


def _zeros(round_: Round) -> NDArray[np.int64]:
    classes = len(round_.project.classes)
    return np.zeros((classes, classes + 1), dtype=np.int64)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value

"""The third step of a round: measuring its network, and scoring the superpixels with it.

Reads images, networks and label maps; writes scores and the reach of answers. The networks are
loaded, with PyTorch, by :func:`load_network` alone. Called by ``executor``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from alc_backend.common.types import Progress
from alc_backend.core import acquisition, expansion, metrics, pool
from alc_backend.core.arrays import VOID
from alc_backend.core.draws import draw
from alc_backend.core.statistics import ImageStatistics
from alc_backend.datasets.images import read_image
from alc_backend.errors import NotFoundError, TrainingError
from alc_backend.labelstudio import query
from alc_backend.loop import leases
from alc_backend.loop.rounds.plan import Work
from alc_backend.loop.rounds.training import training_maps
from alc_backend.store import ledger
from alc_backend.store.database import Store
from alc_backend.store.files import ProjectFiles
from alc_backend.store.label_maps import LabelMaps
from alc_backend.store.models import TRAIN, VAL, Image, Part, Round, Score, Superpixel

if TYPE_CHECKING:
    from alc_backend.segmentation.infer import Predictor

Network = Callable[[Image], NDArray[np.float32]]
"""Gives the probabilities (C, H, W) of an image."""

NetworkLoader = Callable[[ProjectFiles, Round, int | None], Network]
"""Loads the network of a round that has not seen a fold; None: the one trained on everything."""


def load_network(files: ProjectFiles, round_: Round, fold: int | None) -> Network:
    """Load a trained network of a round.

    Raises TrainingError, here or for an image, when it cannot be used; its file is removed then,
    so that starting the round again trains it anew.
    """

    def predict(image: Image) -> NDArray[np.float32]:
        pixels = read_image(files.image(image.id, image.suffix))
        with _removed_on_error(files, round_.number, fold):
            probabilities: NDArray[np.float32] = predictor.probabilities(pixels)
            return probabilities

    with _removed_on_error(files, round_.number, fold):
        path = files.fetch_network(round_.number, fold)
        written = path.stat().st_mtime_ns
        predictor = _cached(path, written, tuple(round_.project.classes), round_.config.flip)
    return predict


def score(store: Store, part: Part, report: Progress, load: NetworkLoader = load_network) -> None:
    """Do a part of the scoring: measure the network, or score every open superpixel of a shard.

    The probabilities of two images are in memory at most. Raises TrainingError when a network
    cannot be used.
    """
    work = Work.of_json(part.work)
    if work.images:
        _score_shard(store, part, work, report, load)
    elif store.images(part.round.project_id, VAL):
        _measure(store, part, report, load)
    else:
        _estimate(store, part, report, load)


def _measure(store: Store, part: Part, report: Progress, load: NetworkLoader) -> None:
    """Measure the mIoU of the network on the validation images."""
    round_ = part.round
    files = store.files(round_.project_id)
    images = store.images(round_.project_id, VAL)
    predict = load(files, round_, None)
    classes = len(round_.project.classes)
    confusion = np.zeros((classes, classes + 1), np.int64)
    for done, image in enumerate(images):
        report(done, len(images), f"measuring the network on {image.key}")
        truth = files.read_label_map("ground_truth", image.id)
        predicted = predict(image).argmax(axis=0).astype(np.uint8)
        confusion += metrics.confusion_matrix(truth, predicted, classes)
    with leases.Lease(store, part).session() as session:
        row = session.get_one(Round, round_.id)
        row.model_miou = metrics.known(metrics.mean_iou(confusion))
        row.class_iou = [metrics.known(value) for value in metrics.class_iou(confusion).tolist()]


def _estimate(store: Store, part: Part, report: Progress, load: NetworkLoader) -> None:
    """Estimate the pixel accuracy of the network on answers held out from its training.

    Does nothing when none were held out.
    """
    round_ = part.round
    files = store.files(round_.project_id)
    maps, hidden = training_maps(store, round_)
    images = {image.id: image for image in store.images(round_.project_id, TRAIN)}
    answered = sorted(maps.images_of(hidden))
    if not answered:
        return
    predict = load(files, round_, None)
    right = counted = 0
    for done, image_id in enumerate(answered):
        image = images[image_id]
        report(done, len(answered), f"measuring the network on {image.key}")
        labels, judged = maps.read(image.id), maps.judged(image.id, hidden)
        judged &= labels != VOID
        right += int((predict(image).argmax(axis=0) == labels)[judged].sum())
        counted += int(judged.sum())
    if counted:
        with leases.Lease(store, part).session() as session:
            row = session.get_one(Round, round_.id)
            row.estimate, row.estimate_answers = right / counted, len(hidden)


def _score_shard(
    store: Store, part: Part, work: Work, report: Progress, load: NetworkLoader
) -> None:
    """Score the images of a shard that have no scores of this round yet."""
    round_, fold = part.round, work.fold
    files = store.files(round_.project_id)
    with store.reading() as session:
        maps = LabelMaps(session, files, round_.project_id)
        settled = ledger.judgement(session, round_.project_id).settled
        scored = set(
            session.scalars(
                select(Superpixel.image_id)
                .join(Score, Score.superpixel_id == Superpixel.id)
                .where(Score.round_id == round_.id)
                .distinct()
            )
        )
        images = {
            image.id: image
            for image in session.scalars(
                select(Image).where(
                    Image.project_id == round_.project_id,
                    Image.split == TRAIN,
                    Image.removed.is_(None),
                )
            )
        }
    left = [images[n] for n in work.images if n in images and n not in scored]
    if not left:
        return
    if fold is not None and not files.has_network(round_.number, fold):
        fold = None  # a fold that no image was in when the networks were trained
    predict = load(files, round_, fold)
    with ThreadPoolExecutor(1, thread_name_prefix="scoring") as executor:
        behind: Future[None] | None = None  # one image is scored while the next is predicted
        for done, image in enumerate(left, start=len(work.images) - len(left)):
            report(done, len(work.images), f"scoring {image.key}")
            predicted = predict(image)
            if behind is not None:
                behind.result()
            labels = maps.read(image.id)
            behind = executor.submit(score_image, store, part, image, predicted, labels, settled)
        if behind is not None:
            behind.result()


def score_image(
    store: Store,
    part: Part,
    image: Image,
    predicted: NDArray[np.float32],
    labels: NDArray[np.uint8],
    settled: set[int],
) -> None:
    """Write the scores of an image's superpixels that are not ``settled`` (row ids).

    ``predicted`` (C, H, W) are probabilities, ``labels`` (H, W) the label map of now. With ε above
    0, what an answer to each would reach is kept as well. Raises CancelledError when another worker
    has taken the part over.
    """
    round_, lease = part.round, leases.Lease(store, part)
    files = store.files(round_.project_id)
    epsilon = round_.config.epsilon
    statistics = ImageStatistics(predicted, labels, files.read_superpixels(image.id))
    chosen = pool.representative_pixels(statistics)
    scores = acquisition.measure(
        statistics,
        chosen,
        round_.config.acquisition,
        epsilon=epsilon,
        seed=draw(f"image/{image.key}", round_.config.training.seed),
    )
    likely = None
    if statistics.classes > len(query.HOTKEYS):
        likely = likely_classes(predicted[:, chosen.rows, chosen.cols])
    if epsilon > 0:
        reached = expansion.expand_all(statistics, chosen, epsilon)
        lease.check()
        files.write_reach(round_.number, image.id, reached)
    with lease.session() as session:
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
                likely=likely[index] if likely else None,
            )
            for index, number in enumerate(chosen.ids)
            if rows[int(number)] not in settled
        )


def likely_classes(probabilities: NDArray[np.float32]) -> list[list[int]]:
    """The most probable classes of each pixel, best first, as many as a query has keys for.

    ``probabilities`` is (C, M), for M pixels; of equally probable classes the lower comes first.
    """
    order = np.argsort(-probabilities, axis=0, kind="stable")
    return [[int(c) for c in column] for column in order[: len(query.LIKELY_KEYS)].T]


@lru_cache(maxsize=1)
def _cached(path: Path, written: int, classes: tuple[str, ...], flip: bool) -> Predictor:
    """A network as it was ``written``, kept by the worker process for the next shard."""
    from alc_backend.segmentation.infer import Predictor

    return Predictor(path, list(classes), flip=flip)


@contextmanager
def _removed_on_error(files: ProjectFiles, number: int, fold: int | None) -> Iterator[None]:
    """Remove a network that cannot be used, and say so by a TrainingError."""
    try:
        yield
    except (TrainingError, NotFoundError) as error:
        files.delete_network(number, fold)
        raise TrainingError(
            f"the network of round {number} cannot be used: {error}; start the round again to "
            "train a new one"
        ) from error

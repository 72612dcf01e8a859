"""The third step of a round: measuring its network, and scoring the superpixels with it.

Reads images, networks and label maps; writes scores, the reach of answers and, for pages of
look-alikes, the traits of superpixels (``store.traits``). The networks are loaded, with PyTorch, by
:func:`load_network` alone. Called by ``executor``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import exists, insert, select

from alc_backend.common.types import Progress
from alc_backend.core import acquisition, expansion, metrics, pool
from alc_backend.core.arrays import VOID
from alc_backend.core.draws import draw
from alc_backend.core.pool import Pool
from alc_backend.core.pooling import Prediction, pooled
from alc_backend.core.statistics import ImageStatistics
from alc_backend.datasets.images import read_image
from alc_backend.errors import NotFoundError, TrainingError
from alc_backend.labelstudio import query
from alc_backend.loop import leases
from alc_backend.loop.rounds.plan import Work
from alc_backend.loop.rounds.training import training_maps
from alc_backend.store import ledger, pixel_counts, standing, upkeep
from alc_backend.store.database import Store
from alc_backend.store.files import ProjectFiles
from alc_backend.store.label_maps import LabelMaps
from alc_backend.store.models import TRAIN, VAL, Image, Part, Project, Round, Score, Superpixel
from alc_backend.store.traits import ShardTraits

if TYPE_CHECKING:
    from alc_backend.segmentation.infer import Predictor

Network = Callable[[Image], Prediction]
"""Gives the probabilities and features of an image."""

HALF = float(np.finfo(np.float16).max)

NetworkLoader = Callable[[ProjectFiles, Round, int | None], Network]
"""Loads the network of a round that has not seen a fold; None: the one trained on everything."""


def load_network(files: ProjectFiles, round_: Round, fold: int | None) -> Network:
    """Load a trained network of a round.

    Raises TrainingError, here or for an image, when it cannot be used; its file is removed then,
    so that starting the round again trains it anew.
    """

    def predict(image: Image) -> Prediction:
        pixels = read_image(files.image(image.id, image.suffix))
        with _removed_on_error(files, round_.number, fold):
            return predictor.predict(pixels)

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
        predicted = predict(image).probabilities.argmax(axis=0).astype(np.uint8)
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
    answered = sorted(set(hidden.values()))
    if not answered:
        return
    predict = load(files, round_, None)
    right = counted = 0
    for done, image_id in enumerate(answered):
        image = images[image_id]
        report(done, len(answered), f"measuring the network on {image.key}")
        labels, judged = maps.read(image.id), maps.of(image.id).judged(image.id, hidden)
        judged &= labels != VOID
        right += int((predict(image).probabilities.argmax(axis=0) == labels)[judged].sum())
        counted += int(judged.sum())
    if counted:
        with leases.Lease(store, part).session() as session:
            row = session.get_one(Round, round_.id)
            row.estimate, row.estimate_answers = right / counted, len(hidden)


def _score_shard(
    store: Store, part: Part, work: Work, report: Progress, load: NetworkLoader
) -> None:
    """Score the images of a shard that have no scores of this round yet.

    Where the round keeps traits, the shard's file of them is written at the end: until then all its
    images are predicted, also those that have scores.
    """
    round_, fold = part.round, work.fold
    files = store.files(round_.project_id)
    with store.reading() as session:
        maps = LabelMaps(session, files, round_.project_id, images=work.images)
        position = ledger.position(session, round_.project_id)
        overlap = session.get_one(Project, round_.project_id).overlap
        settled = standing.settled_of(session, work.images)
        scored = set(
            session.scalars(
                select(Superpixel.image_id)
                .where(
                    Superpixel.image_id.in_(work.images),
                    exists().where(
                        Score.round_id == round_.id, Score.superpixel_id == Superpixel.id
                    ),
                )
                .distinct()
            )
        )
        images = {
            image.id: image
            for image in session.scalars(
                select(Image).where(
                    Image.id.in_(work.images),
                    Image.split == TRAIN,
                    Image.removed.is_(None),
                )
            )
        }
    keep = round_.config.questions != "single"
    left = [images[n] for n in work.images if n in images and (keep or n not in scored)]
    if not left:
        if keep:
            _write_traits(store, part, [])
        return
    if fold is not None and not files.has_network(round_.number, fold):
        fold = None  # a fold that no image was in when the networks were trained
    predict = load(files, round_, fold)
    kept: list[ShardTraits] = []
    pixels: dict[int, NDArray[np.int64]] = {}
    doubts: dict[int, int] = {}

    def work_on(image: Image, predicted: Prediction, labels: NDArray[np.uint8]) -> None:
        pixels[image.id] = np.bincount(labels.ravel(), minlength=VOID + 1)
        seen = Seen(store, part, image, predicted, labels)
        doubts[image.id] = seen.doubt(settled)
        if image.id not in scored:
            seen.write_scores(settled)
        if keep:
            kept.append(seen.traits())

    with ThreadPoolExecutor(1, thread_name_prefix="scoring") as executor:
        behind: Future[None] | None = None  # one image is scored while the next is predicted
        for done, image in enumerate(left, start=len(work.images) - len(left)):
            report(done, len(work.images), f"scoring {image.key}")
            predicted = predict(image)
            if behind is not None:
                behind.result()
            behind = executor.submit(work_on, image, predicted, maps.read(image.id))
        if behind is not None:
            behind.result()
    with store.session() as session:
        pixel_counts.note(session, round_.project_id, position, overlap, pixels)
        upkeep.note_doubts(session, round_.project_id, doubts)
    if keep:
        _write_traits(store, part, kept)


def _write_traits(store: Store, part: Part, kept: list[ShardTraits]) -> None:
    """Write what is kept of a shard's superpixels, in place of what an earlier attempt wrote."""
    round_ = part.round
    leases.Lease(store, part).check()
    joined = ShardTraits.joined(kept, len(round_.project.classes))
    store.files(round_.project_id).write_traits(round_.number, part.number, joined)


class Seen:
    """An image as the network of a round saw it.

    ``predicted`` is what the network says of it, ``labels`` (H, W) its label map of now. Writing
    raises CancelledError when another worker has taken the part over.
    """

    def __init__(
        self,
        store: Store,
        part: Part,
        image: Image,
        predicted: Prediction,
        labels: NDArray[np.uint8],
    ) -> None:
        self._part, self._image, self._predicted, self._labels = part, image, predicted, labels
        self._files = store.files(part.round.project_id)
        self._lease = leases.Lease(store, part)
        self._statistics = ImageStatistics(
            predicted.probabilities, labels, self._files.read_superpixels(image.id)
        )
        self._pool = pool.representative_pixels(self._statistics)
        with store.reading() as session:
            rows = session.execute(
                select(Superpixel.number, Superpixel.id).where(Superpixel.image_id == image.id)
            )
            self._rows = {row.number: row.id for row in rows}

    def write_scores(self, settled: set[int]) -> None:
        """Write the scores of the image's superpixels that are not ``settled`` (row ids).

        With ε above 0, what an answer to each would reach is kept as well.
        """
        round_, chosen, statistics = self._part.round, self._pool, self._statistics
        epsilon = round_.config.epsilon
        name = round_.config.acquisition
        if epsilon == 0 and acquisition.ACQUISITIONS[name].measured == "sim":
            scores = self._sims
        else:
            seed = draw(f"image/{self._image.key}", round_.config.training.seed)
            scores = acquisition.measure(statistics, chosen, name, epsilon=epsilon, seed=seed)
        likely = None
        if statistics.classes > len(query.HOTKEYS):
            at = self._predicted.probabilities[:, chosen.rows, chosen.cols]
            likely = likely_classes(at)
        if epsilon > 0:
            reached = expansion.expand_all(statistics, chosen, epsilon)
            self._lease.check()
            self._files.write_reach(round_.number, self._image.id, reached)
        rows = [
            {
                "round_id": round_.id,
                "superpixel_id": self._rows[int(number)],
                "score": float(scores[index]),
                "row": int(chosen.rows[index]),
                "col": int(chosen.cols[index]),
                "pseudo_label": int(chosen.pseudo[index]),
                "dominant": int(chosen.dominant[index]),
                "likely": likely[index] if likely else None,
            }
            for index, number in enumerate(chosen.ids)
            if self._rows[int(number)] not in settled
        ]
        with self._lease.session() as session:
            if rows:
                session.execute(insert(Score), rows)

    def doubt(self, settled: set[int]) -> int:
        """How doubtful the network finds the image's label map, in millionths of its pixels.

        It is the share of pixels that the network expects to be labelled wrongly, those of
        ``settled`` superpixels (row ids) left out.
        """
        chosen = self._pool
        open_ = np.array([self._rows[int(n)] not in settled for n in chosen.ids], dtype=np.bool_)
        wrong = self._statistics.sums(1.0 - self._statistics.self_confidence)
        wrong = wrong[chosen.members[open_]].sum()
        return round(1e6 * min(float(wrong) / self._labels.size, 1.0))

    def traits(self) -> ShardTraits:
        """What is kept of the image's superpixels, the settled ones among them."""
        pixels = np.bincount(self._labels.ravel(), minlength=VOID + 1)
        rows = np.array([self._rows[int(n)] for n in self._pool.ids], dtype=np.int64)
        return traits_of(self._predicted, self._statistics, self._pool, self._sims, rows, pixels)

    @cached_property
    def _sims(self) -> NDArray[np.float64]:
        """SIM at ε = 0 of the pool, (M,)."""
        return acquisition.measure(self._statistics, self._pool, "sim")


def traits_of(
    predicted: Prediction,
    statistics: ImageStatistics,
    chosen: Pool,
    sims: NDArray[np.float64],
    superpixels: NDArray[np.int64],
    pixels: NDArray[np.intp],
) -> ShardTraits:
    """What is kept of an image's superpixels.

    ``sims`` float64 (M,) is SIM at ε = 0 of the M superpixels of the pool ``chosen``,
    ``superpixels`` int64 (M,) are their row ids; ``pixels`` int (VOID + 1,) counts the pixels of
    each class id in the image's label map.
    """
    features = pooled(predicted, statistics.index, statistics.shape, len(statistics))
    return ShardTraits(
        superpixels=superpixels,
        features=np.clip(features[chosen.members], -HALF, HALF).astype(np.float16),
        predicted=statistics.mean_probabilities()[chosen.members].astype(np.float16),
        doubt=np.clip(sims / np.maximum(chosen.sizes, 1), 0, 1).astype(np.float16),
        labels=chosen.pseudo.astype(np.uint8),
        dominant=chosen.dominant.astype(np.uint8),
        sizes=chosen.sizes.astype(np.int64),
        rows=chosen.rows.astype(np.int32),
        cols=chosen.cols.astype(np.int32),
        class_pixels=pixels[: statistics.classes].astype(np.int64),
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

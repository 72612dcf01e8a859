"""The networks of a round: training them on the label maps, scoring the pictures with them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from alc_backend import claims, rounds
from alc_backend.claims import Reporter
from alc_backend.core import acquisition, expansion, metrics, pool
from alc_backend.core.arrays import VOID
from alc_backend.core.draws import draw, fold_of
from alc_backend.core.statistics import ImageStatistics
from alc_backend.datasets.images import read_image
from alc_backend.errors import NotFoundError, SettingsError, TrainingError
from alc_backend.labelstudio import query
from alc_backend.segmentation import folds
from alc_backend.store import ledger
from alc_backend.store.database import Store
from alc_backend.store.files import ProjectFiles
from alc_backend.store.label_maps import LabelMaps
from alc_backend.store.models import TRAIN, VAL, Image, Part, Round, Score, Superpixel

Probabilities = Callable[[Image], NDArray[np.float32]]
Progress = Callable[[int, int, str], None]

SHARD_IMAGES = 50
"""Pictures of one part of the scoring."""


def train(store: Store, round_: Round, report: Reporter) -> None:
    """Train the round's networks, with one process for each GPU of this machine.

    Fewer where a batch has not two pictures for each: batch norm needs them.
    """
    import torch

    processes = store.settings.train_processes or torch.cuda.device_count()
    if 0 < torch.cuda.device_count() < processes:
        raise SettingsError(
            f"ALC_TRAIN_PROCESSES is {processes}, but this machine has "
            f"{torch.cuda.device_count()} GPUs"
        )
    processes = min(processes, rounds.training_of(round_).batch_size // 2)
    if processes > 1:
        from alc_backend.jobs import together

        together.run(store.settings, round_.id, processes, report)
    else:
        train_networks(store, round_, report)


def train_networks(store: Store, round_: Round, report: Progress) -> None:
    """Train the round's networks on D_t, each from the encoder's first weights (eqs. 1 and 11).

    One on everything; with K folds, one more without each fold of the pictures (cross-fitting).
    Every process of a group calls this.
    """
    from alc_backend.segmentation.train import train as train_network

    files = store.files(round_.project_id)
    maps, hidden = _label_maps(store, round_)
    images = {image.key: image for image in store.images(round_.project_id, TRAIN)}

    def load(key: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        image = images[key]
        return read_image(files.image(image.id, image.suffix)), maps.read(image.id, hidden)

    config, split = rounds.training_of(round_), round_.config["folds"]
    networks = folds.networks(images, config.seed, split)
    if round_.config["share_iterations"]:
        config = folds.share(config, len(networks))
    total = len(networks) * config.iterations
    for place, fold in enumerate(networks):
        keys = folds.kept(images, fold, config.seed, split)
        name = f"network {place + 1} of {len(networks)}, " if len(networks) > 1 else ""
        before = place * config.iterations

        def progress(
            done: int, _: int, message: str, before: int = before, name: str = name
        ) -> None:
            report(before + done, total, name + message)

        train_network(
            config,
            keys,
            load,
            classes=round_.project.classes,
            path=files.network(round_.number, fold),
            data_version=f"ledger entry {round_.ledger_position}, {len(hidden)} held out",
            progress=progress,
            checkpoint_every=store.settings.checkpoint_every,
            cache_bytes=store.settings.image_cache_mb * 2**20,
            loader_threads=store.settings.loader_threads,
            log_folder=files.network(round_.number, fold).with_suffix(".tensorboard"),
        )
        if os.environ.get("RANK", "0") == "0":
            files.keep_network(round_.number, fold)


def shards(session: Session, round_: Round) -> list[dict[str, Any]]:
    """The parts of a round's scoring: measuring the network, and shards of pictures to score.

    A shard's pictures are scored by the same network, the one that has not seen them.
    """
    pictures = select(Image.id, Image.key).where(Image.project_id == round_.project_id)
    held_out = session.execute(pictures.where(Image.split == VAL)).all()
    by_fold: dict[int | None, list[int]] = {}
    for image in session.execute(pictures.where(Image.split == TRAIN).order_by(Image.key)):
        fold = _fold(round_, image.key) if round_.config["folds"] > 1 else None
        by_fold.setdefault(fold, []).append(image.id)
    works: list[dict[str, Any]] = [{"measure": True, "total": len(held_out)}]
    for fold, images in by_fold.items():
        for first in range(0, len(images), SHARD_IMAGES):
            shard = images[first : first + SHARD_IMAGES]
            works.append({"images": shard, "fold": fold, "total": len(shard)})
    return works


def score(store: Store, part: Part, report: Reporter) -> None:
    """Do a part of the scoring: measure the network, or score every open superpixel of a shard.

    The probabilities of two pictures are in memory at most. A network that cannot be used is
    removed, so that starting the round again trains it anew.
    """
    if "measure" in part.work:
        _measure(store, part.round, report)
    else:
        _score_shard(store, part, report)


def _measure(store: Store, round_: Round, report: Reporter) -> None:
    """Model mIoU on the validation pictures; without any, accuracy on held-out answers."""
    files = store.files(round_.project_id)
    held_out = store.images(round_.project_id, VAL)
    if held_out:
        predict = _predictor(files, round_, None)
        confusion = np.zeros(
            (len(round_.project.classes), len(round_.project.classes) + 1), np.int64
        )
        for done, image in enumerate(held_out):
            report(done, len(held_out), f"measuring the network on {image.key}")
            truth = files.read_label_map("ground_truth", image.id)
            predicted = predict(image).argmax(axis=0).astype(np.uint8)
            confusion += metrics.confusion_matrix(truth, predicted, len(confusion))
        with store.session() as session:
            row = session.get_one(Round, round_.id)
            row.model_miou = metrics.known(metrics.mean_iou(confusion))
            row.class_iou = [
                metrics.known(value) for value in metrics.class_iou(confusion).tolist()
            ]
        return
    maps, hidden = _label_maps(store, round_)
    images = {image.id: image for image in store.images(round_.project_id, TRAIN)}
    answered = sorted(maps.images_of(hidden))
    right = counted = 0
    predict = _predictor(files, round_, None) if answered else _nothing
    for done, image_id in enumerate(answered):
        image = images[image_id]
        report(done, len(answered), f"measuring the network on {image.key}")
        labels, judged = maps.read(image.id), maps.judged(image.id, hidden)
        judged &= labels != VOID
        right += int((predict(image).argmax(axis=0) == labels)[judged].sum())
        counted += int(judged.sum())
    if counted:
        with store.session() as session:
            row = session.get_one(Round, round_.id)
            row.estimate, row.estimate_answers = right / counted, len(hidden)


def _score_shard(store: Store, part: Part, report: Reporter) -> None:
    round_, image_ids, fold = part.round, part.work["images"], part.work["fold"]
    files = store.files(round_.project_id)
    with store.reading() as session:
        maps = LabelMaps(session, files, round_.project_id)
        settled = ledger.judgement(session, round_.project_id).settled
        scored = set(
            session.scalars(
                select(Superpixel.image_id)
                .join(Score, Score.superpixel_id == Superpixel.id)
                .join(Image, Image.id == Superpixel.image_id)
                .where(Score.round_id == round_.id)
                .distinct()
            )
        )
        images = {
            image.id: image
            for image in session.scalars(
                select(Image).where(Image.project_id == round_.project_id, Image.split == TRAIN)
            )
        }
    left = [images[number] for number in image_ids if number not in scored]
    if fold is not None and not files.has_network(round_.number, fold):
        fold = None  # a fold that no picture was in when the networks were trained
    predict = _predictor(files, round_, fold) if left else _nothing
    with ThreadPoolExecutor(1, thread_name_prefix="scoring") as executor:
        behind: Future[None] | None = None  # one picture is scored while the next is predicted
        for done, image in enumerate(left, start=len(image_ids) - len(left)):
            report(done, len(image_ids), f"scoring {image.key}")
            predicted = predict(image)
            if behind is not None:
                behind.result()
            labels = maps.read(image.id)
            behind = executor.submit(_score_image, store, part, image, predicted, labels, settled)
        if behind is not None:
            behind.result()


def _predictor(files: ProjectFiles, round_: Round, fold: int | None) -> Probabilities:

    def predict(image: Image) -> NDArray[np.float32]:
        picture = read_image(files.image(image.id, image.suffix))
        with _removing(files, round_.number, fold):
            probabilities: NDArray[np.float32] = predictor.probabilities(picture)
            return probabilities

    with _removing(files, round_.number, fold):
        path = files.fetch_network(round_.number, fold)
        written = path.stat().st_mtime_ns
        predictor = _loaded(path, written, tuple(round_.project.classes), round_.config["flip"])
    return predict


@lru_cache(maxsize=1)
def _loaded(path: Path, written: int, classes: tuple[str, ...], flip: bool) -> Any:
    """A network as it was ``written``, kept by the worker process for the next shard."""
    from alc_backend.segmentation.infer import Predictor

    return Predictor(path, list(classes), flip=flip)


def _nothing(image: Image) -> NDArray[np.float32]:
    raise AssertionError(f"no network was loaded for {image.key}")


@contextmanager
def _removing(files: ProjectFiles, number: int, fold: int | None) -> Iterator[None]:
    """Remove a network that cannot be used."""
    try:
        yield
    except (TrainingError, NotFoundError) as error:
        files.delete_network(number, fold)
        raise TrainingError(
            f"the network of round {number} cannot be used: {error}; start the round again to "
            "train a new one"
        ) from error


def _fold(round_: Round, key: str) -> int:
    return fold_of(key, rounds.training_of(round_).seed, round_.config["folds"])


def _label_maps(store: Store, round_: Round) -> tuple[LabelMaps, set[int]]:
    """The label maps that the round trains on, and the answered superpixels that it holds out.

    Answers are held out only where no validation picture can tell how good the network is.
    """
    with store.reading() as session:
        maps = LabelMaps(
            session,
            store.files(round_.project_id),
            round_.project_id,
            round_.ledger_position,
            overlap=round_.config.get("overlap"),
        )
    if store.images(round_.project_id, VAL):
        return maps, set()
    return maps, maps.held_out(round_.config["holdout"], rounds.training_of(round_).seed)


def _score_image(
    store: Store,
    part: Part,
    image: Image,
    predicted: NDArray[np.float32],
    labels: NDArray[np.uint8],
    settled: set[int],
) -> None:
    round_ = part.round
    files = store.files(round_.project_id)
    epsilon = float(round_.config["epsilon"])
    statistics = ImageStatistics(predicted, labels, files.read_superpixels(image.id))
    chosen = pool.representative_pixels(statistics)
    scores = acquisition.measure(
        statistics,
        chosen,
        round_.config["acquisition"],
        epsilon=epsilon,
        seed=draw(f"image/{image.key}", rounds.training_of(round_).seed),
    )
    likely = None
    if statistics.classes > len(query.HOTKEYS):
        likely = _likely(predicted[:, chosen.rows, chosen.cols])
    if epsilon > 0:
        reached = expansion.expand_all(statistics, chosen, epsilon)
        files.write_reach(round_.number, image.id, reached)
    with store.session() as session:
        claims.check(session, part)
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


def _likely(probabilities: NDArray[np.float32]) -> list[list[int]]:
    """The most probable classes of each pixel, ``probabilities`` (C, M); a tie: the lowest."""
    order = np.argsort(-probabilities, axis=0, kind="stable")
    return [[int(c) for c in column] for column in order[: len(query.LIKELY_KEYS)].T]

"""The second step of a round: training its networks on the label maps.

Reads images and label maps, writes the networks' files; PyTorch is loaded when it begins. Called
by ``executor``, and by ``train_process`` in each process of a training on several GPUs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from alc_backend.core.draws import chance
from alc_backend.datasets.images import read_image
from alc_backend.loop.rounds import distributed, machines
from alc_backend.loop.rounds.progress import Reporter
from alc_backend.segmentation import folds
from alc_backend.store import standing
from alc_backend.store.database import Store
from alc_backend.store.label_map_reader import LabelMapReader
from alc_backend.store.models import TRAIN, VAL, Round


def train(store: Store, round_: Round, report: Reporter) -> None:
    """Train the round's networks on this machine: ALC_TRAIN_PROCESSES, or a process for each GPU.

    Fewer where a batch has not two images for each: batch normalization needs them. Raises
    SettingsError for more processes than this machine has GPUs, TrainingError.
    """
    wanted = distributed.processes_here(store.settings)
    (processes,) = machines.share_out([wanted], round_.config.training.batch_size)
    if processes > 1:
        distributed.run(store.settings, processes, report)
    else:
        train_networks(store, round_, report)


def train_networks(store: Store, round_: Round, report: Reporter) -> None:
    """Train the round's networks on D_t, each from the encoder's first weights (eqs. 1 and 11).

    One on everything; with K folds, one more without each fold of the images (cross-fitting).
    Every process of a group calls this.
    """
    from alc_backend.segmentation.train import train as train_network

    files = store.files(round_.project_id)
    maps, hidden = training_maps(store, round_)
    images = {image.key: image for image in store.images(round_.project_id, TRAIN)}

    def load(key: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        image = images[key]
        return read_image(files.image(image.id, image.suffix)), maps.read(image.id, hidden)

    config, split = round_.config.training, round_.config.folds
    networks = folds.networks(images, config.seed, split)
    if round_.config.share_iterations:
        config = folds.share(config, len(networks))
    total = len(networks) * config.iterations
    for index, fold in enumerate(networks):
        keys = folds.kept(images, fold, config.seed, split)
        name = f"network {index + 1} of {len(networks)}, " if len(networks) > 1 else ""
        before = index * config.iterations

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
            data_version=f"ledger entry {round_.ledger_position}, overlap {round_.config.overlap}, "
            f"held out {sorted(hidden)}",
            progress=progress,
            check=report.check,
            checkpoint_every=store.settings.checkpoint_every,
            cache_bytes=store.settings.image_cache_mb * 2**20,
            loader_threads=store.settings.loader_threads,
            log_folder=files.network(round_.number, fold).with_suffix(".tensorboard"),
        )
        if os.environ.get("RANK", "0") == "0":
            report.check()
            files.keep_network(round_.number, fold)


def training_maps(store: Store, round_: Round) -> tuple[LabelMapReader, dict[int, int]]:
    """The label maps that the round trains on, and the answered superpixels that it holds out.

    The latter are row ids, each with that of its image. Answers are held out only where no
    validation image can tell how good the network is.
    """
    position, overlap = round_.ledger_position or 0, round_.config.overlap
    maps = LabelMapReader(store, round_.project_id, position, overlap=overlap)
    if store.images(round_.project_id, VAL):
        return maps, {}
    with store.reading() as session:
        resolved = standing.resolved_at(session, round_.project_id, position, overlap)
        return maps, held_out(resolved, round_.config.holdout, round_.config.training.seed)


def held_out(answered: Iterable[tuple[int, int]], share: float, seed: int) -> dict[int, int]:
    """A fixed random choice from what was ``answered``: superpixels with their images (row ids).

    ``share`` is the probability, from 0 to 1, with which each is chosen.
    """
    return {
        superpixel_id: image_id
        for superpixel_id, image_id in answered
        if chance(f"answer/{superpixel_id}", seed) < share
    }

"""The networks of a simulation: each is trained once and kept in a folder."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alc_backend.common.durations import Pace
from alc_backend.common.locks import only_one
from alc_backend.common.types import Progress
from alc_backend.common.version import __version__
from alc_backend.core import metrics
from alc_backend.core.draws import fold_of
from alc_backend.core.pooling import Prediction
from alc_backend.errors import DatasetError
from alc_backend.segmentation import folds
from alc_backend.simulate.candidates import Predict, ReadLabels
from alc_backend.simulate.experiment import Experiment, fingerprint
from alc_backend.simulate.scenes import Scenes

CHECKPOINT_EVERY = 100


class Networks:
    """Trains, predicts and measures for an experiment; reuses the networks in ``folder``."""

    def __init__(
        self, scenes: Scenes, experiment: Experiment, folder: Path, progress: Progress
    ) -> None:
        self._scenes, self._experiment = scenes, experiment
        self._folder, self._progress = folder, progress
        self._parts = folds.networks(scenes.keys, experiment.seed, experiment.folds)
        self._config = experiment.training
        if experiment.share_iterations:
            self._config = folds.share(self._config, len(self._parts))

    def name(self, digest: str) -> str:
        """A name for the networks that are trained on the label maps with this digest."""
        experiment = self._experiment
        if experiment.probabilities:
            return fingerprint(stamp(experiment), digest, self._scenes.image_digest)
        return fingerprint(
            self._config.as_dict(), experiment.folds, experiment.flip, digest,
            self._scenes.image_digest, __version__,
        )  # fmt: skip

    def predictor(
        self, labels: ReadLabels, digest: str, sets: NDArray[np.bool_] | None = None
    ) -> Predict:
        """A function that predicts training images, after training on ``labels``.

        With folds, each image is predicted by a network that was not trained on it. ``sets`` bool
        (ids, C) says which classes each id of the label maps stands for, where that may be several.
        """
        experiment = self._experiment
        if experiment.probabilities:
            return self._given(Path(experiment.probabilities))
        paths = {fold: self._train(labels, digest, fold, sets) for fold in self._parts}

        def predict(key: str) -> Prediction:
            fold = None
            if experiment.folds > 1:
                fold = fold_of(key, experiment.seed, experiment.folds)
            return self._predict(paths[fold], key)

        return predict

    def measure(
        self, labels: ReadLabels, digest: str
    ) -> tuple[float | None, list[float | None]] | None:
        """The model mIoU and the IoU of each class after training on ``labels``.

        None without validation images, and where probabilities are given instead of a network.
        """
        if not self._scenes.held_out or self._experiment.probabilities:
            return None
        path = self._train(labels, digest, None)
        classes = len(self._scenes.classes)
        total = np.zeros((classes, classes + 1), dtype=np.int64)
        for done, key in enumerate(self._scenes.held_out):
            self._progress(done, len(self._scenes.held_out), f"measuring the network on {key}")
            predicted = self._predict(path, key).probabilities.argmax(axis=0).astype(np.uint8)
            total += metrics.confusion_matrix(self._scenes.truth(key), predicted, classes)
        iou = [metrics.known(value) for value in metrics.class_iou(total).tolist()]
        return metrics.known(metrics.mean_iou(total)), iou

    def _train(
        self,
        labels: ReadLabels,
        digest: str,
        fold: int | None,
        sets: NDArray[np.bool_] | None = None,
    ) -> Path:
        """The file of the network trained on all images, or on those outside ``fold``.

        Where several simulations share the folder, one of them trains it and the others wait.
        """
        from alc_backend.segmentation.train import train

        experiment = self._experiment
        keys = folds.kept(self._scenes.keys, fold, experiment.seed, experiment.folds)
        split = [experiment.folds, fold] if fold is not None else None
        about = [self._config.as_dict(), split, digest, self._scenes.image_digest]
        name = fingerprint(*about, *([] if sets is None else [sets.tolist()]))
        path = self._folder / f"{name}.safetensors"
        where = "" if fold is None else f"fold {fold + 1} of {experiment.folds}, "
        pace = Pace()
        with only_one(path.with_suffix(".lock"), self._wait):
            train(
                self._config,
                keys,
                lambda key: (self._scenes.image(key), labels(key)),
                classes=self._scenes.classes,
                path=path,
                data_version=digest,
                progress=lambda done, total, message: self._progress(
                    done, total, f"training, {where}{message}{pace.left(done, total)}"
                ),
                checkpoint_every=CHECKPOINT_EVERY,
                loader_threads=2,
                class_sets=sets,
            )
        return path

    def _wait(self) -> None:
        total = self._config.iterations
        self._progress(0, total, "waiting for another simulation to train the same network")

    def _predict(self, path: Path, key: str) -> Prediction:
        predictor = _loaded(path, tuple(self._scenes.classes), self._experiment.flip)
        prediction: Prediction = predictor.predict(self._scenes.image(key))
        return prediction

    def _given(self, folder: Path) -> Predict:
        """A function that reads the probabilities of an image from a folder."""

        def predict(key: str) -> Prediction:
            path = folder / f"{key}.npy"
            shape = (len(self._scenes.classes), *self._scenes.labels(key).shape)
            try:
                found = np.asarray(np.load(path, allow_pickle=False), dtype=np.float32)
                if found.shape != shape:
                    raise ValueError(f"its shape is {found.shape}, not {shape}")
                if not np.allclose(found.sum(axis=0), 1, atol=1e-2):
                    raise ValueError("its classes do not sum to 1 at every pixel")
                return Prediction(found, np.empty((0, 1, 1), dtype=np.float32), 1)
            except (OSError, ValueError) as error:
                raise DatasetError(
                    f"{path}: cannot be read ({error}); --probabilities needs one array (C, H, W) "
                    "for every image, saved with numpy.save"
                ) from None

        return predict


@lru_cache(maxsize=4)
def _loaded(path: Path, classes: tuple[str, ...], flip: bool) -> Any:
    """A network, kept in memory for the next image; several, because folds alternate."""
    from alc_backend.segmentation.infer import Predictor

    return Predictor(path, list(classes), flip=flip)


def stamp(experiment: Experiment) -> str | None:
    """A name for the given probabilities, by their files' names, sizes and times; or None."""
    if experiment.probabilities is None:
        return None
    folder = Path(experiment.probabilities)
    files = [
        (path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*.npy"))
    ]
    return fingerprint(experiment.probabilities, files)


def digest_of(scenes: Scenes, labels: ReadLabels) -> str:
    """A name for the label maps of all training images, by their content."""
    state = hashlib.sha256()
    for key in scenes.keys:
        state.update(labels(key).tobytes())
    return state.hexdigest()[:24]

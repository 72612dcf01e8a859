"""The candidate queries of a whole dataset, with the scores that order them."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alc_backend.common.files import write_atomically
from alc_backend.common.types import Progress
from alc_backend.core import acquisition, expansion, pool, selection
from alc_backend.core.acquisition import ACQUISITIONS
from alc_backend.core.arrays import VOID
from alc_backend.core.draws import draw
from alc_backend.core.pool import Pool
from alc_backend.core.pooling import Prediction, pooled
from alc_backend.core.statistics import ImageStatistics
from alc_backend.simulate.experiment import Experiment
from alc_backend.simulate.scenes import Packed, Scenes

TRAITS = ("features", "predicted")
FIELDS = ("image", "superpixel", "row", "col", "pseudo", "dominant", "size", "turn", *TRAITS)

HALF = float(np.finfo(np.float16).max)

Predict = Callable[[str], Prediction]
"""Called with an image key; returns what the network says of it."""

ReadLabels = Callable[[str], NDArray[np.uint8]]
"""Called with an image key; returns the label map uint8 (H, W)."""


@dataclass
class Candidates:
    """The candidate queries of a dataset; arrays have shape (M,) unless another is given.

    ``image`` is the index in ``Scenes.keys``; ``turn`` the order of PixelPick's draw (0 in other
    pools); ``features`` float16 (M, 2·F) are the network's, ``predicted`` float32 (M, C) its mean
    probabilities over the superpixel; ``scores`` are the measured scores, by
    :attr:`Acquisition.measured`; ``class_pixels`` int64 (C,) is the number of pixels of each class
    in the label maps. ``reach`` is, for each
    image by its index, the mask bool (H, W) of the pixels that answers would be written to; it is
    empty at ε = 0.
    """

    image: NDArray[np.int32]
    superpixel: NDArray[np.int32]
    row: NDArray[np.int32]
    col: NDArray[np.int32]
    pseudo: NDArray[np.uint8]
    dominant: NDArray[np.uint8]
    size: NDArray[np.int64]
    turn: NDArray[np.int32]
    features: NDArray[np.float16]
    predicted: NDArray[np.float32]
    scores: dict[str, NDArray[np.float64]]
    class_pixels: NDArray[np.int64]
    reach: dict[int, Packed]

    def __len__(self) -> int:
        return len(self.image)

    def identity(self, scenes: Scenes, index: int) -> tuple[str, int]:
        """The image key of a candidate, and the number of its superpixel there."""
        return scenes.keys[self.image[index]], int(self.superpixel[index])

    def save(self, path: Path) -> None:
        """Write a file that :meth:`load` can read."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in FIELDS}
        arrays |= {f"score/{name}": values for name, values in self.scores.items()}
        arrays |= {
            f"reach/{index}": np.packbits(packed.read()) for index, packed in self.reach.items()
        }
        shapes = [(index, *packed.shape) for index, packed in self.reach.items()]
        arrays["shapes"] = np.array(shapes, dtype=np.int64).reshape(-1, 3)
        arrays["class_pixels"] = self.class_pixels
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        write_atomically(path, lambda part: part.write_bytes(content.getvalue()))

    @classmethod
    def load(cls, path: Path) -> Candidates | None:
        """What :meth:`save` wrote; None when the file is missing or damaged."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                reach = {
                    int(index): Packed.of(
                        np.unpackbits(arrays[f"reach/{index}"], count=int(height * width))
                        .reshape(int(height), int(width))
                        .astype(np.bool_)
                    )
                    for index, height, width in arrays["shapes"]
                }
                scores = {
                    name.removeprefix("score/"): arrays[name]
                    for name in arrays.files
                    if name.startswith("score/")
                }
                fields = {name: arrays[name] for name in FIELDS}
                return cls(
                    **fields, scores=scores, class_pixels=arrays["class_pixels"], reach=reach
                )
        except (OSError, KeyError, ValueError, EOFError, zlib.error, zipfile.BadZipFile):
            return None

    def order(self, scenes: Scenes, experiment: Experiment, count: int) -> list[int]:
        """The indices of the ``count`` candidates to ask about, best first.

        Superpixels are ranked as a round ranks them (:mod:`alc_backend.loop.rounds.selection`).
        """
        if experiment.pool == "pixelpick":
            return [int(index) for index in np.lexsort((self.image, self.turn))[:count]]
        compared = self._compared(experiment)
        if experiment.pool == "pixel":
            keys = (self.col, self.row, self.superpixel, self.image, -compared)
            return [int(index) for index in np.lexsort(keys)[:count]]
        index_of = {
            (scenes.keys[self.image[index]], int(self.superpixel[index])): index
            for index in range(len(self))
        }
        scored = [
            selection.Scored(float(compared[index]), *identity, int(self.size[index]))
            for identity, index in index_of.items()
        ]
        chosen = selection.top(
            scored, count, per_image=experiment.per_image, min_area=experiment.min_area
        )
        return [index_of[item.key, item.superpixel] for item in chosen]

    def _compared(self, experiment: Experiment) -> NDArray[np.float64]:
        """The scores by which candidates of all images are ranked."""
        measured = self.scores[ACQUISITIONS[experiment.acquisition].measured]
        found = acquisition.Measured(
            measured, self.pseudo, self.dominant, self.size, self.class_pixels
        )
        return acquisition.compare(found, experiment.acquisition)


def survey(
    scenes: Scenes,
    labels: ReadLabels,
    predict: Predict,
    experiment: Experiment,
    *,
    count: int,
    names: Collection[str],
    answered: Mapping[str, Collection[int]],
    progress: Progress,
) -> Candidates:
    """The candidates of the dataset, measured by the acquisitions ``names``.

    ``answered`` superpixels, by image key, are left out. ``count`` is the number of queries that
    will be chosen; the pools of single pixels hold no more candidates than that takes.
    """
    columns: dict[str, list[NDArray[Any]]] = {name: [] for name in FIELDS}
    scores: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    class_pixels = np.zeros(VOID + 1, dtype=np.int64)
    reach: dict[int, Packed] = {}
    for index, key in enumerate(scenes.keys):
        progress(index, len(scenes.keys), f"scoring {key}")
        current = labels(key)
        class_pixels += np.bincount(current.ravel(), minlength=VOID + 1)
        superpixels: NDArray[np.int32] = scenes.superpixels(key)
        if done := answered.get(key):
            superpixels = superpixels * ~np.isin(superpixels, list(done))
        prediction = predict(key)
        image = ImageStatistics(prediction.probabilities, current, superpixels)
        seed = draw(f"image/{key}", experiment.seed)
        found = _pool(image, experiment, scenes, count, seed)
        if not len(found):
            continue
        for name in names:
            scores[name].append(
                acquisition.measure(image, found, name, epsilon=experiment.epsilon, seed=seed)
            )
        if experiment.epsilon > 0:
            reach[index] = Packed.of(expansion.expand_all(image, found, experiment.epsilon))
        for name, values in _columns(index, found, experiment, seed).items():
            columns[name].append(values)
        seen = pooled(prediction, image.index, image.shape, len(image))[found.members]
        columns["features"].append(np.clip(seen, -HALF, HALF).astype(np.float16))
        columns["predicted"].append(image.mean_probabilities()[found.members])
    return Candidates(
        **{name: np.concatenate(values or [_none(name)]) for name, values in columns.items()},
        scores={name: np.concatenate(values or [np.empty(0)]) for name, values in scores.items()},
        class_pixels=class_pixels[: len(scenes.classes)],
        reach=reach,
    )


def _none(name: str) -> NDArray[Any]:
    """The column ``name`` of no candidates."""
    return np.empty((0, 0) if name in TRAITS else 0)


def _columns(index: int, found: Pool, experiment: Experiment, seed: int) -> dict[str, NDArray[Any]]:
    """The fields of the candidates of one image, each (M,)."""
    turn: NDArray[np.int32] = np.zeros(len(found), dtype=np.int32)
    if experiment.pool == "pixelpick":
        turn = np.random.default_rng([seed, 1]).permutation(len(found)).astype(np.int32)
    return {
        "image": np.full(len(found), index, dtype=np.int32),
        "superpixel": found.ids,
        "row": found.rows.astype(np.int32),
        "col": found.cols.astype(np.int32),
        "pseudo": found.pseudo,
        "dominant": found.dominant,
        "size": found.sizes,
        "turn": turn,
    }


def _pool(
    image: ImageStatistics, experiment: Experiment, scenes: Scenes, count: int, seed: int
) -> Pool:
    """The candidates of one image, from the pool that the experiment names."""
    if experiment.pool == "pixelpick":
        each = -(-count // len(scenes.keys))
        return pool.pixelpick(image, each, seed=seed)
    if experiment.pool == "pixel":
        return pool.best_pixels(image, count, look_ahead=experiment.acquisition == "sim")
    return pool.representative_pixels(image)

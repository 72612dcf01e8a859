"""Acquisition scores: how much a correction query about a superpixel is worth; higher first.

An acquisition measures each image by itself. Two of them then compare the superpixels of the whole
dataset, with what a :class:`Census` counted there. To add one: write its function, and its line in
``ACQUISITIONS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alc_backend.core.arrays import VOID
from alc_backend.core.components import adjusted_iou
from alc_backend.core.expansion import checked_epsilon, reach
from alc_backend.core.pool import Pool
from alc_backend.core.statistics import ImageStatistics

Scores = NDArray[np.float64]
Classes = NDArray[np.uint8]
Seed = int | tuple[int, ...]


class Scene(NamedTuple):
    """What an acquisition sees of one image; it returns float64 (M,) aligned with ``pool``."""

    image: ImageStatistics
    pool: Pool
    epsilon: float
    seed: Seed


@dataclass(frozen=True)
class Census:
    """Counts over the whole dataset, for the acquisitions that compare its superpixels.

    ``class_pixels`` int64 (C,): how many pixels the current label maps give each class, N(c).
    ``dominant`` int64 (C,): how many superpixels of the pool have each dominant class.
    ``score_range``: the smallest and the largest score that the images measured.
    """

    class_pixels: NDArray[np.int64]
    dominant: NDArray[np.int64]
    score_range: tuple[float, float]

    @classmethod
    def of(cls, scores: Scores, dominant: Classes, class_pixels: NDArray[np.int64]) -> Census:
        """Count the pool of the dataset: measured ``scores`` and ``dominant`` classes, (M,)."""
        bounds = (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 0.0)
        counts = np.bincount(dominant, minlength=len(class_pixels)).astype(np.int64)
        return cls(class_pixels, counts, bounds)


def sim(scene: Scene) -> Scores:
    """Look-ahead score: similarity-weighted doubt summed over the expansion (eqs. 9 and 12)."""
    image, pool = scene.image, scene.pool
    pixels = pool.rows * image.shape[1] + pool.cols
    if scene.epsilon == 0.0:
        return image.sims(pixels, pool.members)
    scores = np.empty(len(pool))
    for part in pool.layers():
        similarity, reached = reach(image, pixels[part], pool.members[part], scene.epsilon)
        scores[part] = image.sums(similarity * image.doubt * reached)[pool.members[part]]
    return scores


def lcil(scene: Scene) -> Scores:
    """Mean doubt over the superpixel (eq. 10)."""
    return scene.image.means(scene.image.doubt)[scene.pool.members]


def cil(scene: Scene) -> Scores:
    """Doubt at the asked pixel alone (eq. 8): no look-ahead."""
    image, pool = scene.image, scene.pool
    return image.doubt.reshape(image.shape)[pool.rows, pool.cols]


def softmin(scene: Scene, temperature: float = 0.1) -> Scores:
    """1 - the soft minimum over the superpixel of f(y(x); x) (Lad & Mueller 2023)."""
    image = scene.image
    weights = np.exp(image.doubt / temperature)  # at most exp(10): no overflow
    confidence = image.sums(weights * (1.0 - image.doubt)) / image.sums(weights)
    scores: Scores = 1.0 - confidence[scene.pool.members]
    return scores


def aiou(scene: Scene) -> Scores:
    """Mean over the superpixel of 1 - adjusted IoU of the pixel's label component.

    The components are the 8-connected ones of the current label map, compared with those of the
    prediction (Rottmann & Reese 2023); see ``components.adjusted_iou``.
    """
    image = scene.image
    predicted = image.predicted.reshape(image.shape)
    given = np.where(image.labels == VOID, predicted, image.labels)
    return image.means(1.0 - adjusted_iou(given, predicted).ravel())[scene.pool.members]


def entropy(scene: Scene) -> Scores:
    """Mean entropy of the prediction over the superpixel, in nats."""
    return scene.image.means(scene.image.entropy())[scene.pool.members]


def bvsb(scene: Scene) -> Scores:
    """Mean over the superpixel of the second largest probability over the largest."""
    return scene.image.means(scene.image.rivalry)[scene.pool.members]


def random(scene: Scene) -> Scores:
    """Uniform in [0, 1), from the seed: a control."""
    return np.random.default_rng(scene.seed).random(len(scene.pool))


def size(scene: Scene) -> Scores:
    """Pixels of the superpixel: a control that an acquisition must beat."""
    return scene.pool.sizes.astype(np.float64)


def per_class_pixel(scores: Scores, pseudo: Classes, dominant: Classes, census: Census) -> Scores:
    """The score over the pixels of the pseudo label's class in the dataset (beyond the paper)."""
    compared: Scores = scores / np.maximum(census.class_pixels[pseudo], 1)
    return compared


def class_balance(scores: Scores, pseudo: Classes, dominant: Classes, census: Census) -> Scores:
    """Min-max-normalised score × exp(-share of superpixels with this dominant class).

    Cai et al. 2021. Where all scores are equal they count as 1, so that the shares decide.
    """
    low, high = census.score_range
    normalised = (scores - low) / (high - low) if high > low else np.ones_like(scores)
    shares = census.dominant / max(int(census.dominant.sum()), 1)
    compared: Scores = normalised * np.exp(-shares[dominant])
    return compared


class Acquisition(NamedTuple):
    """How an acquisition measures an image, and how it compares the dataset's superpixels."""

    measure: Callable[[Scene], Scores]
    compare: Callable[[Scores, Classes, Classes, Census], Scores] | None = None


ACQUISITIONS: dict[str, Acquisition] = {
    "sim": Acquisition(sim),
    "simiou": Acquisition(sim, per_class_pixel),
    "lcil": Acquisition(lcil),
    "cil": Acquisition(cil),
    "softmin": Acquisition(softmin),
    "aiou": Acquisition(aiou),
    "entropy": Acquisition(entropy),
    "bvsb": Acquisition(bvsb),
    "classbal": Acquisition(bvsb, class_balance),
    "random": Acquisition(random),
    "size": Acquisition(size),
}
"""Every acquisition by the name used in settings, the command line and reports."""


def measure(
    image: ImageStatistics,
    pool: Pool,
    acquisition: str = "sim",
    *,
    epsilon: float = 0.0,
    seed: Seed = 0,
) -> Scores:
    """Measure the candidates of one image; float64 (M,) aligned with ``pool``.

    ``pool`` from :mod:`alc_backend.core.pool` on the same ``image``; ``epsilon`` in [0, 1], the
    similarity an expansion requires (eq. 12), matters to ``sim`` and ``simiou``; ``seed`` to
    ``random`` (give each image its own). Comparable within the image; over the dataset only after
    :func:`compare`. Raises ValueError naming the argument.
    """
    chosen = _named(acquisition)
    epsilon = checked_epsilon(epsilon)
    pool.check(image)
    return chosen.measure(Scene(image, pool, epsilon, seed))


def compare(
    scores: Scores, pseudo: Classes, dominant: Classes, census: Census, acquisition: str = "sim"
) -> Scores:
    """Make measured scores comparable over the dataset; float64 (M,).

    ``scores`` from :func:`measure` of any number of images, with the ``pseudo`` labels and
    ``dominant`` classes of their pools; ``census`` of the whole dataset. Only ``simiou`` and
    ``classbal`` change anything.
    """
    chosen = _named(acquisition)
    if chosen.compare is None:
        return scores
    return chosen.compare(scores, pseudo, dominant, census)


def _named(acquisition: str) -> Acquisition:
    if acquisition not in ACQUISITIONS:
        raise ValueError(
            f"acquisition must be one of {', '.join(sorted(ACQUISITIONS))}, not {acquisition!r}"
        )
    return ACQUISITIONS[acquisition]

"""Acquisition scores: how much a correction query about a superpixel is worth (higher: sooner).

Every acquisition scores the superpixels of one image at a time. Some then adjust the scores of the
whole dataset (:class:`Measured`). To add one, write its function and list it in ``ACQUISITIONS``.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alc_backend.core.arrays import VOID
from alc_backend.core.components import adjusted_iou
from alc_backend.core.expansion import checked_epsilon, reach
from alc_backend.core.kernels import fastest_kernels
from alc_backend.core.pool import Pool
from alc_backend.core.statistics import ImageStatistics

Scores = NDArray[np.float64]
Classes = NDArray[np.uint8]
Seed = int | tuple[int, ...]

LEAST_DOUBT = 0.4
"""The least mean doubt that ``default`` assumes of any superpixel: a network that has seen an image
often has memorised its wrong labels and no longer doubts them."""

ACCURACY = 8
"""The weight that ``default`` gives to a gain in pixel accuracy; one in mean IoU has weight 1."""


class Scene(NamedTuple):
    """What an acquisition is given of one image: statistics, candidates, ε and seed."""

    image: ImageStatistics
    pool: Pool
    epsilon: float
    seed: Seed


class Measured(NamedTuple):
    """The candidates of the whole dataset with their measured scores; every array has shape (M,).

    ``scores`` float64 from :func:`measure`; ``pseudo`` labels and ``dominant`` classes uint8 and
    ``sizes`` in pixels as in :class:`~alc_backend.core.pool.Pool`. ``class_pixels`` int64 (C,):
    the number N(c) of pixels that the current label maps give to each class.
    """

    scores: Scores
    pseudo: Classes
    dominant: Classes
    sizes: NDArray[np.int64]
    class_pixels: NDArray[np.int64]


def sim(scene: Scene) -> Scores:
    """The look-ahead score: the sum of similarity × doubt over the expansion (eqs. 9 and 12)."""
    image, pool = scene.image, scene.pool
    pixels = pool.rows * image.shape[1] + pool.cols
    if scene.epsilon == 0.0:
        return image.sims(pixels, pool.members)
    scores = np.empty(len(pool))
    for part in pool.layers():
        similarity, reached = reach(image, pixels[part], pool.members[part], scene.epsilon)
        scores[part] = image.sums(similarity * image.doubt * reached)[pool.members[part]]
    return scores


def abc(scene: Scene) -> Scores:
    """The sum of similarity with the superpixel's mean prediction × doubt (A²LC, AAAI 2026)."""
    return scene.image.mean_sims()[scene.pool.members]


def lcil(scene: Scene) -> Scores:
    """The mean doubt over the superpixel (eq. 10)."""
    return scene.image.means(scene.image.doubt)[scene.pool.members]


def cil(scene: Scene) -> Scores:
    """The doubt at the queried pixel alone, without look-ahead (eq. 8)."""
    image, pool = scene.image, scene.pool
    return image.doubt.reshape(image.shape)[pool.rows, pool.cols]


def softmin(scene: Scene, temperature: float = 0.1) -> Scores:
    """1 - the soft minimum of the self-confidence over the superpixel (Lad & Mueller 2023)."""
    image = scene.image
    weights = np.exp(image.doubt / temperature)  # at most exp(10): no overflow
    softest = image.sums(weights * image.self_confidence) / image.sums(weights)
    scores: Scores = 1.0 - softest[scene.pool.members]
    return scores


def aiou(scene: Scene) -> Scores:
    """The mean over the superpixel of 1 - adjusted IoU of the pixel's label component.

    The 8-connected components of the current label map are compared with those of the prediction
    (Rottmann & Reese 2023); see ``components.adjusted_iou``.
    """
    image = scene.image
    predicted = image.predicted.reshape(image.shape)
    given = np.where(image.labels == VOID, predicted, image.labels)
    return image.means(1.0 - adjusted_iou(given, predicted).ravel())[scene.pool.members]


def entropy(scene: Scene) -> Scores:
    """The mean entropy of the predictions over the superpixel, in nats."""
    return scene.image.means(scene.image.entropy())[scene.pool.members]


def bvsb(scene: Scene) -> Scores:
    """The mean over the superpixel of the second largest probability divided by the largest."""
    return scene.image.means(scene.image.rivalry)[scene.pool.members]


def random(scene: Scene) -> Scores:
    """Uniformly random scores in [0, 1), determined by the seed: a control."""
    return np.random.default_rng(scene.seed).random(len(scene.pool))


def size(scene: Scene) -> Scores:
    """The number of pixels of the superpixel: a control that any acquisition should beat."""
    return scene.pool.sizes.astype(np.float64)


def per_class_pixel(found: Measured) -> Scores:
    """The score divided by N(pseudo label), the pixels of that class (beyond the paper)."""
    compared: Scores = found.scores / np.maximum(found.class_pixels[found.pseudo], 1)
    return compared


def expected_gain(found: Measured, kernels: ModuleType | None = None) -> Scores:
    """The rank of each superpixel when the one whose answer should gain most is taken next.

    The gain is that in mean IoU plus ACCURACY times that in pixel accuracy; it goes beyond the
    paper, in three steps:

    1. The expected number of wrong pixels of a superpixel is its score SIM, but at least
       LEAST_DOUBT times its size.
    2. A pixel put right moves from the labelled class y to its true class, taken to be the
       dominant class D. It brings the IoU of y and, where D differs from y, that of D nearer to 1
       by one part in the class's union U(c): N(c) and the wrong pixels expected to belong to c. It
       raises the pixel accuracy by one part in the pixels of the dataset.
    3. Once the best superpixel is taken, U(y) shrinks by its expected wrong pixels, which makes
       what remains of that class worth more; then the next best is taken, and so on.

    Returns float64 (M,) in (0, 1]: 1 for the first superpixel, 1/M for the last. Of superpixels
    with equal gains the first in the arrays comes first: by image key and superpixel id, when the
    arrays are in that order. docs/benchmarks.md compares this order with others. ``kernels`` is one
    of the modules of :mod:`alc_backend.core.kernels` (default: the fastest).
    """
    count, classes = len(found.scores), len(found.class_pixels)
    wrong = np.maximum(found.scores, LEAST_DOUBT * found.sizes)
    elsewhere = found.dominant != found.pseudo
    union = np.maximum(found.class_pixels, 1).astype(np.float64)
    union += np.bincount(found.dominant, weights=wrong * elsewhere, minlength=classes)
    present = np.count_nonzero(found.class_pixels)
    pixel = ACCURACY * present / max(int(found.class_pixels.sum()), 1)
    pair = found.pseudo.astype(np.int32) * classes + found.dominant
    queue: NDArray[np.int64] = np.lexsort((-wrong, pair))  # which keeps the order of equals
    end = np.cumsum(np.bincount(pair, minlength=classes * classes)).reshape(classes, classes)
    order = np.empty(count, dtype=np.int64)
    (kernels or fastest_kernels()).gains(queue, end, wrong, union, pixel, order)
    ranks = np.empty(count)
    ranks[order] = np.arange(count, 0, -1) / count
    return ranks


def class_balance(found: Measured) -> Scores:
    """The min-max-normalised score × exp(-share of superpixels with the same dominant class).

    Source: Cai et al. 2021. Equal scores all become 1, so that the shares alone decide.
    """
    scores, dominant = found.scores, found.dominant
    low, high = (scores.min(), scores.max()) if len(scores) else (0.0, 0.0)
    normalised = (scores - low) / (high - low) if high > low else np.ones_like(scores)
    counts = np.bincount(dominant, minlength=len(found.class_pixels))
    compared: Scores = normalised * np.exp(-counts[dominant] / max(len(scores), 1))
    return compared


def adaptive_balance(found: Measured) -> Scores:
    """The score × (min_k n_k / n_c)^(KL³), c the pseudo label (A²LC, AAAI 2026).

    n_c is the number of superpixels here that are labelled c; the minimum is that over the classes
    that occur. KL is the divergence, in nats, of the shares n_c / Σ n from those of C equally
    frequent classes: the more uneven the classes are, the more the rare ones count.
    """
    counts = np.bincount(found.pseudo, minlength=len(found.class_pixels))
    occurring = counts[counts > 0]
    if not len(occurring):
        return found.scores
    shares = occurring / occurring.sum()
    divergence = float((shares * np.log(shares * len(counts))).sum())
    weights = (occurring.min() / np.maximum(counts, 1)) ** divergence**3
    compared: Scores = found.scores * weights[found.pseudo]
    return compared


class Acquisition(NamedTuple):
    """A function that scores one image, and one that then adjusts the scores of the dataset."""

    measure: Callable[[Scene], Scores]
    compare: Callable[[Measured], Scores] | None = None

    @property
    def measured(self) -> str:
        """The name of the acquisition with the same measurement and no comparison."""
        return self.measure.__name__


ACQUISITIONS: dict[str, Acquisition] = {
    "default": Acquisition(sim, expected_gain),
    "sim": Acquisition(sim),
    "simiou": Acquisition(sim, per_class_pixel),
    "abc": Acquisition(abc, adaptive_balance),
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
    """The scores of the candidates of one image, float64 (M,), aligned with ``pool``.

    ``pool`` comes from :mod:`alc_backend.core.pool` and the same ``image``. ``epsilon`` in [0, 1],
    the similarity that an expansion requires (eq. 12), only matters to ``sim`` and acquisitions
    built on it; ``seed`` only to ``random`` (give each image its own). Scores of different images
    are comparable only after :func:`compare`. Raises ValueError naming the argument.
    """
    chosen = _named(acquisition)
    epsilon = checked_epsilon(epsilon)
    pool.check(image)
    return chosen.measure(Scene(image, pool, epsilon, seed))


def compare(found: Measured, acquisition: str = "sim") -> Scores:
    """The scores by which the superpixels of all images are ranked, float64 (M,).

    ``found`` holds the candidates of all images. ``default``, ``simiou`` and ``classbal`` change
    the measured scores; the other acquisitions return them as they are.
    """
    chosen = _named(acquisition)
    return found.scores if chosen.compare is None else chosen.compare(found)


def _named(acquisition: str) -> Acquisition:
    if acquisition not in ACQUISITIONS:
        raise ValueError(
            f"acquisition must be one of {', '.join(sorted(ACQUISITIONS))}, not {acquisition!r}"
        )
    return ACQUISITIONS[acquisition]

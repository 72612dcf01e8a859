"""Acquisition scores: how much a correction query about a superpixel is worth; higher first.

An acquisition measures each image by itself. Some then compare the superpixels of the whole
dataset (:class:`Measured`). To add one: write its function, and its line in ``ACQUISITIONS``.
"""

from __future__ import annotations

from collections.abc import Callable
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

LEAST_DOUBT = 0.4
"""Mean doubt below which ``default`` does not tell superpixels apart: a network that has seen each
image often has learnt the mistakes by heart, and no longer doubts them."""

ACCURACY = 8
"""How often ``default`` counts a gain in pixel accuracy, beside the sum of the classes' IoU over
their number."""


class Scene(NamedTuple):
    """What an acquisition sees of one image; it returns float64 (M,) aligned with ``pool``."""

    image: ImageStatistics
    pool: Pool
    epsilon: float
    seed: Seed


class Measured(NamedTuple):
    """The pool of the whole dataset as its images measured it; every array has shape (M,).

    ``scores`` float64 from :func:`measure`; ``pseudo`` labels and ``dominant`` classes uint8 and
    ``sizes`` in pixels as in :class:`~alc_backend.core.pool.Pool`. ``class_pixels`` int64 (C,):
    how many pixels the current label maps give each class, N(c).
    """

    scores: Scores
    pseudo: Classes
    dominant: Classes
    sizes: NDArray[np.int64]
    class_pixels: NDArray[np.int64]


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


def per_class_pixel(found: Measured) -> Scores:
    """The score over the pixels of the pseudo label's class in the dataset (beyond the paper)."""
    compared: Scores = found.scores / np.maximum(found.class_pixels[found.pseudo], 1)
    return compared


def expected_gain(found: Measured) -> Scores:
    """The order in which answers are expected to gain most, in mean IoU and accuracy together.

    Beyond the paper, in three steps. (1) How many pixels of a superpixel are wrong: |s| times its
    mean weighted doubt SIM/|s|, but at least LEAST_DOUBT. (2) What putting one right brings. It is
    missing from the intersection of two of the K classes, the labelled one y and the true one,
    taken to be the dominant class D where that differs, and brings each nearer to 1 by one part in
    its union U(c), which is N(c) and what the network finds of c under other labels. Of the
    accuracy over all T pixels it is one part in T, which counts ACCURACY times. (3) The best
    superpixel is taken, U(y) shrinks by what is expected to be wrong of it, and so on: what is
    left of a class that is being cleaned is worth more. Returns each superpixel's place from the
    end of that order, over their number; ties go to the first. docs/benchmarks.md compares it
    with others.
    """
    count, classes = len(found.scores), len(found.class_pixels)
    wrong = np.maximum(found.scores, LEAST_DOUBT * found.sizes)
    elsewhere = found.dominant != found.pseudo
    union = np.maximum(found.class_pixels, 1) + np.bincount(
        found.dominant, weights=wrong * elsewhere, minlength=classes
    )
    held = np.count_nonzero(found.class_pixels)
    pixel = ACCURACY * held / max(int(found.class_pixels.sum()), 1)
    # Superpixels with the same two classes never overtake each other: only the first of each pair
    # of classes can be the best.
    pair = found.pseudo.astype(np.int64) * classes + found.dominant
    queue = np.lexsort((np.arange(count), -wrong, pair))
    kinds, head = np.unique(pair[queue], return_index=True)
    end = np.append(head[1:], count)
    given, seen = kinds // classes, kinds % classes
    differs = given != seen
    places = np.empty(count)
    waiting = wrong[queue[head]] if count else wrong
    for left in range(count, 0, -1):
        gain = waiting * (1 / union[given] + differs / union[seen] + pixel)
        best = int(gain.argmax())
        places[queue[head[best]]] = left / count
        union[given[best]] = max(union[given[best]] - waiting[best], 1.0)
        head[best] += 1
        waiting[best] = wrong[queue[head[best]]] if head[best] < end[best] else 0.0
    return places


def class_balance(found: Measured) -> Scores:
    """Min-max-normalised score × exp(-share of superpixels with this dominant class).

    Cai et al. 2021. Where all scores are equal they count as 1, so that the shares decide.
    """
    scores, dominant = found.scores, found.dominant
    low, high = (scores.min(), scores.max()) if len(scores) else (0.0, 0.0)
    normalised = (scores - low) / (high - low) if high > low else np.ones_like(scores)
    counts = np.bincount(dominant, minlength=len(found.class_pixels))
    compared: Scores = normalised * np.exp(-counts[dominant] / max(len(scores), 1))
    return compared


class Acquisition(NamedTuple):
    """How an acquisition measures an image, and how it compares the dataset's superpixels."""

    measure: Callable[[Scene], Scores]
    compare: Callable[[Measured], Scores] | None = None

    @property
    def measured(self) -> str:
        """The acquisition that measures the same and compares nothing."""
        return self.measure.__name__


ACQUISITIONS: dict[str, Acquisition] = {
    "default": Acquisition(sim, expected_gain),
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
    similarity an expansion requires (eq. 12), matters to ``sim`` and what builds on it; ``seed`` to
    ``random`` (give each image its own). Comparable within the image; over the dataset only after
    :func:`compare`. Raises ValueError naming the argument.
    """
    chosen = _named(acquisition)
    epsilon = checked_epsilon(epsilon)
    pool.check(image)
    return chosen.measure(Scene(image, pool, epsilon, seed))


def compare(found: Measured, acquisition: str = "sim") -> Scores:
    """Make measured scores comparable over the dataset; float64 (M,).

    ``found`` of all images, however few of their superpixels it holds. Most acquisitions change
    nothing here; ``default``, ``simiou`` and ``classbal`` do.
    """
    chosen = _named(acquisition)
    return found.scores if chosen.compare is None else chosen.compare(found)


def _named(acquisition: str) -> Acquisition:
    if acquisition not in ACQUISITIONS:
        raise ValueError(
            f"acquisition must be one of {', '.join(sorted(ACQUISITIONS))}, not {acquisition!r}"
        )
    return ACQUISITIONS[acquisition]

"""Acquisition scores: how much a correction query about a superpixel is worth; higher first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alc_backend.core.arrays import (
    VOID,
    Segments,
    checked_labels,
    checked_probabilities,
    checked_superpixels,
    segments,
)
from alc_backend.core.expansion import checked_epsilon
from alc_backend.core.pool import Pool
from alc_backend.core.similarity import cosines


@dataclass(frozen=True)
class Context:
    """What every acquisition sees of one image.

    ``predictions`` (C, M) of the queryable pixels in the order of ``groups``; ``doubt`` (M,)
    1 - f(y(x); x), where void labels are replaced by the predicted class; ``representatives``
    (N,) positions of the representative pixels among the M.
    """

    predictions: NDArray[np.float32]
    doubt: NDArray[np.float64]
    groups: Segments
    representatives: NDArray[np.intp]
    epsilon: float


def sim(context: Context) -> NDArray[np.float64]:
    """Look-ahead score: similarity-weighted doubt summed over the expansion (eqs. 9 and 12)."""
    references = context.predictions[:, context.representatives].astype(np.float64)
    similarity = cosines(context.predictions, references, context.groups.group)
    reached = similarity >= context.epsilon
    reached[context.representatives] = True
    return _sums(similarity * context.doubt * reached, context.groups)


def lcil(context: Context) -> NDArray[np.float64]:
    """Mean doubt over the superpixel (eq. 10)."""
    return _sums(context.doubt, context.groups) / context.groups.sizes


ACQUISITIONS: dict[str, Callable[[Context], NDArray[np.float64]]] = {"sim": sim, "lcil": lcil}
"""Every acquisition by the name used in settings, the command line and reports."""


def score(
    probabilities: Any,
    labels: Any,
    superpixels: Any,
    pool: Pool,
    acquisition: str = "sim",
    epsilon: float = 0.0,
) -> NDArray[np.float64]:
    """Score every superpixel of an image; returns float64 (N,) aligned with ``pool.ids``.

    ``probabilities`` float32 (C, H, W), softmax over C; ``labels`` uint8 (H, W), 255 = void;
    ``superpixels`` int32 (H, W), 0 = not queryable; ``pool`` from
    :func:`alc_backend.core.pool.representative_pixels` on the same arrays; ``epsilon`` in [0, 1],
    the similarity an expansion requires (eq. 12). Raises ValueError naming the argument.
    """
    if acquisition not in ACQUISITIONS:
        raise ValueError(
            f"acquisition must be one of {', '.join(sorted(ACQUISITIONS))}, not {acquisition!r}"
        )
    epsilon = checked_epsilon(epsilon)
    probabilities = checked_probabilities(probabilities)
    classes, *size = probabilities.shape
    shape = (size[0], size[1])
    labels = checked_labels(labels, shape, classes)
    groups = segments(checked_superpixels(superpixels, shape))
    if not np.array_equal(groups.ids, pool.ids):
        raise ValueError("pool does not belong to superpixels: the superpixel ids differ")
    if len(pool) == 0:
        return np.zeros(0)

    predictions = probabilities.reshape(classes, -1)[:, groups.pixels]
    given = labels.ravel()[groups.pixels].astype(np.intp)
    given = np.where(given == VOID, predictions.argmax(axis=0), given)
    doubt = 1.0 - predictions[given, np.arange(len(given))].astype(np.float64)
    representatives = _positions(pool, groups, shape)
    return ACQUISITIONS[acquisition](Context(predictions, doubt, groups, representatives, epsilon))


def _positions(pool: Pool, groups: Segments, shape: tuple[int, int]) -> NDArray[np.intp]:
    """Where the representative pixels stand among the grouped pixels."""
    place = np.full(shape[0] * shape[1], -1, dtype=np.intp)
    place[groups.pixels] = np.arange(len(groups.pixels))
    positions: NDArray[np.intp] = place[pool.rows * shape[1] + pool.cols]
    if (positions < 0).any() or not np.array_equal(
        groups.group[positions], np.arange(len(pool), dtype=np.intp)
    ):
        raise ValueError("pool does not belong to superpixels: a representative lies elsewhere")
    return positions


def _sums(values: NDArray[np.float64], groups: Segments) -> NDArray[np.float64]:
    sums = np.bincount(groups.group, weights=values, minlength=len(groups.ids))
    return np.asarray(sums, dtype=np.float64)

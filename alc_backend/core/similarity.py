"""Cosine similarity of class predictions, shared by the pool, SIM and the expansion."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def cosines(
    predictions: NDArray[np.float32],
    references: NDArray[np.float64],
    group: NDArray[np.intp],
) -> NDArray[np.float64]:
    """Cosine of every pixel's prediction with the reference of its superpixel.

    ``predictions`` (C, M); ``references`` (C, N), one column per superpixel; ``group`` (M,) the
    superpixel of each pixel. Returns (M,) in [0, 1] (probabilities are never negative).
    """
    dot = np.zeros(predictions.shape[1])
    squares = np.zeros(predictions.shape[1])
    for row, reference in zip(predictions, references, strict=True):
        values = row.astype(np.float64)
        dot += values * reference[group]
        squares += values * values
    lengths = np.sqrt((references**2).sum(axis=0))[group] * np.sqrt(squares)
    similarity: NDArray[np.float64] = np.minimum(dot / lengths, 1.0)
    return similarity

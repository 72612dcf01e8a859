"""The formulas of the paper, pixel by pixel, in float64: slow and obviously correct."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

VOID = 255


def cosine(a: Any, b: Any) -> float:
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    return dot / (
        math.sqrt(sum(float(x) ** 2 for x in a)) * math.sqrt(sum(float(y) ** 2 for y in b))
    )


def pixels_of(superpixels: Any, number: int) -> list[tuple[int, int]]:
    return [(int(r), int(c)) for r, c in zip(*np.nonzero(superpixels == number), strict=True)]


def pool_entry(probabilities: Any, superpixels: Any, number: int) -> dict[str, Any]:
    """Dominant class, size, and the cosine of every candidate with the mean (eqs. 3-6)."""
    pixels = pixels_of(superpixels, number)
    predicted = {p: int(np.argmax(probabilities[:, p[0], p[1]])) for p in pixels}
    votes = [sum(label == c for label in predicted.values()) for c in range(len(probabilities))]
    dominant = votes.index(max(votes))
    agreeing = [p for p in pixels if predicted[p] == dominant]
    mean = sum(probabilities[:, r, c].astype(np.float64) for r, c in agreeing) / len(agreeing)
    return {
        "dominant": dominant,
        "size": len(pixels),
        "cosines": {p: cosine(probabilities[:, p[0], p[1]], mean) for p in agreeing},
    }


def doubt(probabilities: Any, labels: Any, pixel: tuple[int, int]) -> float:
    f = probabilities[:, pixel[0], pixel[1]]
    label = int(labels[pixel])
    return 1.0 - float(f[int(np.argmax(f)) if label == VOID else label])


def reach(
    probabilities: Any, superpixels: Any, number: int, star: tuple[int, int], epsilon: float
) -> list[tuple[int, int]]:
    """s(x_r, ε), eq. 12."""
    at_star = probabilities[:, star[0], star[1]]
    return [
        p
        for p in pixels_of(superpixels, number)
        if p == star or cosine(probabilities[:, p[0], p[1]], at_star) >= epsilon
    ]


def sim(
    probabilities: Any,
    labels: Any,
    superpixels: Any,
    number: int,
    star: tuple[int, int],
    epsilon: float,
) -> float:
    """Eq. 9."""
    at_star = probabilities[:, star[0], star[1]]
    return sum(
        cosine(probabilities[:, p[0], p[1]], at_star) * doubt(probabilities, labels, p)
        for p in reach(probabilities, superpixels, number, star, epsilon)
    )


def lcil(probabilities: Any, labels: Any, superpixels: Any, number: int) -> float:
    """Eq. 10."""
    pixels = pixels_of(superpixels, number)
    return sum(doubt(probabilities, labels, p) for p in pixels) / len(pixels)

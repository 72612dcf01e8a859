"""The formulas of the paper, pixel by pixel, in float64: slow and obviously correct."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

VOID = 255
Pixel = tuple[int, int]


def cosine(a: Any, b: Any) -> float:
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    return dot / (
        math.sqrt(sum(float(x) ** 2 for x in a)) * math.sqrt(sum(float(y) ** 2 for y in b))
    )


def pixels_of(superpixels: Any, number: int) -> list[Pixel]:
    return [(int(r), int(c)) for r, c in zip(*np.nonzero(superpixels == number), strict=True)]


def predicted_at(probabilities: Any, pixel: Pixel) -> int:
    f = [float(p) for p in probabilities[:, pixel[0], pixel[1]]]
    return f.index(max(f))


def given_at(probabilities: Any, labels: Any, pixel: Pixel) -> int:
    label = int(labels[pixel])
    return predicted_at(probabilities, pixel) if label == VOID else label


def doubt(probabilities: Any, labels: Any, pixel: Pixel) -> float:
    """Eq. 8."""
    return 1.0 - float(probabilities[:, pixel[0], pixel[1]][given_at(probabilities, labels, pixel)])


def pool_entry(probabilities: Any, superpixels: Any, number: int) -> dict[str, Any]:
    """Dominant class, size, and the cosine of every candidate with the mean (eqs. 3-6)."""
    pixels = pixels_of(superpixels, number)
    predicted = {p: predicted_at(probabilities, p) for p in pixels}
    votes = [sum(label == c for label in predicted.values()) for c in range(len(probabilities))]
    dominant = votes.index(max(votes))
    agreeing = [p for p in pixels if predicted[p] == dominant]
    mean = sum(probabilities[:, r, c].astype(np.float64) for r, c in agreeing) / len(agreeing)
    return {
        "dominant": dominant,
        "size": len(pixels),
        "cosines": {p: cosine(probabilities[:, p[0], p[1]], mean) for p in agreeing},
    }


def reach(
    probabilities: Any, superpixels: Any, number: int, star: Pixel, epsilon: float
) -> list[Pixel]:
    """s(x_r, ε), eq. 12."""
    at_star = probabilities[:, star[0], star[1]]
    return [
        p
        for p in pixels_of(superpixels, number)
        if p == star or cosine(probabilities[:, p[0], p[1]], at_star) >= epsilon
    ]


def sim(
    probabilities: Any, labels: Any, superpixels: Any, number: int, star: Pixel, epsilon: float = 0
) -> float:
    """Eq. 9."""
    at_star = probabilities[:, star[0], star[1]]
    return sum(
        cosine(probabilities[:, p[0], p[1]], at_star) * doubt(probabilities, labels, p)
        for p in reach(probabilities, superpixels, number, star, epsilon)
    )


def mean_sim(probabilities: Any, labels: Any, superpixels: Any, number: int) -> float:
    """Σ over s of cos(f(x), m)·(1 − f(y(x); x)), m the mean over the dominant part of s."""
    pixels = pixels_of(superpixels, number)
    votes = Counter(predicted_at(probabilities, pixel) for pixel in pixels)
    dominant = min(votes, key=lambda class_id: (-votes[class_id], class_id))
    part = [pixel for pixel in pixels if predicted_at(probabilities, pixel) == dominant]
    mean = [sum(float(values[p]) for p in part) / len(part) for values in probabilities]
    return sum(
        cosine([float(values[pixel]) for values in probabilities], mean)
        * doubt(probabilities, labels, pixel)
        for pixel in pixels
    )


def lcil(probabilities: Any, labels: Any, superpixels: Any, number: int) -> float:
    """Eq. 10."""
    pixels = pixels_of(superpixels, number)
    return sum(doubt(probabilities, labels, p) for p in pixels) / len(pixels)


def softmin(probabilities: Any, labels: Any, superpixels: Any, number: int) -> float:
    """Lad & Mueller 2023 with temperature 0.1."""
    doubts = [doubt(probabilities, labels, p) for p in pixels_of(superpixels, number)]
    exponentials = [math.exp(d / 0.1) for d in doubts]
    weights = [e / sum(exponentials) for e in exponentials]
    return 1.0 - sum((1.0 - d) * w for d, w in zip(doubts, weights, strict=True))


def entropy(probabilities: Any, superpixels: Any, number: int) -> float:
    total = 0.0
    pixels = pixels_of(superpixels, number)
    for r, c in pixels:
        total -= sum(float(p) * math.log(p) for p in probabilities[:, r, c] if p > 0)
    return total / len(pixels)


def bvsb(probabilities: Any, superpixels: Any, number: int) -> float:
    pixels = pixels_of(superpixels, number)
    total = 0.0
    for r, c in pixels:
        second, first = sorted(float(p) for p in probabilities[:, r, c])[-2:]
        total += second / first
    return total / len(pixels)


def components(classes: Any) -> list[set[Pixel]]:
    """The 8-connected components of equal class, by flooding."""
    height, width = classes.shape
    left = {(r, c) for r in range(height) for c in range(width)}
    found = []
    while left:
        seed = left.pop()
        component, border = {seed}, [seed]
        while border:
            r, c = border.pop()
            for neighbour in [(r + i, c + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
                if neighbour in left and classes[neighbour] == classes[seed]:
                    left.remove(neighbour)
                    component.add(neighbour)
                    border.append(neighbour)
        found.append(component)
    return found


def aiou(probabilities: Any, labels: Any, superpixels: Any, number: int) -> float:
    """Rottmann & Reese 2023: the mean over s of 1 - adjusted IoU of the pixel's component."""
    height, width = labels.shape
    everywhere = [(r, c) for r in range(height) for c in range(width)]
    predicted = np.zeros((height, width), dtype=int)
    given = np.zeros((height, width), dtype=int)
    for p in everywhere:
        predicted[p] = predicted_at(probabilities, p)
        given[p] = given_at(probabilities, labels, p)
    parts, matches = components(given), components(predicted)
    pixels = pixels_of(superpixels, number)
    total = 0.0
    for part in parts:
        label = given[next(iter(part))]
        others = {p for other in parts if other is not part for p in other if given[p] == label}
        touching: set[Pixel] = set()
        for match in matches:
            if predicted[next(iter(match))] == label and match & part:
                touching |= match
        iou = len(part & touching) / len((part | touching) - others)
        total += sum(p in part for p in pixels) * (1.0 - iou)
    return total / len(pixels)


def on_the_edge(probabilities, superpixels, number, star, epsilon):
    """Whether rounding decides if some pixel is reached."""
    at_star = probabilities[:, star[0], star[1]]
    return any(
        0 < abs(cosine(probabilities[:, r, c], at_star) - epsilon) < 1e-6
        for r, c in pixels_of(superpixels, number)
    )
